"""Measure the processes of a soak from outside: memory, CPU time and committed videos, every few seconds."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from audiopipe.errors import LedgerError
from audiopipe.ledger import open_ledger
from audiopipe.ledger.snapshot import take_snapshot

__all__ = ["MemorySeries", "Sample", "Sampler", "list_roles"]

MARKS = {"spawn_main": "worker", "audiopipe.media.forkserver": "fork server"}


@dataclass(frozen=True)
class Sample:
    """The state of a soak at a time.

    Attributes:
        at_s: seconds since the start.
        videos: videos of committed shards.
        worker_cpu_s: CPU seconds that all workers, their nannies and decoders have used.
        soak_cpu_s: CPU seconds of all processes of the soak.
        busy_cpu_s: CPU seconds of this machine, other programs included.
        load: of the machine, as in `uptime`.
    """

    at_s: float
    videos: int
    worker_cpu_s: float
    soak_cpu_s: float
    busy_cpu_s: float
    load: float


@dataclass
class MemorySeries:
    """The resident memory of a process over time."""

    at_s: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)


class Sampler:
    """Samples from a thread until it is stopped.

    Args:
        processes: returns the process ids by name.
        is_worker: says which names are those of workers.
        ledger: path of the driver's SQLite file.
    """

    def __init__(
        self,
        processes: Callable[[], dict[str, int]],
        is_worker: Callable[[str], bool],
        ledger: Path,
        started: float,
        interval_s: float,
    ) -> None:
        self.processes, self.is_worker, self.ledger = processes, is_worker, ledger
        self.started, self.interval_s = started, interval_s
        self.samples: list[Sample] = []
        self.memory: dict[str, MemorySeries] = {}
        self._cpu_s: dict[str, float] = {}
        self._pids: dict[str, list[int]] = {}
        self._videos = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start to sample."""
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end."""
        self._stopping.set()
        self._thread.join()
        self.sample()

    def _run(self) -> None:
        while not self._stopping.wait(self.interval_s):
            self.sample()

    @property
    def videos(self) -> int:
        """Committed videos at the last sample."""
        return self._videos

    def sample(self) -> None:
        """Take one sample."""
        at_s = round(time.monotonic() - self.started, 2)
        children = _list_children()
        for name, pid in self.processes().items():
            with suppress(psutil.NoSuchProcess):
                self._measure(name, list(_walk(psutil.Process(pid), children)), at_s)
        self._videos = self._count_videos()
        busy = psutil.cpu_times()
        workers = math.fsum(seconds for name, seconds in self._cpu_s.items() if self.is_worker(name))
        used, busy_s = math.fsum(self._cpu_s.values()), math.fsum(busy) - busy.idle - busy.iowait
        rounded = (round(value, 2) for value in (workers, used, busy_s, os.getloadavg()[0]))
        self.samples.append(Sample(at_s, self._videos, *rounded))

    def _measure(self, name: str, tree: list[psutil.Process], at_s: float) -> None:
        cpu_s = 0.0
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                cpu_s += times.user + times.system + times.children_user + times.children_system
        # A process that ends takes the time of children that nothing has waited for with it.
        self._cpu_s[name] = max(cpu_s, self._cpu_s.get(name, 0.0))
        roles = list_roles(tree) if self.is_worker(name) else {"": tree[0]}
        for role, process in roles.items():
            with suppress(psutil.NoSuchProcess):
                series = self.memory.setdefault(self._label(f"{name} {role}".strip(), process.pid), MemorySeries())
                rss_mb = process.memory_info().rss / 2**20
                series.at_s.append(at_s)
                series.rss_mb.append(round(rss_mb, 2))

    def _label(self, name: str, pid: int) -> str:
        """Return the name of a process, with a number if its predecessor of this name has ended."""
        pids = self._pids.setdefault(name, [])
        if pid not in pids:
            pids.append(pid)
        number = pids.index(pid) + 1
        return name if number == 1 else f"{name} #{number}"

    def restarted(self, names: Sequence[str]) -> list[str]:
        """List the processes of workers that were started once more."""
        return [label for label in self.memory if "#" in label and label.split()[0] in names]

    def _count_videos(self) -> int:
        """Return the videos of the run so far; the last number while the ledger cannot be read."""
        with suppress(LedgerError), open_ledger(str(self.ledger), create=False) as ledger:
            snapshot = take_snapshot(ledger)
            return snapshot.totals.processed if snapshot else self._videos
        return self._videos


def _list_children() -> dict[int, list[psutil.Process]]:
    """Return the children of every process of this machine, by one pass over all of them."""
    children: dict[int, list[psutil.Process]] = {}
    for process in psutil.process_iter(["ppid"]):
        children.setdefault(process.info["ppid"], []).append(process)
    return children


def _walk(root: psutil.Process, children: Mapping[int, list[psutil.Process]]) -> Iterator[psutil.Process]:
    """Yield a process and its descendants, parents first."""
    yield root
    for child in children.get(root.pid, ()):
        yield from _walk(child, children)


def list_roles(tree: list[psutil.Process]) -> dict[str, psutil.Process]:
    """Return the long-lived processes of a worker by role: nanny, worker, fork server.

    Decoders, which are forks of the fork server, live for one video.
    """
    roles = {"nanny": tree[0]}
    for process in tree[1:]:
        with suppress(psutil.NoSuchProcess):
            command = " ".join(process.cmdline())
            for mark, role in MARKS.items():
                if mark in command and role not in roles:
                    roles[role] = process
    return roles
