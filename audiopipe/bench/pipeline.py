"""Run the pipeline benchmark: audiopipe and its baselines on the same inputs and the same cores, in turn."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from audiopipe.bench.baselines import METHODS
from audiopipe.bench.inputs import BenchmarkInput, make_inputs
from audiopipe.bench.results import AUDIOPIPE, FLOOR, BenchmarkResult
from audiopipe.bench.task import ProcessResult, Task
from audiopipe.cluster.engines import CORES_PER_CUDA_WORKER
from audiopipe.config import RunConfig

__all__ = ["run_benchmark"]

MAX_CORES = 16


def run_benchmark(
    folder: Path, cache: Path, minutes: float, rounds: int = 3, log: Callable[[str], None] = print
) -> list[BenchmarkResult]:
    """Measure every method on every input, in turn, `rounds` times; the fastest round of each counts.

    Args:
        folder: for the inputs, which are kept.
        cache: folder of the recordings that the inputs are made of.
        minutes: minutes of audio per core in a round.
    """
    log("making the inputs")
    cases = [
        (item, method, cores) for item in make_inputs(folder, cache, minutes) for method, cores in _methods_and_cores()
    ]
    results: dict[tuple[str, str, int], list[BenchmarkResult]] = defaultdict(list)
    for number in range(rounds):
        for item, method, cores in cases:
            result = _measure(item, method, cores)
            log(f"{number + 1}/{rounds}  {item.name}  {method}, {cores} cores: {result.speed:.0f} x real time")
            results[item.name, method, cores].append(result)
    return [_fastest(measured) for measured in results.values()]


def _fastest(measured: list[BenchmarkResult]) -> BenchmarkResult:
    return replace(
        min(measured, key=lambda result: result.wall_s),
        speeds=tuple(round(result.speed, 1) for result in measured),
        cpu_speeds=tuple(round(result.audio_s / result.cpu_s, 1) for result in measured),
    )


def _methods_and_cores() -> list[tuple[str, int]]:
    """List every method on one core, and those that the targets name on all cores too, up to 16."""
    cores = min(MAX_CORES, len(os.sched_getaffinity(0)))
    return [(name, 1) for name in METHODS] + [(name, cores) for name in (FLOOR, AUDIOPIPE) if cores > 1]


def _measure(item: BenchmarkInput, method: str, cores: int) -> BenchmarkResult:
    """Start all processes of a method at the same time; the slowest decides."""
    numbers = sorted(os.sched_getaffinity(0))[:cores]
    size, shards = _process_size(method)
    groups = [set(numbers[start : start + size]) for start in range(0, cores, size)]
    with tempfile.TemporaryDirectory(prefix="audiopipe-bench-") as scratch, ExitStack() as stack:
        processes = [stack.enter_context(_process(item, method, group, shards, scratch)) for group in groups]
        for process in processes:
            _read_line(process, method)
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        results = [ProcessResult.from_json(_read_line(process, method)) for process in processes]
    return BenchmarkResult(
        item.name,
        method,
        cores,
        audio_s=math.fsum(result.outcome.audio_s for result in results),
        wall_s=max(result.wall_s for result in results),
        cpu_s=math.fsum(result.cpu_s for result in results),
        peak_mb=max(result.peak_mb for result in results),
        growth_mb=max(result.peak_mb - result.ready_mb for result in results),
        outcome=results[0].outcome.per_core(len(groups[0])),
    )


def _process_size(method: str) -> tuple[int, int]:
    """Return the cores of one process and its shards in flight: 1 and 1, but a worker's for audiopipe with a GPU."""
    if method != AUDIOPIPE or not torch.cuda.is_available():
        return 1, 1
    return CORES_PER_CUDA_WORKER, RunConfig.model_fields["shards_in_flight"].default


@contextmanager
def _process(
    item: BenchmarkInput, method: str, cores: set[int], shards: int, scratch: str
) -> Iterator[subprocess.Popen[str]]:
    task = Task(str(item.path), item.sample_rate_hz, item.seconds, item.videos * len(cores), shards, scratch)
    process = subprocess.Popen(
        [sys.executable, "-m", "audiopipe.bench.baselines", method, task.to_json()],
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


def _read_line(process: subprocess.Popen[str], method: str) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the process of the method '{method}' exited with {process.wait()} before its result")
    return line
