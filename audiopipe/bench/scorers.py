"""Run the benchmark of the scorers: each on one core next to the programs that compute the same, and on a GPU.

Other work on a machine disturbs absolute times, and CPU time least. All contenders of a case therefore take turns, and
the ratio is the median of the ratios of CPU time within a round.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rich.table import Table

from audiopipe.bench.kernels import limit_threads
from audiopipe.bench.machine import Machine
from audiopipe.bench.markdown import format_markdown
from audiopipe.bench.scorer_peers import AUDIOPIPE, Calls, Segments, load_peers
from audiopipe.errors import MissingExtra
from audiopipe.models.dnsmos_windows import RATE_HZ
from audiopipe.scorers.registry import create_scorers
from audiopipe.scorers.scorer import Scorer, ScorerBatch, SegmentInfo

__all__ = [
    "ScorerResult",
    "Target",
    "check_targets",
    "describe_targets",
    "format_table",
    "make_batch",
    "make_segments",
    "measure_gpu",
    "run_benchmark",
    "save_results",
]

NAMES = ("dnsmos", "speakers", "transcript")
SECONDS = (5.0, 9.01, 30.0)  # the plan document's segment, a window of DNSMOS, and the longest segment by default
ROUNDS, SEGMENTS, GPU_BATCH = 5, {5.0: 3, 9.01: 3, 30.0: 1}, 128
GPU_SCORERS = ("dnsmos", "dnsmos_half")  # variants for a GPU are measured with the scorer


@dataclass(frozen=True)
class ScorerResult:
    """The time of a contender in a task on segments of one length.

    `ms_per_segment` is CPU time on one core, or time on a GPU, of the fastest round. `ratio` is the contender's time
    divided by audiopipe's in the same round: the median of all rounds.
    """

    task: str
    contender: str
    seconds: float
    batch: int
    device: str
    ms_per_segment: float
    ratio: float

    @property
    def segments_per_s(self) -> float:
        return 1e3 / self.ms_per_segment

    @property
    def speed(self) -> float:
        """Seconds of audio per second."""
        return self.seconds * self.segments_per_s


@dataclass(frozen=True)
class Target:
    """A limit for a peer's ratio, or for the segments per second on a GPU."""

    task: str
    seconds: float
    contender: str
    limit: float
    device: str = "cpu"

    def value_of(self, result: ScorerResult) -> float:
        return result.ratio if self.device == "cpu" else result.segments_per_s

    def __str__(self) -> str:
        unit = (
            f"times as fast as {self.contender}" if self.device == "cpu" else f"segments/s on a GPU ({self.contender})"
        )
        return f"{self.task}, segments of {self.seconds:g} s: at least {self.limit:,g} {unit}"


TARGETS = (
    Target("dnsmos", 30.0, "speechmos", 2.0),
    Target("dnsmos P.835", 9.01, "onnxruntime, single windows", 1.0),
    Target("dnsmos P.808", 9.01, "librosa + onnxruntime, single windows", 1.0),
    Target("dnsmos", 5.0, AUDIOPIPE, 1_200, "cuda"),
)


def make_segments(cache: Path, seconds: float, count: int, seed: int = 0) -> Segments:
    """Join recorded prompts with pauses and cut segments: `count` of [T] float32 at 16 kHz."""
    from audiopipe.bench.corpus import load_speech  # noqa: PLC0415 - not needed where segments are brought along

    rng = np.random.default_rng(seed)
    prompts = [prompt for voice in load_speech(cache, log=lambda line: None).values() for prompt in voice]
    parts, size = list[np.ndarray](), round(seconds * RATE_HZ)
    while sum(map(len, parts)) < count * size:
        parts += [prompts[rng.integers(len(prompts))].pcm(), np.zeros(rng.integers(1_600, 9_600), np.float32)]
    return list(np.concatenate(parts)[: count * size].reshape(count, size))


def measure_cpu(names: Sequence[str], cache: Path, quick: bool = False) -> Iterator[ScorerResult]:
    """Measure scorers and their peers on one core. A scorer whose package is not installed is left out."""
    for seconds in SECONDS[:1] if quick else SECONDS:
        segments = make_segments(cache, seconds, 1 if quick else SEGMENTS[seconds])
        for name in names:
            scorer = _load(name, torch.device("cpu"))
            if scorer is None:
                continue
            batch = make_batch(segments, torch.device("cpu"))
            for task, peers in load_peers(name, segments).items():
                calls = {AUDIOPIPE: partial(scorer.score, batch)} | peers
                with limit_threads(1):
                    times = measure_in_turns(calls, 1 if quick else ROUNDS, time.process_time)
                yield from _to_results(task, times, seconds, len(segments), "cpu")


