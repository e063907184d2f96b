"""What the pipeline's bench found: readings, a table, the bottleneck in words, a report on disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from audiopipe.bench.inputs import SEGMENT_S, VIDEO_SEGMENTS
from audiopipe.bench.machine import describe, kind
from audiopipe.cluster.engines import CORES_PER_CUDA_WORKER
from audiopipe.estimation.rates import GPU_GB_S

__all__ = ["OURS", "SLOW", "BenchmarkResult", "bottleneck", "rates", "save", "table"]

ALL_VIDEOS = 500_000
OURS, FLOOR, SLOW, CS_OWN = "audiopipe", "codec floor", "today's sequential way", "ffmpeg's C pipeline"


@dataclass(frozen=True)
class BenchmarkResult:
    """The best of several rounds of one way on so many cores."""

    material: str
    name: str
    cores: int
    audio_s: float
    wall_s: float
    cpu_s: float
    peak_mb: float
    beside_mb: float
    details: dict[str, Any] = field(default_factory=dict)
    rounds_x: tuple[float, ...] = ()  # times real time, in every round
    rounds_cpu_x: tuple[float, ...] = ()  # seconds of audio for each of a core, in every round

    @property
    def times_real_time(self) -> float:
        return self.audio_s / self.wall_s

    @property
    def segments_a_second(self) -> float:
        return self.times_real_time / SEGMENT_S

    @property
    def videos_a_minute(self) -> float:
        return self.segments_a_second * 60 / VIDEO_SEGMENTS

    @property
    def hours(self) -> float:
        """For 500,000 videos on these cores."""
        return ALL_VIDEOS / self.videos_a_minute / 60


def bottleneck(readings: Sequence[BenchmarkResult]) -> list[str]:
    """What holds ours back, in words, from the seconds of work on one core."""
    found = {(r.material, r.name, r.cores): r for r in readings}
    lines = []
    for r in (r for r in readings if r.name == OURS):
        own = dict(r.details["stage_cpu_s"])
        own["what is in none of the stages"] = max(0.0, r.cpu_s / r.cores - sum(own.values()))
        stage = max(own, key=lambda name: own[name])
        ratios = [
            f"{_over(r, found[r.material, FLOOR, r.cores])} of the codec floor",
            f"{_over(r, found[r.material, SLOW, 1])} times one core of today's way",
        ]
        if r.cores > 1:
            ratios.append(f"{_over(r, found[r.material, OURS, 1])} times one core of its own")
            alone, together = (found[r.material, FLOOR, cores] for cores in (1, r.cores))
            ratios.append(f"where the codec floor, which shares nothing, is {_over(together, alone)} times one core")
        else:
            ratios.append(f"{_over(r, found[r.material, CS_OWN, 1])} of ffmpeg's C pipeline")
        lines.append(
            f"{r.material}, {r.cores} core{'s' * (r.cores > 1)}: {', '.join(ratios)}. The bottleneck is {stage}: "
            f"{own[stage] / max(sum(own.values()), 1e-9):.0%} of the work; {_queues(r.details['queue_depths'])}."
        )
    return lines


def _over(one: BenchmarkResult, other: BenchmarkResult) -> str:
    """How many times as fast, best against best; and round against round, which a machine with neighbours is judged by:
    its speed changes from one second to the next, and least so if only the time counts that a core was really given."""
    each = [a / b for a, b in zip(one.rounds_x, other.rounds_x, strict=True)]
    spread = f" (in a round {median(each):.2f}, {min(each):.2f} to {max(each):.2f}" if len(each) > 1 else ""
    if spread and one.cores == other.cores:
        by_cpu = median(a / b for a, b in zip(one.rounds_cpu_x, other.rounds_cpu_x, strict=True))
        spread += f"; by CPU time {by_cpu:.2f}"
    spread += ")" if spread else ""
    return f"{one.times_real_time / other.times_real_time:.2f}{spread}"


def _queues(depths: dict[str, float]) -> str:
    """Where things wait, in words: a queue that is never empty means that what comes after it is the slower."""
    words = [
        f"{depth:g} {name} on average, so that what {'follows' if depth >= 1 else 'comes before'} is the slower part"
        for name, depth in depths.items()
    ]
    return "items waiting: " + "; ".join(words)


def _minutes(readings: Sequence[BenchmarkResult]) -> str:
    """Of audio, that ours worked through for each core."""
    return " or ".join(sorted({f"{r.audio_s / r.cores / 60:.0f}" for r in readings if r.name == OURS}))


def _rows(readings: Sequence[BenchmarkResult]) -> list[list[str]]:
    return [
        [
            r.material,
            r.name,
            str(r.cores),
            f"{r.times_real_time:.0f}",
            f"{r.segments_a_second:.0f}",
            f"{r.videos_a_minute:.1f}",
            f"{r.hours:,.0f}",
            f"{r.audio_s / r.cpu_s:.0f}",
            f"{r.peak_mb:.0f} (+{r.beside_mb:.0f})",
        ]
        for r in sorted(readings, key=lambda r: (r.material, r.cores, r.times_real_time), reverse=True)
    ]


COLUMNS = [
    *("material", "way", "cores", "x real time", "segments/s", "videos/min"),
    *("hours for 500,000 videos", "audio s / CPU s", "peak MB (beside start)"),
]


def table(readings: Sequence[BenchmarkResult]) -> Table:
    """For a terminal."""
    drawn = Table(title="The whole way, side by side")
    for number, name in enumerate(COLUMNS):
        drawn.add_column(name, justify="left" if number < 2 else "right")
    for row in _rows(readings):
        drawn.add_row(*row)
    return drawn


def rates(readings: Sequence[BenchmarkResult], machine: str, gpu: str) -> dict[str, Any]:
    """What the planner counts with, as `planner.rates` reads it: seconds of audio per second, of the slower material.

    The device's rate is that of its own stage, waits included: what it does at least.
    """
    ours = [r for r in readings if r.name == OURS]
    core_x = min(r.times_real_time for r in ours if r.cores == 1)
    known = next((name for name in GPU_GB_S if name in gpu), None)
    gpu_x = min(r.audio_s / r.cores / r.details["stage_s"]["score"] for r in ours)
    return {
        "machine": machine,
        "source": f"audiopipe bench pipeline, {', '.join(sorted({r.material for r in ours}))}",
        "core_x_with_gpu": None if gpu == "none" else round(core_x, 1),
        "core_x_without_gpu": round(core_x, 1) if gpu == "none" else None,
        "gpu": known,
        "gpu_x": round(gpu_x, 1) if known else None,
    }


def save(readings: Sequence[BenchmarkResult], folder: Path) -> list[Path]:
    """Write `pipeline-*.md` and `.json`, and `rates-*.json` for the planner, named after the kind of machine."""
    described = describe()
    name = kind(described)
    folder.mkdir(parents=True, exist_ok=True)
    markdown, data = (folder / f"pipeline-{name}{suffix}" for suffix in (".md", ".json"))
    lines = [
        "# The whole pipeline beside other ways",
        "",
        (
            "Made by `audiopipe bench pipeline --save`; no number is typed by hand. Each way is bound to the cores "
            "named, all are measured in turn, and the best round of each counts; beside a ratio are the median, the "
            "lowest and the highest of those within one round, and the median by CPU time, which does not count what "
            "neighbours on the machine took. Memory is the process's own, without its decoders. "
            f"For each core ours works through {_minutes(readings)} minutes of audio"
            + (
                "."
                if described["gpu"] == "none"
                else f"; a process of ours has {CORES_PER_CUDA_WORKER} cores, as a worker has."
            )
        ),
        "",
        ", ".join(f"{key}: {value}" for key, value in described.items()),
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "| " + " | ".join("---" for _ in COLUMNS) + " |",
        *("| " + " | ".join(row) + " |" for row in _rows(readings)),
        "",
        *(f"- {line}" for line in bottleneck(readings)),
        "",
        *_stages(readings),
    ]
    markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    body = {"machine": described, "readings": [asdict(r) for r in readings]}
    data.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    measured = folder / f"rates-{name}.json"
    machine = described["cpu"] if described["gpu"] == "none" else f"{described['cpu']}, {described['gpu']}"
    measured.write_text(json.dumps(rates(readings, machine, described["gpu"]), indent=1) + "\n", encoding="utf-8")
    return [markdown, data, measured]


def _stages(readings: Sequence[BenchmarkResult]) -> list[str]:
    """Seconds of each stage of ours: by the clock, and of a core."""
    lines = ["| material | cores | stage | seconds | CPU seconds |", "| --- | --- | --- | --- | --- |"]
    for r in (r for r in readings if r.name == OURS):
        for stage, seconds in r.details["stage_s"].items():
            lines.append(
                f"| {r.material} | {r.cores} | {stage} | {seconds:.2f} | {r.details['stage_cpu_s'][stage]:.2f} |"
            )
    return lines
