"""A scheduler, workers and a driver as processes that a test can kill and restart."""

from __future__ import annotations

import multiprocessing
import os
import random
import subprocess
import sys
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import psutil
from factories import delay_decoders, inject_decoder_code
from s3_server import S3Server, free_port

BIN = Path(sys.executable).parent


def hold_in(folder: Path) -> Path:
    """Return the path of a file; while it exists, decoders of processes with its folder in PYTHONPATH wait."""
    hold = folder / "hold"
    inject_decoder_code(folder, f"while job == 'decode' and pathlib.Path({str(hold)!r}).exists(): time.sleep(0.2)")
    return hold


def drive(arguments: list[str], environment: dict[str, str], log: Path) -> None:
    """Run the `audiopipe` command in this process, with its output in a file."""
    os.environ.update(environment)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    from audiopipe.cli import main

    main(arguments)


class Processes:
    """A scheduler, a nanny with two workers, optionally an S3 server, and a driver while one is running."""

    def __init__(self, folder: Path, server: S3Server | None = None) -> None:
        self.folder, self.server, self.port = folder, server, free_port()
        self.environment = os.environ | {
            "DASK_SCHEDULER_ADDRESS": f"tcp://127.0.0.1:{self.port}",
            # Decoders wait before they read a header, so that a test can act in the middle of a shard.
            **delay_decoders(folder / "delayed", 0.3),
            "TMPDIR": str(folder / "scratch"),
        }
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.driver: ForkServerProcess | None = None
        # Drivers are forked from a process that has imported all: that is most of what a short run takes.
        self.forks = multiprocessing.get_context("forkserver")
        self.forks.set_forkserver_preload(["audiopipe.cli", "audiopipe.driver.run", "s3fs"])
        (folder / "scratch").mkdir()

    def ensure(self) -> None:
        """Restart every process that has ended, except the driver."""
        address = ["--host", "127.0.0.1"]
        if self.server and (self.server.process is None or self.server.process.poll() is not None):
            self.server.start()
        if not self._alive("scheduler"):
            self._stop("nanny")  # its workers belong to the lost scheduler
            self._start("scheduler", "scheduler", *address, "--port", str(self.port), "--no-dashboard")
        if not self._alive("nanny"):
            local = ["--local-directory", str(self.folder / "local"), "--no-dashboard", "--nworkers", "2"]
            scheduler = self.environment["DASK_SCHEDULER_ADDRESS"]
            self._start("nanny", "worker", scheduler, *address, *local, "--nthreads", "1")

    def start_driver(self, job: list[str]) -> ForkServerProcess:
        self.driver = self.forks.Process(target=drive, args=(job, self.environment, self.folder / "driver.log"))
        self.driver.start()
        return self.driver

    def log(self, name: str) -> str:
        """Return the end of a process's output."""
        path = self.folder / f"{name}.log"
        return path.read_text()[-3000:] if path.exists() else ""

    def _start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [str(BIN / "dask"), *arguments], stdout=log, stderr=log, env=self.environment, cwd=self.folder
            )

    def _alive(self, name: str) -> bool:
        return name in self.running and self.running[name].poll() is None

    def signal(self, name: str, number: int) -> None:
        self.running[name].send_signal(number)

    def kill(self, victim: str, rng: random.Random) -> bool:
        """Kill a process of that kind with signal 9, and return False if there is none."""
        pids = self._pids(victim)
        if not pids:
            return False
        with suppress(ProcessLookupError):
            os.kill(rng.choice(pids), 9)
            # Wait for its end, because `ensure` restarts only processes that have ended.
            if victim in self.running:
                self.running[victim].wait()
            elif victim == "s3" and self.server and self.server.process:
                self.server.process.wait()
            return True
        return False

    def _pids(self, victim: str) -> list[int]:
        if victim == "driver":
            return [self.driver.pid] if self.driver and self.driver.pid and self.driver.is_alive() else []
        if victim == "s3":
            return [self.server.process.pid] if self.server and self.server.process else []
        if victim in self.running:
            return [self.running[victim].pid] if self._alive(victim) else []
        marks = {"worker": ("spawn_main",), "decoder": ("audiopipe.media.forkserver",)}[victim]
        return [process.pid for process in self._below("nanny") if any(mark in _command(process) for mark in marks)]

    def _below(self, name: str) -> list[psutil.Process]:
        try:
            return psutil.Process(self.running[name].pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def _stop(self, name: str) -> None:
        if not self._alive(name):
            return
        for member in [*self._below(name), psutil.Process(self.running[name].pid)]:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        self.running[name].wait()

    def stop(self) -> None:
        if self.driver is not None and self.driver.is_alive():
            self.driver.kill()
        for name in ("nanny", "scheduler"):
            self._stop(name)


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
