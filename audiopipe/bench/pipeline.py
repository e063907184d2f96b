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
from typing import Any

import torch

from audiopipe.bench.baselines import RIVALS
from audiopipe.bench.inputs import BenchmarkInput, make
from audiopipe.bench.results import OURS, BenchmarkResult
from audiopipe.cluster.engines import CORES_PER_CUDA_WORKER
from audiopipe.config import RunConfig

__all__ = ["bench"]


def bench(
    folder: Path, cache: Path, minutes: float, rounds: int = 3, log: Callable[[str], None] = print
) -> list[BenchmarkResult]:
    """Measure every way on every material, in turn, `rounds` times; the best of each counts.

    Args:
        folder: for the material, which is kept.
        cache: for the recordings that it is made of.
        minutes: of audio for each core in a round.
    """
    log("making the material")
    jobs = [(item, name, cores) for item in make(folder, cache, minutes) for name, cores in _ways()]
    found: dict[tuple[str, str, int], list[BenchmarkResult]] = defaultdict(list)
    for number in range(rounds):
        for item, name, cores in jobs:
            reading = _measure(item, name, cores)
            log(f"{number + 1}/{rounds}  {item.name}  {name}, {cores} cores: {reading.times_real_time:.0f} x real time")
            found[item.name, name, cores].append(reading)
    return [_best(each) for each in found.values()]


def _best(rounds: list[BenchmarkResult]) -> BenchmarkResult:
    return replace(
        min(rounds, key=lambda r: r.wall_s),
        rounds_x=tuple(round(r.times_real_time, 1) for r in rounds),
        rounds_cpu_x=tuple(round(r.audio_s / r.cpu_s, 1) for r in rounds),
    )


def _ways() -> list[tuple[str, int]]:
    """Every way on one core; those that are in the bars on all cores too, up to 16."""
    cores = min(16, len(os.sched_getaffinity(0)))
    return [(name, 1) for name in RIVALS] + [(name, cores) for name in ("codec floor", OURS) if cores > 1]


def _measure(item: BenchmarkInput, name: str, cores: int) -> BenchmarkResult:
    """All processes started at once; the slowest decides."""
    numbers = sorted(os.sched_getaffinity(0))[:cores]
    size, shards = _process(name)
    shares = [set(numbers[start : start + size]) for start in range(0, cores, size)]
    with tempfile.TemporaryDirectory(prefix="audiopipe-bench-") as scratch, ExitStack() as stack:
        workers = [stack.enter_context(_worker(item, name, share, shards, scratch)) for share in shares]
        for worker in workers:
            _line(worker, name)
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        done = [json.loads(_line(worker, name)) for worker in workers]
    return BenchmarkResult(
        item.name,
        name,
        cores,
        audio_s=sum(one["audio_s"] for one in done),
        wall_s=max(one["wall_s"] for one in done),
        cpu_s=sum(one["cpu_s"] for one in done),
        peak_mb=max(one["peak_mb"] for one in done),
        beside_mb=max(one["peak_mb"] - one["ready_mb"] for one in done),
        details=_details(done[0], len(shares[0])),
    )


def _process(name: str) -> tuple[int, int]:
    """Cores of one process, and shards that it has under way: one and one, but of ours with a GPU what a worker has."""
    if name != OURS or not torch.cuda.is_available():
        return 1, 1
    return CORES_PER_CUDA_WORKER, RunConfig.model_fields["shards_in_flight"].default


def _details(done: dict[str, Any], cores: int) -> dict[str, Any]:
    """What a process tells of its stages, in seconds for each of its cores."""
    seconds = {
        name: {stage: s / cores for stage, s in done[name].items()}
        for name in ("stage_s", "stage_cpu_s")
        if name in done
    }
    return seconds | {name: done[name] for name in ("segments", "queue_depths") if name in done}


@contextmanager
def _worker(
    item: BenchmarkInput, name: str, cores: set[int], shards: int, scratch: str
) -> Iterator[subprocess.Popen[str]]:
    task = {
        "path": str(item.path),
        "sample_rate_hz": item.sample_rate_hz,
        "seconds": item.seconds,
        "videos": item.videos * len(cores),
        "shards": shards,
        "scratch": scratch,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "audiopipe.bench.baselines", name, json.dumps(task)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.sched_setaffinity(process.pid, cores)
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
