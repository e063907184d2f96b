"""`audiopipe bench pipeline`: the whole way beside what else could be done, in one run, on the same cores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from audiopipe.bench.material import Material, make
from audiopipe.bench.readings import OURS, Reading
from audiopipe.bench.rivals import RIVALS

__all__ = ["bench"]


def bench(
    folder: Path, cache: Path, minutes: float, rounds: int = 3, say: Callable[[str], None] = print
) -> list[Reading]:
    """Measure every way on every material, in turn, `rounds` times; the best of each counts.

    Args:
        folder: for the material, which is kept.
        cache: for the recordings that it is made of.
        minutes: of audio that each process works through in a round.
    """
    say("making the material")
    jobs = [(item, name, cores) for item in make(folder, cache, minutes) for name, cores in _ways()]
    found: dict[tuple[str, str, int], list[Reading]] = defaultdict(list)
    for number in range(rounds):
        for item, name, cores in jobs:
            reading = _measure(item, name, cores)
            say(f"{number + 1}/{rounds}  {item.name}  {name}, {cores} cores: {reading.times_real_time:.0f} x real time")
            found[item.name, name, cores].append(reading)
    return [_best(each) for each in found.values()]


def _best(rounds: list[Reading]) -> Reading:
    return replace(min(rounds, key=lambda r: r.wall_s), rounds_x=tuple(round(r.times_real_time, 1) for r in rounds))


def _ways() -> list[tuple[str, int]]:
    """Every way on one core; those that are in the bars on all cores too, up to 16."""
    cores = min(16, len(os.sched_getaffinity(0)))
    return [(name, 1) for name in RIVALS] + [(name, cores) for name in ("codec floor", OURS) if cores > 1]


def _measure(item: Material, name: str, cores: int) -> Reading:
    """One process a core, all started at once; the slowest decides."""
    with tempfile.TemporaryDirectory(prefix="audiopipe-bench-") as scratch, ExitStack() as stack:
        numbers = sorted(os.sched_getaffinity(0))[:cores]
        workers = [stack.enter_context(_worker(item, name, core, scratch)) for core in numbers]
        for worker in workers:
            _line(worker, name)
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        done = [json.loads(_line(worker, name)) for worker in workers]
    own = ("audio_s", "wall_s", "cpu_s", "peak_mb", "ready_mb")
    return Reading(
        item.name,
        name,
        cores,
        audio_s=sum(one["audio_s"] for one in done),
        wall_s=max(one["wall_s"] for one in done),
        cpu_s=sum(one["cpu_s"] for one in done),
        peak_mb=max(one["peak_mb"] for one in done),
        beside_mb=max(one["peak_mb"] - one["ready_mb"] for one in done),
        details={key: value for key, value in done[0].items() if key not in own},
    )


@contextmanager
def _worker(item: Material, name: str, core: int, scratch: str) -> Iterator[subprocess.Popen[str]]:
    task = {
        "path": str(item.path),
        "sample_rate_hz": item.sample_rate_hz,
        "seconds": item.seconds,
        "videos": item.videos,
        "scratch": scratch,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "audiopipe.bench.rivals", name, json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.sched_setaffinity(process.pid, {core})
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _line(worker: subprocess.Popen[str], name: str) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError(f"the bench's process for '{name}' ended with {worker.wait()} and without a result")
    return line
