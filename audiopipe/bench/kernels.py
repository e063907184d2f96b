"""Run the kernel benchmark: the kernels and every library that computes the same, in one table per machine.

Other work on a machine disturbs absolute times. All contenders of a case therefore take turns, each counts with its
fastest round, and the ratios within a case are the result.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from audiopipe import kernels
from audiopipe.bench.gpu import GpuResult, measure_gpu
from audiopipe.bench.machine import Machine
from audiopipe.bench.markdown import format_markdown
from audiopipe.bench.memory import measure_peak_bytes
from audiopipe.bench.reference_libraries import (
    load_feature_functions,
    load_loudness_functions,
    load_resample_functions,
)

__all__ = ["KernelResult", "limit_threads", "run_benchmark"]

_TO_RATE = 16_000
_LOUDNESS, _ALL = "integrated_loudness", "measure + resample"


@dataclass(frozen=True)
class KernelResult:
    """The milliseconds per item of a contender in a case. `relative_time` is that time divided by audiopipe's."""

    task: str
    contender: str
    seconds: int
    sample_rate: int
    batch: int
    threads: int
    ms_per_item: float
    relative_time: float


def make_signal(batch: int, sample_rate: int, seconds: int) -> Tensor:
    """Synthesize voiced syllables of changing loudness over soft noise: [batch, 1, T] float32, always the same."""
    generator = torch.Generator().manual_seed(0)
    n = sample_rate * seconds
    t = torch.arange(n) / sample_rate
    voice = sum((torch.sin(2 * torch.pi * 120 * h * t + h * h) / h for h in range(1, 30)), torch.zeros(n))
    step = sample_rate // 10
    loud = torch.rand(batch, 1, n // step + 1, generator=generator).pow(3).repeat_interleave(step, -1)[..., :n]
    noise = torch.randn(batch, 1, n, generator=generator)
    return (0.1 * voice + 0.02 * noise) * loud + 0.0005 * noise


@contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """Let PyTorch use a number of threads inside the block."""
    previous = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(previous)


def measure_best_ms(contenders: dict[str, tuple[Callable[[], object], int]], budget_s: float) -> dict[str, float]:
    """Return the best milliseconds per item of each (call, items per call); all take turns until the time is spent."""
    best = dict.fromkeys(contenders, float("inf"))
    rounds, end = 0, time.perf_counter() + budget_s
    while rounds < 3 or time.perf_counter() < end:
        for name, (call, items) in contenders.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], (time.perf_counter() - start) * 1e3 / items)
        rounds += 1
    return best


def _measure_case(batch: int, seconds: int, sample_rate: int, threads: int, budget_s: float) -> list[KernelResult]:
    x = make_signal(batch, sample_rate, seconds)
    item = x[0, 0].numpy()
    to_rate = _TO_RATE if sample_rate != _TO_RATE else 8_000
    libraries = {
        _LOUDNESS: load_loudness_functions(sample_rate),
        "other metrics": load_feature_functions(sample_rate),
        "resample": load_resample_functions(sample_rate, to_rate),
    }
    calls: dict[str, Callable[[], object]] = {
        _LOUDNESS: lambda: kernels.integrated_loudness(x, sample_rate),
        "other metrics": lambda: (kernels.spectral(x, sample_rate), kernels.levels(x)),
        "resample": lambda: kernels.resample(x, sample_rate, to_rate),
        _ALL: lambda: (kernels.measure(x, sample_rate), kernels.resample(x, sample_rate, to_rate)),
    }
    contenders: dict[str, tuple[Callable[[], object], int]] = {task: (call, batch) for task, call in calls.items()}
    for functions in libraries.values():
        contenders |= {name: (partial(function, item), 1) for name, function in functions.items()}
    with limit_threads(threads):
        best = measure_best_ms(contenders, budget_s)

    def result(task: str, contender: str, ms: float) -> KernelResult:
        case = (seconds, sample_rate, batch, threads)
        return KernelResult(task, contender, *case, round(ms, 4), round(ms / best[task], 2))

    results = [result(task, name, best[name]) for task, functions in libraries.items() for name in functions]
    results += [result(task, "audiopipe", best[task]) for task in calls]
    stack = ("pyloudnorm", "librosa", "torchaudio resample")
    results.append(result(_ALL, " + ".join(stack), sum(best[name] for name in stack)))
    return sorted(results, key=lambda result: (result.task, result.ms_per_item))


