"""Report the pipeline benchmark: a table, the bottleneck in words, and files with the results and the rates."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from rich.table import Table

from audiopipe.bench.inputs import SEGMENT_S, VIDEO_SEGMENTS
from audiopipe.bench.machine import Machine
from audiopipe.bench.markdown import format_markdown
from audiopipe.bench.task import Outcome
from audiopipe.cluster.engines import CORES_PER_CUDA_WORKER
from audiopipe.estimation.rates import GPU_GB_S, Measurement

__all__ = [
    "AUDIOPIPE",
    "COMMAND",
    "DECODE",
    "FFMPEG",
    "FLOOR",
    "SEQUENTIAL",
    "BenchmarkResult",
    "describe_bottleneck",
    "format_report",
    "format_table",
    "save_results",
    "to_rates",
]

ALL_VIDEOS = 500_000
AUDIOPIPE, COMMAND = "audiopipe", "audiopipe run"
DECODE, FLOOR, SEQUENTIAL, FFMPEG = "decode only", "codec floor", "sequential", "ffmpeg"


@dataclass(frozen=True)
class BenchmarkResult:
    """One round of a method on an input and a number of cores: the fastest, or the median of `audiopipe run`.

    `growth_mb` is the peak memory above that of the process before the work. `speeds` has the seconds of audio per
    second of every round, `cpu_speeds` those per second of CPU time. `program` is the FFmpeg that the method runs.
    """

    input: str
    method: str
    cores: int
    audio_s: float
    wall_s: float
    cpu_s: float
    peak_mb: float
    growth_mb: float
    outcome: Outcome = field(default_factory=lambda: Outcome(0.0))
    speeds: tuple[float, ...] = ()
    cpu_speeds: tuple[float, ...] = ()
    program: str = ""

    @property
    def label(self) -> str:
        """The method, with the FFmpeg that it runs."""
        return f"{self.method}: {self.program}" if self.program else self.method

    @property
    def speed(self) -> float:
        """Seconds of audio per second of wall time."""
        return self.audio_s / self.wall_s

    @property
    def segments_per_s(self) -> float:
        return self.speed / SEGMENT_S

    @property
    def videos_per_min(self) -> float:
        return self.segments_per_s * 60 / VIDEO_SEGMENTS

    @property
    def hours(self) -> float:
        """Hours for 500,000 videos on these cores."""
        return ALL_VIDEOS / self.videos_per_min / 60


def describe_bottleneck(results: Sequence[BenchmarkResult]) -> list[str]:
    """Compare audiopipe with its baselines and name its slowest stage: one line per input and number of cores."""
    by_case = {(result.input, result.method, result.cores): result for result in results}
    lines = []
    for result in (result for result in results if result.method == AUDIOPIPE):
        seconds = dict(result.outcome.stage_cpu_s)
        seconds["work outside of the stages"] = max(0.0, result.cpu_s / result.cores - sum(seconds.values()))
        stage = max(seconds, key=lambda name: seconds[name])
        lines.append(
            f"{result.input}, {result.cores} core{'s' * (result.cores > 1)}: "
            f"{', '.join(_compare(result, by_case))}. The bottleneck is "
            f"{stage}: {seconds[stage] / max(sum(seconds.values()), 1e-9):.0%} of the work; "
            f"{_describe_queues(result.outcome.queue_depths)}."
        )
    return lines


def _compare(result: BenchmarkResult, by_case: Mapping[tuple[str, str, int], BenchmarkResult]) -> list[str]:
    """Compare a result of audiopipe with the baselines that were measured."""

    def compare(baseline: tuple[str, int], text: str, result: BenchmarkResult | None = result) -> list[str]:
        other = by_case.get((item, *baseline))
        return [text.format(_ratio(result, other))] if other and result else []

    item, cores = result.input, result.cores
    floor, command = by_case.get((item, FLOOR, cores)), by_case.get((item, COMMAND, cores))
    ratios = compare((FLOOR, cores), "{} of the codec floor")
    ratios += compare((FLOOR, cores), "{} of it through the command", command)
    ratios += compare((SEQUENTIAL, 1), "{} times sequential code on one core")
    if cores == 1:
        ratios += compare((FFMPEG, 1), "{} of ffmpeg's C code")
        return ratios + compare((FFMPEG, 1), "{} of it through the command", command)
    ratios += compare((AUDIOPIPE, 1), "{} times audiopipe on one core")
    return ratios + compare((FLOOR, 1), "while the codec floor, which shares nothing, is {} times one core", floor)


def _ratio(result: BenchmarkResult, baseline: BenchmarkResult) -> str:
    """Format the ratio of the rounds that count, and the median and range of the ratios within a round.

    The speed of a shared machine changes from second to second. It changes least for CPU time, so the ratio by CPU time
    is added for the same number of cores.
    """
    ratios = [a / b for a, b in zip(result.speeds, baseline.speeds, strict=True)]
    spread = f" (in a round {median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}" if len(ratios) > 1 else ""
    if spread and result.cores == baseline.cores:
        by_cpu = median(a / b for a, b in zip(result.cpu_speeds, baseline.cpu_speeds, strict=True))
        spread += f"; by CPU time {by_cpu:.2f}"
    spread += ")" if spread else ""
    return f"{result.speed / baseline.speed:.2f}{spread}"


def _describe_queues(depths: dict[str, float]) -> str:
    """Describe the mean length of each queue. If a queue is never empty, the stage after it is slower."""
    parts = [
        f"{depth:g} {name} on average, so that the stage {'after' if depth >= 1 else 'before'} this queue is slower"
        for name, depth in depths.items()
    ]
    return "items waiting: " + "; ".join(parts)


COLUMNS = (
    *("input", "method", "cores", "x real time", "segments/s", "videos/min"),
    *("hours for 500,000 videos", "audio s / CPU s", "peak MB (growth)"),
)


def _format_rows(results: Sequence[BenchmarkResult]) -> list[list[str]]:
    ordered = sorted(results, key=lambda result: (result.input, result.cores, result.speed), reverse=True)
    return [
        [
            result.input,
            result.label,
            str(result.cores),
            f"{result.speed:.0f}",
            f"{result.segments_per_s:.0f}",
            f"{result.videos_per_min:.1f}",
            f"{result.hours:,.0f}",
            f"{result.audio_s / result.cpu_s:.0f}",
            f"{result.peak_mb:.0f} (+{result.growth_mb:.0f})",
        ]
        for result in ordered
    ]


def format_table(results: Sequence[BenchmarkResult]) -> Table:
    """Format the results as a table for a terminal."""
    table = Table(title="The whole pipeline and its baselines")
    for number, name in enumerate(COLUMNS):
        table.add_column(name, justify="left" if number < 2 else "right")
    for row in _format_rows(results):
        table.add_row(*row)
    return table


def to_rates(results: Sequence[BenchmarkResult], machine: Machine) -> Measurement:
    """Return the rates for `audiopipe estimate`, in seconds of audio per second, of the slower input.

    The rate of the GPU is that of the stage `score`, waiting included: a lower bound.
    """
    measured = [result for result in results if result.method == AUDIOPIPE]
    core_x = round(min(result.speed for result in measured if result.cores == 1), 1)
    gpu = next((name for name in GPU_GB_S if machine.gpu and name in machine.gpu), None)
    gpu_x = min(result.audio_s / result.cores / result.outcome.stage_s["score"] for result in measured)
    return Measurement(
        machine=", ".join(filter(None, (machine.cpu, machine.gpu))),
        source=f"audiopipe bench pipeline, {', '.join(sorted({result.input for result in measured}))}",
        core_x_with_gpu=core_x if machine.gpu else None,
        core_x_without_gpu=None if machine.gpu else core_x,
        gpu=gpu,
        gpu_x=round(gpu_x, 1) if gpu else None,
    )


def save_results(results: Sequence[BenchmarkResult], folder: Path) -> list[Path]:
    """Write `pipeline-*.md` and `.json`, and `rates-*.json` for `audiopipe estimate`, named after the machine."""
    machine = Machine.detect()
    folder.mkdir(parents=True, exist_ok=True)
    markdown, data = (folder / f"pipeline-{machine.slug}{suffix}" for suffix in (".md", ".json"))
    rates = folder / f"rates-{machine.slug}.json"
    markdown.write_text(format_report(results, machine.as_text()), encoding="utf-8")
    body = {"machine": machine.as_text(), "results": [asdict(result) for result in results]}
    data.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    rates.write_text(json.dumps(asdict(to_rates(results, machine)), indent=1) + "\n", encoding="utf-8")
    return [markdown, data, rates]


def format_report(results: Sequence[BenchmarkResult], machine: dict[str, str]) -> str:
    """Format the results as a Markdown page."""
    minutes = " or ".join(
        sorted({f"{result.audio_s / result.cores / 60:.0f}" for result in results if result.method == AUDIOPIPE})
    )
    worker = f" On a GPU, an audiopipe process has {CORES_PER_CUDA_WORKER} cores, as a worker has."
    about = (
        "Written by `audiopipe bench pipeline --save`; no number is typed by hand. Each method is bound to the cores "
        "named, all methods are measured in turn, and the fastest round of each counts; of `audiopipe run`, whose time "
        "is that of a long run less that of a short one, the median round. After a ratio come the median, "
        "the lowest and the highest ratio within one round, and the median ratio by CPU time, which excludes the time "
        "that other processes took. Memory is that of the process, without its decoders. For each core audiopipe "
        f"processes {minutes} minutes of audio.{'' if machine['gpu'] == 'none' else worker}"
    )
    lines = [
        *("# The whole pipeline and its baselines", "", about, ""),
        *(", ".join(f"{name}: {value}" for name, value in machine.items()), ""),
        format_markdown(COLUMNS, _format_rows(results)),
        *("", *(f"- {line}" for line in describe_bottleneck(results)), ""),
        _format_stages(results),
    ]
    return "\n".join(lines) + "\n"


def _format_stages(results: Sequence[BenchmarkResult]) -> str:
    """Format the wall and CPU seconds of each stage of audiopipe, per core."""
    rows = [
        [result.input, str(result.cores), stage, f"{seconds:.2f}", f"{result.outcome.stage_cpu_s[stage]:.2f}"]
        for result in results
        if result.method == AUDIOPIPE
        for stage, seconds in result.outcome.stage_s.items()
    ]
    return format_markdown(("input", "cores", "stage", "seconds", "CPU seconds"), rows)
