"""What flows between the parts. Times are seconds of the video, sizes are bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy.typing as npt

__all__ = [
    "Clip",
    "DeadLetter",
    "Media",
    "Seconds",
    "SegmentSource",
    "Shard",
    "ShardResult",
    "Span",
    "Video",
]

Seconds = float
Pcm = npt.NDArray[Any]


class SegmentSource(StrEnum):
    """Where the times of a video's segments came from."""

    JSON = "json"
    VTT = "vtt"
    SRT = "srt"
    VOICE = "voice"
    FIXED = "fixed"


@dataclass(frozen=True, slots=True)
class Video:
    """One row of the catalogue.

    `attempts`: how many times the plan has it so far, this time included: 1, and 1 more with each retry.
    """

    video_id: str
    language: str
    uri: str
    size_bytes: int | None = None
    duration_s: Seconds | None = None
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class Shard:
    """A bounded, ordered list of videos of one partition: one task, one tar, one commit."""

    language: str
    index: int
    partition: int
    videos: tuple[Video, ...]

    @property
    def name(self) -> str:
        return f"{self.language}-{self.index:06d}"


@dataclass(frozen=True, slots=True)
class Media:
    """What a media file says of itself."""

    container: str
    codec: str
    sample_rate_hz: int
    channels: int
    sample_format: str
    declared_s: Seconds | None


@dataclass(frozen=True, slots=True)
class Span:
    """A time range of a video, not yet cut."""

    start_s: Seconds
    end_s: Seconds
    text: str | None = None
    speaker: str | None = None

    @property
    def duration_s(self) -> Seconds:
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class Clip:
    """A segment with its samples, or, with a `drop_reason`, one that is not worth decoding further.

    `pcm` is [C, T], int16 (full scale 32768) or float32 (full scale 1.0), at `sample_rate_hz`.
    """

    video_id: str
    index: int
    span: Span
    sample_rate_hz: int
    pcm: Pcm = field(repr=False)
    drop_reason: str | None = None

    @property
    def frames(self) -> int:
        return int(self.pcm.shape[-1])


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A video that failed for good, and why. `attempts` as the video's."""

    video_id: str
    language: str
    stage: str
    error_type: str
    message: str
    retriable: bool = False
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What a finished shard says of itself: a few hundred bytes, and the body of its commit.

    `stage_s` are seconds of work summed over a stage's threads, so they may add up to more than `wall_s`;
    `stage_cpu_s` are those of a core, a decoder's too; `stage_items` are videos fetched and written, blocks of a second
    decoded, rounds listened to, segments scored and encoded, uploads; `queue_depths` are means at the times of taking.
    """

    shard: str
    language: str
    partition: int
    attempt: str
    run_id: str
    worker: str
    videos: int
    videos_failed: int
    segments: int
    segments_kept: int
    drops: dict[str, int]
    audio_s: Seconds
    kept_s: Seconds
    bytes_in: int
    bytes_out: int
    stage_s: dict[str, Seconds]
    wall_s: Seconds
    started_at: str
    finished_at: str
    dead_letters: tuple[DeadLetter, ...] = ()
    device: str = "cpu"
    stage_cpu_s: dict[str, Seconds] = field(default_factory=dict)
    stage_items: dict[str, int] = field(default_factory=dict)
    queue_depths: dict[str, float] = field(default_factory=dict)
