"""The rows of a saved benchmark, as `audiopipe bench … --save` writes them to JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

__all__ = ["AUDIOPIPE", "COMMAND", "Case", "GpuRow", "JsonObject", "KernelRow", "PipelineRow", "ScaleRow", "ScorerRow"]

AUDIOPIPE, COMMAND = "audiopipe", "audiopipe run"
JsonObject = dict[str, Any]


class Case(NamedTuple):
    """The input of a kernel benchmark."""

    seconds: int
    sample_rate: int
    batch: int
    threads: int

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' * (self.threads > 1)}"
        return f"{self.seconds} s at {self.sample_rate / 1000:g} kHz, batches of {self.batch}, {threads}"


@dataclass(frozen=True)
class KernelRow:
    """The time of one contender in one case. `relative_time` is that time divided by audiopipe's."""

    task: str
    contender: str
    case: Case
    ms_per_item: float
    relative_time: float

    @classmethod
    def of(cls, row: JsonObject) -> KernelRow:
        case = Case(row["seconds"], row["sample_rate"], row["batch"], row["threads"])
        return cls(row["task"], row["contender"], case, float(row["ms_per_item"]), float(row["relative_time"]))


@dataclass(frozen=True)
class GpuRow:
    """A labeled number of the GPU benchmark, as text."""

    label: str
    value: str

    @classmethod
    def of(cls, row: JsonObject) -> GpuRow:
        return cls(str(row["label"]), str(row["value"]))


@dataclass(frozen=True)
class PipelineRow:
    """The best round of one pipeline on one input and a number of cores."""

    input: str
    method: str
    cores: int
    audio_s: float
    wall_s: float
    peak_mb: float | None

    @classmethod
    def of(cls, row: JsonObject) -> PipelineRow:
        times = float(row["audio_s"]), float(row["wall_s"])
        return cls(row["input"], row["method"], int(row["cores"]), *times, row.get("peak_mb"))

    @property
    def speed(self) -> float:
        """Seconds of audio per second of wall time."""
        return self.audio_s / self.wall_s


@dataclass(frozen=True)
class ScaleRow:
    """Scheduler and ledger with stubbed work."""

    ledger: str
    videos: int
    shards: int
    minutes: float
    driver_mb: float
    monitor_ms: float

    @classmethod
    def of(cls, row: JsonObject) -> ScaleRow:
        numbers = (float(row[name]) for name in ("minutes", "driver_mb", "monitor_ms"))
        return cls(str(row["ledger"]), int(row["videos"]), int(row["shards"]), *numbers)


@dataclass(frozen=True)
class ScorerRow:
    """The time of a contender in a task of a scorer. `ratio` is that time divided by audiopipe's."""

    task: str
    contender: str
    seconds: float
    batch: int
    device: str
    ms_per_segment: float
    ratio: float

    @classmethod
    def of(cls, row: JsonObject) -> ScorerRow:
        numbers = float(row["ms_per_segment"]), float(row["ratio"])
        return cls(row["task"], row["contender"], float(row["seconds"]), int(row["batch"]), row["device"], *numbers)

    @property
    def segments_per_s(self) -> float:
        return 1e3 / self.ms_per_segment
