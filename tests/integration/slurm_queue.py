"""Start a real Slurm of one node: its controller, its daemon, and munge, which authenticates them. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3_server import free_port
from waiting import wait_until

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
MISSING = [tool for tool in TOOLS if not shutil.which(tool, path="/usr/sbin:/usr/bin")]
SETTINGS = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000
PartitionName=main Nodes=ALL Default=YES State=UP
"""


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Start Slurm and wait until its node is idle; yield the environment for its commands."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o400)
    node = {"host": os.uname().nodename, "folder": folder, "cpus": os.cpu_count()}
    (folder / "slurm.conf").write_text(SETTINGS.format(**node, controller=free_port(), daemon=free_port()))
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    munge = {name: f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")}
    commands = (
        ["munged", "--foreground", "--force", f"--socket={folder}/munge", f"--key-file={folder}/key", *munge.values()],
        ["slurmctld", "-D"],
        ["slurmd", "-D"],
    )
    running = []
    try:
        for command in commands:
            with (folder / f"{command[0]}.out").open("wb") as log:
                running.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment))
        _wait_for_node(folder, environment)
        yield environment
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(timeout=60)


def _wait_for_node(folder: Path, environment: dict[str, str]) -> None:
    command = ["sinfo", "--noheader", "--format=%T"]

    def is_idle() -> bool:
        return "idle" in subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout

    wait_until(is_idle, lambda: "".join(log.read_text()[-800:] for log in folder.glob("*.out")), poll_s=0.2)
