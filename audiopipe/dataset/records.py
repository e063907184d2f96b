"""The outcome of segments and videos, and their rows in the tables."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from audiopipe import __version__
from audiopipe.dataset.schema import INFO_COLUMNS, sample_key
from audiopipe.dataset.spool import SpoolRange
from audiopipe.types import (
    DeadLetter,
    Decibels,
    Media,
    Seconds,
    SegmentSource,
    Span,
    Value,
    Video,
    VideoInfo,
)

__all__ = ["Metrics", "Row", "SegmentRecord", "VideoRecord", "finite", "segment_row", "video_row"]

T = TypeVar("T")

Metrics = npt.NDArray[np.float64]
Row = dict[str, Any]  # a value for each column but those of scorers


@dataclass
class SegmentRecord:
    """The outcome of one segment. `data` is its encoded audio in the spool, None if it was dropped and is not
    written with `keep_dropped`.

    `metrics` are in the order of `METRIC_NAMES`, None if the segment was dropped before scoring. `scores` are the
    values of the other scorers' columns, as far as they exist.
    """

    index: int
    span: Span
    duration_s: Seconds
    drop_reason: str | None
    metrics: Metrics | None
    data: SpoolRange | None = None
    gain_db: Decibels = 0.0
    scores: dict[str, Value] = field(default_factory=dict)


@dataclass
class VideoRecord:
    """The outcome of one video: its segments, or the reason why it failed.

    `clips` is the number of clips that were cut: the video is complete when as many segments are recorded. `gap_s` is
    the silence inserted where the file has no samples, None if it was not decoded to its end. `channel` is the channel
    that replaces the mean of the channels; segments before `first_index` were cut from the mean and do not count.
    """

    video: Video
    etag: str | None = None
    bytes_in: int = 0
    media: Media | None = None
    decoded_s: Seconds = 0.0
    gap_s: Seconds | None = None
    clips: int = 0
    segment_source: SegmentSource | None = None
    captions: str | None = None
    info: VideoInfo = field(default_factory=VideoInfo)
    notes: list[str] = field(default_factory=list)
    channel: int | None = None
    first_index: int = 0
    fingerprint: bytes | None = None
    segments: list[SegmentRecord] = field(default_factory=list)
    failure: DeadLetter | None = None


def segment_row(record: VideoRecord, segment: SegmentRecord, shard: int, digest: str) -> Row:
    """Return the row of a segment, without the columns of scorers."""
    media = record.media
    assert media is not None, "a video with segments has been probed"
    return {
        "key": sample_key(record.video.video_id, segment.index),
        "video_id": record.video.video_id,
        "language": record.video.language,
        "shard": shard,
        "segment": segment.index,
        "start_s": finite(segment.span.start_s),
        "end_s": finite(segment.span.end_s),
        "duration_s": finite(segment.duration_s),
        "text": segment.span.text,
        "speaker": segment.span.speaker,
        "sound_event": segment.span.sound_event,
        "raw_text": segment.span.raw_text,
        "segment_times": record.segment_source,
        "kept": segment.drop_reason is None,
        "drop_reason": segment.drop_reason,
        "tar_offset": None,
        "audio_bytes": None if segment.data is None else segment.data.size,
        "source_uri": record.video.shown_uri,
        "source_etag": record.etag,
        "container": media.container,
        "codec": media.codec,
        "source_rate_hz": media.sample_rate_hz,
        "source_channels": media.channels,
        "gain_db": None if segment.data is None else segment.gain_db,
        "config_digest": digest,
        "version": __version__,
    }


def _channel_name(record: VideoRecord) -> str | None:
    """Return `mean`, or the name of the channel that replaces it; None for a file of one channel."""
    channels = record.media.channels if record.media else 1
    if channels == 1:
        return None
    if record.channel is None:
        return "mean"
    return ("left", "right")[record.channel] if channels == 2 else str(record.channel)


def video_row(record: VideoRecord, shard: int) -> Row:
    """Return the row of a video."""
    media, failure = record.media, record.failure
    return {
        "video_id": record.video.video_id,
        "language": record.video.language,
        "shard": shard,
        "uri": record.video.shown_uri,
        "attempts": record.video.attempts,
        "status": "failed" if failure else "done",
        "error_stage": failure.stage if failure else None,
        "error_type": failure.error_type if failure else None,
        "error_message": failure.message if failure else None,
        "retriable": failure.retriable if failure else None,
        "duration_s": record.decoded_s,
        "declared_s": finite(media.declared_s if media else record.video.duration_s),
        "gap_s": record.gap_s,
        "container": media.container if media else None,
        "codec": media.codec if media else None,
        "source_rate_hz": media.sample_rate_hz if media else None,
        "source_channels": media.channels if media else None,
        "audio_track": media.track_label if media else None,
        "audio_channel": _channel_name(record),
        "captions": record.captions,
        **{column: getattr(record.info, name) for column, name in INFO_COLUMNS.items()},
        "notes": "; ".join(record.notes) or None,
        "source_bytes": record.bytes_in,
        "source_etag": record.etag,
        "segments": len(record.segments),
        "segments_kept": sum(segment.drop_reason is None for segment in record.segments),
        "fingerprint": None if failure else record.fingerprint,
    }


def finite(value: T) -> T | None:
    """Return None in place of NaN and infinity, as tables have it, and any other value as it is."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
