"""Define what the processes of benchmarks receive and return, as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

__all__ = ["CheckRow", "Outcome", "ProcessResult", "Task"]


@dataclass(frozen=True)
class Task:
    """The work of one process: a file of `seconds` of audio, to be processed `videos` times in `shards` at once.

    `program` is the ffmpeg program of the methods that use FFmpeg; empty for its libraries in the process.
    """

    path: str
    sample_rate_hz: int
    seconds: float
    videos: int
    shards: int
    scratch: str
    program: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Task:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Outcome:
    """The seconds of audio that a method processed and, where it has stages, the time and the queues of each.

    `startup_s` and `startup_cpu_s` are spent on starting and ending processes, and do not count.
    """

    audio_s: float
    segments: int = 0
    stage_s: dict[str, float] = field(default_factory=dict)
    stage_cpu_s: dict[str, float] = field(default_factory=dict)
    queue_depths: dict[str, float] = field(default_factory=dict)
    startup_s: float = 0.0
    startup_cpu_s: float = 0.0

    def per_core(self, cores: int) -> Outcome:
        """Return the outcome with the seconds of each stage divided by the number of cores."""
        stage_s, stage_cpu_s = (
            {stage: seconds / cores for stage, seconds in times.items()} for times in (self.stage_s, self.stage_cpu_s)
        )
        return Outcome(self.audio_s, self.segments, stage_s, stage_cpu_s, self.queue_depths)


@dataclass(frozen=True)
class ProcessResult:
    """The outcome of one process, its time, and its resident memory when ready and at its peak."""

    outcome: Outcome
    wall_s: float
    cpu_s: float
    ready_mb: float
    peak_mb: float

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ProcessResult:
        body = json.loads(text)
        return cls(**body | {"outcome": Outcome(**body["outcome"])})


@dataclass(frozen=True)
class CheckRow:
    """A value that the GPU check has measured, as text; its target, and whether it is met, None without a target."""

    label: str
    value: str
    target: str = ""
    is_met: bool | None = None