def measure_gpu(
    names: Sequence[str], segments: Mapping[float, Segments], device: torch.device
) -> Iterator[ScorerResult]:
    """Measure scorers on a GPU with batches of 128 segments, from device memory to results on the host."""
    for seconds, examples in segments.items():
        chosen = [examples[number % len(examples)] for number in range(GPU_BATCH)]
        for name in dict.fromkeys([*names, *(GPU_SCORERS if "dnsmos" in names else ())]):
            scorer = _load(name, device)
            if scorer is not None and scorer.needs_audio:
                call = partial(_score_and_wait, scorer, make_batch(chosen, device))
                times = measure_in_turns({AUDIOPIPE: call}, 3, time.perf_counter)
                yield from _to_results(name, times, seconds, GPU_BATCH, "cuda")


def measure_in_turns(calls: Calls, rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Return the seconds of each call in each round, after one round that warms up."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = clock()
            call()
            if number:
                times[name].append(clock() - start)
    return times


def make_batch(segments: Segments, device: torch.device) -> ScorerBatch:
    """Make a batch of segments of any lengths, with texts of 15 letters each second."""
    lengths = [len(segment) for segment in segments]
    samples = torch.zeros(len(segments), 1, max(lengths))
    infos = []
    for row, segment in zip(samples, segments, strict=True):
        row[0, : len(segment)] = torch.from_numpy(segment)
        seconds = len(segment) / RATE_HZ
        text = " ".join(["every word has its sound"] * max(1, round(seconds * 15 / 20)))
        infos.append(SegmentInfo("bench", "en", seconds, text, None, text))
    return ScorerBatch(samples.to(device), lengths, infos, RATE_HZ)


def _load(name: str, device: torch.device) -> Scorer | None:
    try:
        (scorer,) = create_scorers(name)
        scorer.load(device)
    except MissingExtra:
        return None
    return scorer


def _score_and_wait(scorer: Scorer, batch: ScorerBatch) -> None:
    scorer.score(batch)
    torch.cuda.synchronize()


def _to_results(
    task: str, times: dict[str, list[float]], seconds: float, batch: int, device: str
) -> Iterator[ScorerResult]:
    for contender, values in times.items():
        ratio = median(value / base for value, base in zip(values, times[AUDIOPIPE], strict=True))
        yield ScorerResult(
            task, contender, seconds, batch, device, round(min(values) * 1e3 / batch, 3), round(ratio, 2)
        )


def check_targets(results: Sequence[ScorerResult]) -> list[tuple[Target, float]]:
    """Return the targets that were measured, with their values."""
    return [
        (target, target.value_of(result))
        for target in TARGETS
        for result in results
        if (result.task, result.seconds, result.contender, result.device)
        == (target.task, target.seconds, target.contender, target.device)
    ]


def describe_targets(results: Sequence[ScorerResult]) -> list[str]:
    """Describe each target that was measured, with its value and whether it is met."""
    return [
        f"{target}: {value:,.2f}, {'met' if value >= target.limit else 'missed'}"
        for target, value in check_targets(results)
    ]


COLUMNS = ("task", "contender", "segment", "batch", "device", "ms per segment", "segments/s", "x real time", "ratio")


def _format_row(result: ScorerResult) -> list[str]:
    return [
        *(result.task, result.contender, f"{result.seconds:g} s", str(result.batch), result.device),
        f"{result.ms_per_segment:.2f}",
        f"{result.segments_per_s:,.1f}",
        f"{result.speed:,.0f}",
        f"{result.ratio:.2f}",
    ]


def format_table(results: Sequence[ScorerResult]) -> Table:
    """Format the results as they are printed."""
    table = Table(*COLUMNS, title="Scorers and their peers")
    for result in results:
        table.add_row(*_format_row(result))
    return table


def save_results(folder: Path, machine: Machine, results: Sequence[ScorerResult]) -> Path:
    """Write `scorers-MACHINE.md` and `.json`; return the path of the Markdown file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"scorers-{machine.slug}.md"
    note = (
        "Written by `audiopipe bench scorers --save`. On a CPU: CPU time on one core, with contenders in turn; the "
        "ratio is the contender's time divided by audiopipe's in the same round, the median of all rounds. On a GPU: "
        "time from device memory to results on the host. Speechmos and onnxruntime rate the same windows as audiopipe."
    )
    table = format_markdown(COLUMNS, map(_format_row, results))
    targets = "\n".join(f"- {line}" for line in describe_targets(results))
    path.write_text("\n\n".join(["# Scorers", str(machine), note, table, targets]) + "\n", "utf-8")
    body = {
        "machine": machine.as_text(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "scorers": [asdict(result) for result in results],
    }
    path.with_suffix(".json").write_text(json.dumps(body, indent=1) + "\n", "utf-8")
    return path


def run_benchmark(names: Sequence[str], cache: Path, quick: bool = False) -> list[ScorerResult]:
    """Measure scorers on one core, and on a GPU where there is one."""
    results = list(measure_cpu(names, cache, quick))
    if torch.cuda.is_available():
        segments = {seconds: make_segments(cache, seconds, 8) for seconds in (5.0, 30.0)}
        results += measure_gpu(names, segments, torch.device("cuda"))
    return results
