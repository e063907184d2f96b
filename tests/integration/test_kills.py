"""kill -9 at random moments of a run on a real cluster of processes; the dataset is the same as without.

AUDIOPIPE_KILLS=200 runs more seeds than the default; AUDIOPIPE_KILL_SEED=17 runs one again.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from outputs import RUN_ID, config, content, corpus, make_output
from s3_server import free_port

from audiopipe.media import ffmpeg
from audiopipe.verify import verify

BIN = Path(sys.executable).parent
VICTIMS = ("worker", "nanny", "driver", "decoder")
SEEDS = (
    [int(os.environ["AUDIOPIPE_KILL_SEED"])]
    if "AUDIOPIPE_KILL_SEED" in os.environ
    else list(range(int(os.environ.get("AUDIOPIPE_KILLS", "8"))))
)
# Slow enough to be caught at work.
SLOW_DECODER = """#!/bin/sh
sleep 0.15
exec {ffmpeg} "$@"
"""
FINISHED, UNFINISHED = (0, 3), 4


class Processes:
    """A scheduler, a nanny with two workers, and a driver when there is one; whoever is dead is started again."""

    def __init__(self, folder: Path, job: list[str]) -> None:
        self.folder, self.job = folder, job
        self.port = free_port()
        self.environment = os.environ | {
            "DASK_SCHEDULER_ADDRESS": f"tcp://127.0.0.1:{self.port}",
            "IMAGEIO_FFMPEG_EXE": str(folder / "ffmpeg"),
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        (folder / "ffmpeg").write_text(SLOW_DECODER.format(ffmpeg=ffmpeg()))
        (folder / "ffmpeg").chmod(0o755)

    def ensure_cluster(self) -> None:
        address = ["--host", "127.0.0.1"]
        if not self._alive("scheduler"):
            self._stop("nanny")  # its workers belong to the scheduler that is gone
            ports = ["--port", str(self.port), "--no-dashboard"]
            self._start("scheduler", str(BIN / "dask"), "scheduler", *address, *ports)
        if not self._alive("nanny"):
            scheduler = self.environment["DASK_SCHEDULER_ADDRESS"]
            local = ["--local-directory", str(self.folder / "local"), "--no-dashboard", "--nworkers", "2"]
            self._start("nanny", str(BIN / "dask"), "worker", scheduler, *address, *local, "--nthreads", "1")

    def start_driver(self, output: Path) -> subprocess.Popen[bytes]:
        self._start("driver", str(BIN / "audiopipe"), "run", *self.job, "--output", str(output))
        return self.running["driver"]

    def _start(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment, cwd=self.folder
            )

    def _alive(self, name: str) -> bool:
        return name in self.running and self.running[name].poll() is None

    def kill(self, victim: str, dice: random.Random) -> str | None:
        """kill -9 a process of that kind, if there is one just now."""
        nanny = self.running["nanny"].pid
        with suppress(psutil.NoSuchProcess):
            below = psutil.Process(nanny).children(recursive=True) if psutil.pid_exists(nanny) else []
            named = {process.pid: " ".join(process.cmdline()) for process in below}
            workers = [pid for pid, command in named.items() if "spawn_main" in command]
            decoders = [pid for pid, command in named.items() if "ffmpeg" in command]
            pids = {"worker": workers, "decoder": decoders}.get(victim)
            if pids is None:
                pids = [self.running[victim].pid] if self._alive(victim) else []
            if pids:
                os.kill(dice.choice(pids), 9)
                return victim
        return None

    def _stop(self, name: str) -> None:
        if not self._alive(name):
            return
        process = self.running[name]
        with suppress(psutil.NoSuchProcess):
            family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    member.kill()
        process.wait()

    def stop(self) -> None:
        for name in ("driver", "nanny", "scheduler"):
            self._stop(name)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    folder = tmp_path_factory.mktemp("kills")
    catalog = corpus(folder / "c", videos=8)
    make_output(config(catalog, folder / "calm"))
    parameters = {"shard_videos": "2", "min_snr_db": "none", "max_silence_ratio": "none", "run_id": RUN_ID}
    options = [word for name, value in parameters.items() for word in (f"--{name.replace('_', '-')}", value)]
    job = ["--catalog", str(catalog), "--cluster", "existing", "--heartbeat-s", "1", "--device", "cpu", *options]
    processes = Processes(folder, job)
    yield processes
    processes.stop()


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_the_dataset_is_the_same_whoever_is_killed(processes: Processes, tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    output = tmp_path / "out"
    victims = [VICTIMS[seed % len(VICTIMS)], *dice.sample(VICTIMS, dice.randint(0, 1))]
    killed: list[str] = []
    for _ in range(12):
        processes.ensure_cluster()
        driver = processes.start_driver(output)
        _wait_for_work(driver, output)
        until = time.monotonic() + 45
        while victims and driver.poll() is None and time.monotonic() < until:
            time.sleep(dice.uniform(0.02, 0.6))
            if processes.kill(victims[0], dice):
                killed.append(victims.pop(0))
                processes.ensure_cluster()
        try:
            code = driver.wait(max(1.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            processes._stop("driver")
            code = -9
        assert code in (*FINISHED, UNFINISHED, -9), (processes.folder / "driver.log").read_text()[-3000:]
        if code in FINISHED:
            break
    assert code in FINISHED, killed
    assert content(output) == content(processes.folder / "calm"), killed
    assert verify(str(output)).findings == (), killed


def _wait_for_work(driver: subprocess.Popen[bytes], output: Path) -> None:
    """Until a first part or commit is there: a kill before is of no interest."""
    for _ in range(400):
        if driver.poll() is not None or (output / "_plan").exists():
            return
        time.sleep(0.05)
