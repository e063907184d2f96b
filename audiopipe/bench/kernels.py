"""`audiopipe bench kernels`: our kernels beside every library that does the same, in one table per machine.

Other work on a machine disturbs absolute times, so all contenders of a case take turns, and each counts with its best
round. Ratios within a case are what the table is for.
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
from audiopipe.bench import machine
from audiopipe.bench.gpu import gpu_rows
from audiopipe.bench.memory import peak_bytes
from audiopipe.bench.reference_libraries import feature_peers, loudness_peers, resample_peers

_TO_RATE = 16_000
_LOUDNESS, _ALL = "integrated_loudness", "measure + resample"


@dataclass(frozen=True)
class Row:
    """One contender in one case: milliseconds per item, and how many times as long it takes as we do."""

    task: str
    contender: str
    seconds: int
    sample_rate: int
    batch: int
    threads: int
    ms_per_item: float
    times_ours: float


def speech_like(batch: int, sample_rate: int, seconds: int) -> Tensor:
    """Voiced syllables of changing loudness over soft noise: [batch, 1, T] float32, the same every time."""
    generator = torch.Generator().manual_seed(0)
    n = sample_rate * seconds
    t = torch.arange(n) / sample_rate
    voice = sum((torch.sin(2 * torch.pi * 120 * h * t + h * h) / h for h in range(1, 30)), torch.zeros(n))
    step = sample_rate // 10
    loud = torch.rand(batch, 1, n // step + 1, generator=generator).pow(3).repeat_interleave(step, -1)[..., :n]
    noise = torch.randn(batch, 1, n, generator=generator)
    return (0.1 * voice + 0.02 * noise) * loud + 0.0005 * noise


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def best_ms(contenders: dict[str, tuple[Callable[[], object], int]], budget_s: float) -> dict[str, float]:
    """Best time per item of each (call, items per call), all taking turns until the budget is spent."""
    best = dict.fromkeys(contenders, float("inf"))
    rounds, end = 0, time.perf_counter() + budget_s
    while rounds < 3 or time.perf_counter() < end:
        for name, (call, items) in contenders.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], (time.perf_counter() - start) * 1e3 / items)
        rounds += 1
    return best


def _case(batch: int, seconds: int, sample_rate: int, threads: int, budget_s: float) -> list[Row]:
    x = speech_like(batch, sample_rate, seconds)
    item = x[0, 0].numpy()
    to_rate = _TO_RATE if sample_rate != _TO_RATE else 8_000
    peers = {
        _LOUDNESS: loudness_peers(sample_rate),
        "other metrics": feature_peers(sample_rate),
        "resample": resample_peers(sample_rate, to_rate),
    }
    ours: dict[str, Callable[[], object]] = {
        _LOUDNESS: lambda: kernels.integrated_loudness(x, sample_rate),
        "other metrics": lambda: (kernels.spectral(x, sample_rate), kernels.levels(x)),
        "resample": lambda: kernels.resample(x, sample_rate, to_rate),
        _ALL: lambda: (kernels.measure(x, sample_rate), kernels.resample(x, sample_rate, to_rate)),
    }
    contenders: dict[str, tuple[Callable[[], object], int]] = {task: (call, batch) for task, call in ours.items()}
    for calls in peers.values():
        contenders |= {name: (partial(call, item), 1) for name, call in calls.items()}
    with _threads(threads):
        best = best_ms(contenders, budget_s)

    def row(task: str, contender: str, ms: float) -> Row:
        return Row(task, contender, seconds, sample_rate, batch, threads, round(ms, 4), round(ms / best[task], 2))

    rows = [row(task, name, best[name]) for task, calls in peers.items() for name in calls]
    rows += [row(task, "audiopipe", best[task]) for task in ours]
    stack = ("pyloudnorm", "librosa", "torchaudio resample")
    rows.append(row(_ALL, " + ".join(stack), sum(best[name] for name in stack)))
    return sorted(rows, key=lambda r: (r.task, r.ms_per_item))


def cpu_rows(quick: bool = False) -> list[Row]:
    """All cases on the CPU; `quick` takes one of them."""
    every = torch.get_num_threads()
    if quick:
        return _case(16, 10, 48_000, 1, budget_s=2)
    return [
        row
        for threads in sorted({1, every})
        for sample_rate in (48_000, 16_000)
        for seconds in (10, 5)
        for batch in (1, 16, 128)
        for row in _case(batch, seconds, sample_rate, threads, budget_s=6)
    ]


def memory_table(quick: bool = False) -> Table:
    """What `measure` and `resample` hold beside their input at most, for 10 s at 48 kHz."""
    table = Table("batch", "input, MB", "measure, MB beside it", "resample, MB beside it", "of which its output, MB")
    for batch in (1, 16) if quick else (1, 16, 128):
        x = speech_like(batch, 48_000, 10)
        peaks = (
            peak_bytes(partial(kernels.measure, x, 48_000)),
            peak_bytes(partial(kernels.resample, x, 48_000, _TO_RATE)),
        )
        table.add_row(str(batch), *(f"{size / 1e6:.1f}" for size in (x.nbytes, *peaks, x.nbytes * _TO_RATE // 48_000)))
    return table


def rows_table(rows: list[Row]) -> Table:
    """The rows as they are printed and saved."""
    table = Table("task", "contender", "audio", "batch", "threads", "ms per item", "times ours")
    for r in rows:
        audio = f"{r.seconds} s at {r.sample_rate // 1000} kHz"
        values = (str(r.batch), str(r.threads), f"{r.ms_per_item:.3f}", f"{r.times_ours:.2f}")
        table.add_row(r.task, r.contender, audio, *values)
    return table


def _markdown(table: Table) -> str:
    columns = [[str(c.header), *map(str, c.cells)] for c in table.columns]
    header, *body = ("| " + " | ".join(cells) + " |" for cells in zip(*columns, strict=True))
    return "\n".join([header, "|" + " --- |" * len(columns), *body])


def save_results(
    folder: Path, facts: dict[str, str], rows: list[Row], gpu: list[dict[str, str]], tables: list[Table]
) -> Path:
    """One markdown and one JSON file in `folder`, named after the machine's models. Returns the markdown's path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"kernels-{machine.kind(facts)}.md"
    head = ", ".join(f"{name}: {value}" for name, value in facts.items())
    note = "Made by `audiopipe bench kernels --save`. Contenders of a case take turns; each counts with its best round."
    path.write_text("\n\n".join(["# Kernels", head, note, *map(_markdown, tables)]) + "\n")
    data = {"machine": facts, "cpu": [asdict(r) for r in rows], "gpu": gpu}
    path.with_suffix(".json").write_text(json.dumps(data, indent=1) + "\n")
    return path


def run(save: Path | None = None, quick: bool = False) -> list[Table]:
    """Measure, print, and with `save` (a folder) write the results down.

    On a machine with a CUDA device the GPU's table comes after the CPU's.
    """
    facts, rows = machine.describe(), cpu_rows(quick)
    tables, gpu = [rows_table(rows), memory_table(quick)], []
    if torch.cuda.is_available():
        gpu = gpu_rows(quick)
        table = Table(*gpu[0])
        for values in gpu:
            table.add_row(*values.values())
        tables.append(table)
    console = Console()
    console.print(", ".join(f"{name}: {value}" for name, value in facts.items()))
    for table in tables:
        console.print(table)
    if save is not None:
        console.print(f"saved to {save_results(save, facts, rows, gpu, tables)}")
    return tables
