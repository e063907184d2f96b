"""The data that stages pass to each other.

Times are seconds on the clock of the video's file, sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from audiopipe.redaction import redact_address

__all__ = [
    "AUDIO_SUFFIXES",
    "CAPTION_FORMATS",
    "CaptionFile",
    "Clip",
    "DeadLetter",
    "Decibels",
    "Media",
    "Seconds",
    "SegmentSource",
    "Shard",
    "ShardResult",
    "Span",
    "Value",
    "Video",
    "VideoInfo",
    "shard_name",
]

Seconds = float
Decibels = float
Value = float | int | bool | str | list[float] | None  # of a scorer's column; None where it does not exist
Pcm = npt.NDArray[np.int16 | np.float32]


class SegmentSource(StrEnum):
    """The source of the times of a video's segments."""

    CATALOG = "catalog"
    FILE = "file"
    JSON = "json"
    VTT = "vtt"
    SRT = "srt"
    JSON3 = "json3"
    SRV = "srv"
    TTML = "ttml"
    VOICE = "voice"
    FIXED = "fixed"


# Suffixes of files that are decoded; what a file is, its content decides.
AUDIO_SUFFIXES = frozenset(
    (".webm", ".weba", ".opus", ".ogg", ".oga", ".m4a", ".m4b", ".mp4", ".mp3", ".aac", ".flac", ".wav", ".mkv", ".mka")
)
CAPTION_FORMATS = {
    ".vtt": SegmentSource.VTT,
    ".srt": SegmentSource.SRT,
    ".json3": SegmentSource.JSON3,
    ".srv1": SegmentSource.SRV,
    ".srv2": SegmentSource.SRV,
    ".srv3": SegmentSource.SRV,
    ".ttml": SegmentSource.TTML,
    ".dfxp": SegmentSource.TTML,
}


@dataclass(frozen=True, slots=True)
class Video:
    """One row of the catalog.

    `uri` may have a user name or a signature, which is only for fetching: store and show `shown_uri`.
    `sidecars` are the names of files in the folder of a bare audio file that belong to it.
    `segments` is JSON of the catalog's texts, speakers and times (`catalog/segment_rows.py`), `values` the values of
    its columns that each segment gets.
    `attempts` counts how often the plan contains the video up to this shard: 1, plus 1 for each `audiopipe retry`.
    """

    video_id: str
    language: str
    uri: str
    size_bytes: int | None = None
    duration_s: Seconds | None = None
    sidecars: tuple[str, ...] = ()
    attempts: int = 1
    segments: str | None = field(default=None, repr=False)
    values: Mapping[str, object] = field(default_factory=dict, hash=False)

    def __repr__(self) -> str:
        return f"Video({self.video_id!r}, {self.language!r}, {self.shown_uri!r})"

    @property
    def shown_uri(self) -> str:
        """The address without its secrets, for everything that is stored or shown."""
        return redact_address(self.uri)


@dataclass(frozen=True, slots=True)
class Shard:
    """A bounded, ordered list of videos of one partition: one task, one tar, one commit."""

    language: str
    index: int
    partition: int
    videos: tuple[Video, ...]

    @property
    def name(self) -> str:
        return shard_name(self.language, self.index)


def shard_name(language: str, index: int) -> str:
    """Return the name of a shard, which is also that of its commit."""
    return f"{language}-{index:06d}"


@dataclass(frozen=True, slots=True)
class CaptionFile:
    """The captions of a video as a file.

    Args:
        format: what the file's name says: VTT, SRT, JSON3, SRV (YouTube's srv1 to srv3) or TTML.
        data: the bytes of the file.
        automatic: whether speech recognition made them; None if only the contents can show it.
        name: the name of the file.
    """

    format: SegmentSource
    data: bytes = field(repr=False)
    automatic: bool | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The metadata of a video from yt-dlp's `info.json`.

    Args:
        chapters: JSON, a list of `start_time`, `end_time` and `title`.
        manual_captions, automatic_captions: the languages for which the site has captions, as written there.
    """

    title: str | None = None
    channel: str | None = None
    upload_date: str | None = None
    chapters: str | None = None
    language: str | None = None
    manual_captions: frozenset[str] = frozenset()
    automatic_captions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Media:
    """The properties of a media file, read from its container.

    Attributes:
        declared_s: the end of the audio on the file's clock, as the file or the catalog declares it.
        start_s: the first timestamp of a transport stream, where the file's clock is 0; None for other containers.
        links: starts and ends of the links of a chained Ogg file, as offsets in the local file; empty for other files.
        options: options of FFmpeg with which the file is to be opened.
        track: position of the chosen audio stream among those of the file.
        track_label: the same for people, with its language: '2 of 3 (eng)'.
        track_note: why the stream is not in the language of the video, if that is so.
    """

    container: str
    codec: str
    sample_rate_hz: int
    channels: int
    sample_format: str
    declared_s: Seconds | None
    start_s: Seconds | None = None
    links: tuple[tuple[int, int], ...] = ()
    options: dict[str, str] = field(default_factory=dict)
    track: int = 0
    track_label: str | None = None
    track_note: str | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A time range of a video whose samples are not yet cut.

    Args:
        sound_event: whether the text has a mark of music or another sound; None where there is no text at all.
        raw_text: the text before tags, entities, speakers and marks of sounds were removed.
        word_times: starts of words and their positions in the raw text, where the format has them apart from the text.
        values: the values of the catalog's columns for this segment.
    """

    start_s: Seconds
    end_s: Seconds
    text: str | None = None
    speaker: str | None = None
    sound_event: bool | None = field(default=None, compare=False)
    raw_text: str | None = field(default=None, compare=False, repr=False)
    word_times: tuple[tuple[Seconds, int], ...] = field(default=(), compare=False, repr=False)
    values: Mapping[str, object] = field(default_factory=dict, compare=False, repr=False)

    @property
    def duration_s(self) -> Seconds:
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class Clip:
    """A segment with its samples, or a dropped segment if it has a `drop_reason`.

    Shape:
        - pcm: [C, T], int16 with full scale 32768 or float32 with full scale 1.0, at `sample_rate_hz`
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
    """A video that failed permanently, with the reason. `attempts` is that of the video."""

    video_id: str
    language: str
    stage: str
    error_type: str
    message: str
    retriable: bool = False
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class ShardResult:
    """The summary of a finished shard, a few hundred bytes long; it is stored in the shard's commit.

    Args:
        stage_s: seconds of work of each stage, summed over its threads, so that they may add up to more than `wall_s`.
        stage_cpu_s: CPU seconds of each stage, including decoder processes.
        stage_items: number of items of each stage: videos fetched and written, blocks of one second decoded, passes of
            the voice network, segments scored and encoded, uploads.
        queue_depths: mean length of each queue at the times when an item was taken from it.
        decoder_network: whether the system allowed the decoders of the worker to open connections (`media/sandbox.py`).
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
    decoder_network: bool = True

    @property
    def index(self) -> int:
        """The number in the name of the shard."""
        return int(self.shard.rpartition("-")[2])
