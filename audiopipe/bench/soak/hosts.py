"""Start the workers of a soak, each on another kind of host: slow, with a small disk, with a wrong clock, reclaimed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import psutil

from audiopipe.bench.servers.clock import MovableClock
from audiopipe.bench.servers.fleet import Fleet

__all__ = ["CLOCK", "DISK", "SLOW", "SPOT", "STEADY", "Hosts", "private_mount"]

STEADY, SLOW, CLOCK, DISK, SPOT = "steady", "slow", "clock", "disk", "spot"
DISK_MB = 160  # a scratch disk needs 64 MB
STOPPED_S, RUNNING_S = 1.0, 0.5  # of the slow host, in turn
MOUNT = 'mount -t tmpfs -o size={size}m audiopipe "$0" && exec "$@"'


def private_mount() -> tuple[str, ...] | None:
    """Return the command that executes another with mounts of its process only; None if the system forbids it.

    Without root this needs user namespaces.
    """
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    command = ("unshare", *user, "--mount")
    with suppress(OSError):
        probe = [*command, "mount", "-t", "tmpfs", "audiopipe", "/mnt"]
        if subprocess.run(probe, check=False, capture_output=True).returncode == 0:
            return command
    return None


class Hosts:
    """Starts and disturbs the workers of a fleet. A worker that replaces another has a new name, as a new machine has.

    Attributes:
        fleet: the processes.
        environment: variables of all workers, with the address of the S3 server's proxy.
        mount: as `private_mount` returns it.
        clock: the clock of the host that has a wrong one; None where gcc is missing.
    """

    def __init__(self, fleet: Fleet, environment: dict[str, str], clock: MovableClock | None) -> None:
        self.fleet, self.environment, self.clock = fleet, environment, clock
        self.mount = private_mount()
        self._numbers: dict[str, int] = {}
        self._stopping = threading.Event()
        self._slowing: threading.Thread | None = None

    def name(self, kind: str) -> str:
        """Return the name of the newest worker of a kind."""
        return f"{kind}-{self._numbers[kind]}" if kind in self._numbers else kind

    def start(self, kind: str) -> str:
        """Start a worker, with a number if it replaces another, and return its name."""
        if kind not in (STEADY, SLOW):
            self._numbers[kind] = self._numbers.get(kind, 0) + 1
        name = self.name(kind)
        folder = self._folder(name)
        settings = {**self.environment, "TMPDIR": str(folder)}
        prefix: tuple[str, ...] = ()
        if kind == DISK and self.mount:
            script = MOUNT.format(size=DISK_MB)
            prefix = (*self.mount, "sh", "-c", script, str(folder))
        if kind == CLOCK and self.clock:
            self.clock.set(0)
            settings |= self.clock.environment
        local = self.fleet.folder / "dask" / name
        self.fleet.worker(name, "--local-directory", str(local), prefix=prefix, variables=settings)
        return name

    def kill(self, kind: str) -> str:
        """Kill the newest worker of a kind with signal 9, its nanny and its decoders too."""
        name = self.name(kind)
        if self.fleet.is_running(name):
            self.fleet.kill(name)
        return name

    def fill_disk(self) -> str:
        """Fill the disk of the host with a small one to the last byte."""
        name = self.name(DISK)
        root = Path(f"/proc/{self.fleet.running[name].pid}/root")
        ballast = Path(f"{root}{self._folder(name)}/ballast")
        with suppress(OSError), ballast.open("wb", buffering=0) as file:
            for _ in range(2 * DISK_MB):
                file.write(bytes(1 << 20))
        return name

    def slow_down(self) -> None:
        """Stop the slow host's processes for most of the time, from now on."""
        self._slowing = threading.Thread(target=self._pulse, daemon=True)
        self._slowing.start()

    def speed_up(self) -> None:
        """Let the slow host run as the others do."""
        self._stopping.set()
        if self._slowing is not None:
            self._slowing.join()

    def _pulse(self) -> None:
        while not self._stopping.wait(RUNNING_S):
            processes = self.fleet.process_tree(SLOW)
            _send(signal.SIGSTOP, processes)
            self._stopping.wait(STOPPED_S)
            _send(signal.SIGCONT, processes)

    def _folder(self, name: str) -> Path:
        folder = self.fleet.folder / "scratch" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _send(number: signal.Signals, processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