def measure_cpu(quick: bool = False) -> list[KernelResult]:
    """Measure all cases on the CPU, or one of them if `quick`."""
    all_threads = torch.get_num_threads()
    if quick:
        return _measure_case(16, 10, 48_000, 1, budget_s=2)
    return [
        result
        for threads in sorted({1, all_threads})
        for sample_rate in (48_000, 16_000)
        for seconds in (10, 5)
        for batch in (1, 16, 128)
        for result in _measure_case(batch, seconds, sample_rate, threads, budget_s=6)
    ]


def measure_memory(quick: bool = False) -> Table:
    """Measure the peak memory of `measure` and `resample` in addition to their input, for items of 10 s at 48 kHz."""
    table = Table("batch", "input, MB", "measure, additional MB", "resample, additional MB", "of which output, MB")
    for batch in (1, 16) if quick else (1, 16, 128):
        x = make_signal(batch, 48_000, 10)
        peaks = (
            measure_peak_bytes(partial(kernels.measure, x, 48_000)),
            measure_peak_bytes(partial(kernels.resample, x, 48_000, _TO_RATE)),
        )
        table.add_row(str(batch), *(f"{size / 1e6:.1f}" for size in (x.nbytes, *peaks, x.nbytes * _TO_RATE // 48_000)))
    return table


def format_rows(results: list[KernelResult]) -> Table:
    """Format the results as they are printed and saved."""
    table = Table("task", "contender", "audio", "batch", "threads", "ms per item", "relative time")
    for result in results:
        audio = f"{result.seconds} s at {result.sample_rate // 1000} kHz"
        times = (f"{result.ms_per_item:.3f}", f"{result.relative_time:.2f}")
        table.add_row(result.task, result.contender, audio, str(result.batch), str(result.threads), *times)
    return table


def _to_markdown(table: Table) -> str:
    columns = [[str(column.header), *map(str, column.cells)] for column in table.columns]
    head, *rows = zip(*columns, strict=True)
    return format_markdown(head, rows)


def save_results(
    folder: Path, machine: Machine, results: list[KernelResult], gpu: list[GpuResult], tables: list[Table]
) -> Path:
    """Write one Markdown and one JSON file to `folder`, named after the machine; return the path of the former."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"kernels-{machine.slug}.md"
    note = (
        "Written by `audiopipe bench kernels --save`. The contenders of a case take turns, and each counts with its "
        "fastest round. The relative time is the time divided by audiopipe's."
    )
    path.write_text("\n\n".join(["# Kernels", str(machine), note, *map(_to_markdown, tables)]) + "\n", "utf-8")
    body = {
        "machine": machine.as_text(),
        "cpu": [asdict(result) for result in results],
        "gpu": [asdict(result) for result in gpu],
    }
    path.with_suffix(".json").write_text(json.dumps(body, indent=1) + "\n", "utf-8")
    return path


def run_benchmark(save: Path | None = None, quick: bool = False) -> list[Table]:
    """Measure, print, and write the results to the folder `save`, if it is given.

    On a machine with a CUDA device the GPU's table comes after the CPU's.
    """
    machine, results = Machine.detect(), measure_cpu(quick)
    tables = [format_rows(results), measure_memory(quick)]
    gpu = measure_gpu(quick) if torch.cuda.is_available() else []
    if gpu:
        table = Table("on the GPU", "value")
        for row in gpu:
            table.add_row(row.label, row.value)
        tables.append(table)
    console = Console()
    console.print(str(machine))
    for table in tables:
        console.print(table)
    if save is not None:
        console.print(f"saved to {save_results(save, machine, results, gpu, tables)}")
    return tables
