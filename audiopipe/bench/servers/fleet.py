"""A Dask cluster of separate processes on this machine, each of which can be killed, stopped and replaced."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import psutil

from audiopipe.bench.servers.start import free_port

__all__ = ["BIN", "Fleet"]

BIN = Path(sys.executable).parent


@dataclass
class Fleet:
    """A scheduler, nannies of one worker each, and a driver, as separate processes with a log each in a folder.

    Attributes:
        port: of the scheduler, on 127.0.0.1.
        settings: environment variables of all processes.
    """

    folder: Path
    port: int = field(default_factory=free_port)
    settings: dict[str, str] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment of a process; a command run in this process makes Dask quiet, and logs are read."""
        inherited = {name: value for name, value in os.environ.items() if name != "DASK_LOGGING"}
        return {**inherited, "TMPDIR": str(self.folder), "DASK_SCHEDULER_ADDRESS": self.address, **self.settings}

    def start(
        self,
        name: str,
        *command: str,
        folder: Path | None = None,
        prefix: tuple[str, ...] = (),
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> subprocess.Popen[bytes]:
        """Start a program of this environment.

        Args:
            folder: its working directory; default: that of the fleet.
            prefix: the command that executes the program.
            variables: further environment variables.
        """
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                [*prefix, str(BIN / command[0]), *command[1:]],
                stdout=log,
                stderr=log,
                env=self.environment | dict(variables),
                cwd=folder or self.folder,
                start_new_session=True,
            )
        return self.running[name]

    def scheduler(self) -> None:
        """Start the scheduler."""
        self.start("scheduler", "dask", "scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard")

    def worker(
        self,
        name: str,
        *options: str,
        folder: Path | None = None,
        prefix: tuple[str, ...] = (),
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Start a nanny with a worker of one thread; the arguments are those of `start`."""
        command = ["--name", name, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1", *options]
        self.start(name, "dask", "worker", self.address, *command, folder=folder, prefix=prefix, variables=variables)

    def is_running(self, name: str) -> bool:
        """Check whether a process was started and has not ended."""
        return name in self.running and self.running[name].poll() is None

    def process_tree(self, name: str) -> list[psutil.Process]:
        """List a process and its descendants, the youngest first."""
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self.running[name].pid)
            return [*reversed(parent.children(recursive=True)), parent]
        return []

    def kill(self, name: str) -> None:
        """Kill a process and its descendants, and wait for its end."""
        for process in self.process_tree(name):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.running[name].wait()

    def kill_all(self) -> None:
        """Kill all processes that are running."""
        for name in self.running:
            self.kill(name)

    def log(self, name: str) -> str:
        """Return the end of a process's output."""
        return self.whole_log(name)[-3000:]

    def whole_log(self, name: str) -> str:
        """Return all of a process's output."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""
