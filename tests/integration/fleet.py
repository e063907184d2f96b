"""A cluster of separate processes for tests that break one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from distributed import Client
from s3_server import free_port

BIN = Path(sys.executable).parent
FIXED = (
    "--shard-videos 2 --min-snr-db none --max-silence-ratio none --run-id tests --device cpu --heartbeat-s 1 "
    "--max-failed-share 1"
)


@dataclass
class Fleet:
    """A scheduler, nannies of one worker each, and a driver, as separate processes."""

    folder: Path
    catalog: Path
    port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        return self.folder / "out"

    @property
    def environment(self) -> dict[str, str]:
        address = f"tcp://127.0.0.1:{self.port}"
        # A test that calls the command in this process makes Dask quiet, and logs are read here.
        inherited = {name: value for name, value in os.environ.items() if name != "DASK_LOGGING"}
        return {**inherited, "TMPDIR": str(self.folder), "DASK_SCHEDULER_ADDRESS": address, **self.settings}

    def start(self, name: str, *command: str, folder: Path | None = None, **settings: str) -> subprocess.Popen[bytes]:
        """Start a process.

        Args:
            folder: its working directory; default: that of the fleet.
            settings: further environment variables.
        """
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                stdout=log,
                stderr=log,
                env=self.environment | settings,
                cwd=folder or self.folder,
                start_new_session=True,
            )
        return self.running[name]

    def scheduler(self) -> None:
        self.start("scheduler", "dask", "scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard")

    def worker(self, name: str, *options: str, folder: Path | None = None, **settings: str) -> None:
        command = ["--name", name, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", *options]
        address = f"tcp://127.0.0.1:{self.port}"
        self.start(name, "dask", "worker", address, *command, folder=folder, **settings)

    def wait_for_workers(self, workers: int) -> None:
        """Wait until so many workers are there: one that starts later may find no shard left."""
        with Client(f"tcp://127.0.0.1:{self.port}", timeout=120) as client:
            client.wait_for_workers(workers, timeout=120)

    def driver(self, *options: str, cluster: str = "existing") -> subprocess.Popen[bytes]:
        command = ["--catalog", str(self.catalog), "--output", str(self.output), "--cluster", cluster, "--quiet"]
        return self.start("driver", "audiopipe", "run", *command, *FIXED.split(), *options)

    def process_tree(self, name: str) -> list[psutil.Process]:
        """List a process and its descendants, the youngest first."""
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.running[name].pid)
            return [*reversed(parent.children(recursive=True)), parent]
        return []

    def kill(self, name: str) -> None:
        for process in self.process_tree(name):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.running[name].wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-3000:]

    def commits(self) -> dict[str, bytes]:
        return {path.stem: path.read_bytes() for path in (self.output / "_commits").glob("*.json")}

    def workers_of_commits(self) -> set[str]:
        return {json.loads(body)["result"]["worker"].rsplit("/", 1)[-1] for body in self.commits().values()}

    def started_shards(self) -> set[str]:
        return {path.name for path in (self.output / "_parts").glob("*")}

    def assert_ends(self, code: int, within_s: float) -> None:
        """Check the exit code of the driver, which must end in time."""
        assert self.running["driver"].wait(timeout=within_s) == code, self.log("driver")
