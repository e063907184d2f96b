"""Run the pipeline benchmark: audiopipe and its baselines on the same inputs and the same cores, in turn."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec

import torch

from audiopipe.bench.baselines import METHODS, run_ffmpeg_pipeline
from audiopipe.bench.decoders import IN_PROCESS, Ffmpeg, choose_fastest, decode_all, find_programs
from audiopipe.bench.inputs import BenchmarkInput
from audiopipe.bench.results import AUDIOPIPE, COMMAND, DECODE, FFMPEG, FLOOR, SEQUENTIAL, BenchmarkResult
from audiopipe.bench.task import ProcessResult, Task
from audiopipe.cluster.engines import CORES_PER_CUDA_WORKER
from audiopipe.config import RunConfig

__all__ = ["run_benchmark"]

MAX_CORES = 16


def run_benchmark(
    inputs: Sequence[BenchmarkInput], rounds: int = 3, log: Callable[[str], None] = print
) -> list[BenchmarkResult]:
    """Measure every method on every input, in turn, `rounds` times; `_choose_round` says which round counts."""
    log("choosing the fastest FFmpeg for each input")
    programs = find_programs()
    cases = [
        (item, method, cores, ways.get(method))
        for item in inputs
        for ways in [_choose_ways(item, programs)]
        for method, cores in _methods_and_cores(_available_methods(programs))
    ]
    results: dict[tuple[str, str, int], list[BenchmarkResult]] = defaultdict(list)
    for number in range(rounds):
        for item, method, cores, way in cases:
            result = _measure(item, method, cores, way)
            if min(result.wall_s, result.cpu_s) <= 0:
                log(f"{item.name}  {method}: the work is too short to tell from the start-up; use more minutes")
                continue
            log(f"{number + 1}/{rounds}  {item.name}  {result.label}, {cores} cores: {result.speed:.0f} x real time")
            results[item.name, method, cores].append(result)
    return [_choose_round(measured) for measured in results.values()]


def _choose_round(measured: list[BenchmarkResult]) -> BenchmarkResult:
    """Return the round that counts: the fastest.

    For the command it is the median: its time is a difference of two, which noise also makes too short.
    """
    rounds = sorted(measured, key=lambda result: result.wall_s)
    return replace(
        rounds[len(rounds) // 2 if rounds[0].method == COMMAND else 0],
        speeds=tuple(round(result.speed, 1) for result in measured),
        cpu_speeds=tuple(round(result.audio_s / result.cpu_s, 1) for result in measured),
    )


def _available_methods(programs: Sequence[Ffmpeg]) -> list[str]:
    """List the methods that this machine has the programs and packages for."""
    missing = set() if programs else {FFMPEG}
    if any(find_spec(name) is None for name in ("librosa", "pyloudnorm", "torchaudio")):
        missing.add(SEQUENTIAL)
    if find_spec("duckdb") is None:  # the end of a run searches for duplicates
        missing.add(COMMAND)
    return [method for method in METHODS if method not in missing]


def _choose_ways(item: BenchmarkInput, programs: Sequence[Ffmpeg]) -> dict[str, Ffmpeg]:
    """Choose, for each method that is FFmpeg's work, the fastest way to run it on this machine."""
    decoder = choose_fastest([IN_PROCESS, *programs], lambda way: decode_all(str(item.path), way))
    ways = {DECODE: decoder, FLOOR: decoder}
    if programs:
        ways[FFMPEG] = choose_fastest(programs, lambda way: run_ffmpeg_pipeline(str(item.path), way.program))
    return ways


def _methods_and_cores(methods: Sequence[str]) -> list[tuple[str, int]]:
    """List every method on one core, and those that the targets name on all cores too, up to 16."""
    cores = min(MAX_CORES, len(os.sched_getaffinity(0)))
    return [(name, 1) for name in methods] + [
        (name, cores) for name in (FLOOR, AUDIOPIPE, COMMAND) if cores > 1 and name in methods
    ]


def _measure(item: BenchmarkInput, method: str, cores: int, way: Ffmpeg | None = None) -> BenchmarkResult:
    """Start all processes of a method at the same time; the slowest decides."""
    numbers = sorted(os.sched_getaffinity(0))[:cores]
    size, shards = _process_size(method, cores)
    groups = [set(numbers[start : start + size]) for start in range(0, cores, size)]
    with tempfile.TemporaryDirectory(prefix="audiopipe-bench-") as scratch, ExitStack() as stack:
        processes = [stack.enter_context(_process(item, method, group, shards, scratch, way)) for group in groups]
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
        program=way.label if way else "",
    )


def _process_size(method: str, cores: int) -> tuple[int, int]:
    """Return the cores of one process and its shards in flight.

    They are 1 and 1, but a worker's for audiopipe with a GPU; the command starts its own workers on all cores.
    """
    if method == COMMAND:
        return cores, 1
    if method != AUDIOPIPE or not torch.cuda.is_available():
        return 1, 1
    return CORES_PER_CUDA_WORKER, RunConfig.model_fields["shards_in_flight"].default


@contextmanager
def _process(
    item: BenchmarkInput, method: str, cores: set[int], shards: int, scratch: str, way: Ffmpeg | None
) -> Iterator[subprocess.Popen[str]]:
    videos, program = item.videos * len(cores), way.program if way else ""
    task = Task(str(item.path.resolve()), item.sample_rate_hz, item.seconds, videos, shards, scratch, program)
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
