"""Write a shard's files to local scratch: the WebDataset tar, the Parquet tables and the NeMo manifest.

The same records give the same bytes: times in tar headers are 0, tables are written in one piece, and nothing here
reads a clock. `commit.py` brings the files to their store.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe import __version__
from audiopipe.config import RunConfig
from audiopipe.dataset.sample_order import SampleOrder
from audiopipe.dataset.schema import INFO_COLUMNS, METRIC_NAMES, SEGMENTS_SCHEMA, VIDEOS_SCHEMA, sample_key
from audiopipe.dataset.sidecar import serialize_sidecar
from audiopipe.dataset.spool import Spool, SpoolRange
from audiopipe.media.encode import SUFFIXES
from audiopipe.types import DeadLetter, Decibels, Media, Seconds, SegmentSource, Shard, Span, Video, VideoInfo

__all__ = ["SegmentRecord", "ShardFiles", "VideoRecord"]

TAR_BUFFER_BYTES = 1 << 18  # tarfile alone would write 16 KB at a time

Metrics = npt.NDArray[np.float64]
Row = dict[str, Any]  # a value for each column but the metrics


class _Sample(NamedTuple):
    """A kept segment: its row, its metrics, its encoded audio, and the fields of its video for the sidecar."""

    row: Row
    metrics: Metrics
    data: SpoolRange
    info: VideoInfo | None


@dataclass
class SegmentRecord:
    """The outcome of one segment. `data` is its encoded audio in the spool, None if it was dropped.

    `metrics` are in the order of `METRIC_NAMES`, None if the segment was dropped before scoring.
    """

    index: int
    span: Span
    duration_s: Seconds
    drop_reason: str | None
    metrics: Metrics | None
    data: SpoolRange | None = None
    gain_db: Decibels = 0.0


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


class ShardFiles:
    """Writes a shard's videos, which are added in the plan's order, to files in a scratch folder."""

    def __init__(self, shard: Shard, config: RunConfig, folder: Path) -> None:
        self.shard = shard
        self.config = config
        self.folder = folder
        self.drops: Counter[str] = Counter()
        self.segments = self.kept = 0
        self.audio_s = self.kept_s = 0.0
        self.dead_letters: list[DeadLetter] = []
        self.spool = Spool(folder / "spool")
        self._digest = config.digest
        self._segment_rows: list[Row] = []
        self._metrics: list[Metrics] = []
        self._video_rows: list[Row] = []
        self._manifest: list[str] = []
        self._order: SampleOrder[_Sample] = SampleOrder(METRIC_NAMES)
        self._tar_file = (folder / "audio").open("wb", buffering=TAR_BUFFER_BYTES)
        self._tar = tarfile.open(fileobj=self._tar_file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - finish() closes it

    def add(self, record: VideoRecord) -> None:
        """Write a complete video: its samples to the tar, its rows to the tables."""
        self.audio_s += record.decoded_s
        if record.failure is not None:
            self.dead_letters.append(record.failure)
            record.segments = []
        for segment in record.segments:
            self._add_segment(record, segment)
        self._video_rows.append(_video_row(record, self.shard.index))

    def _add_segment(self, record: VideoRecord, segment: SegmentRecord) -> None:
        row = _segment_row(record, segment, self.shard.index, self._digest)
        metrics = np.full(len(METRIC_NAMES), np.nan) if segment.metrics is None else segment.metrics
        self.segments += 1
        if segment.data is None:
            self.drops[str(segment.drop_reason)] += 1
        else:
            self.kept += 1
            self.kept_s += segment.duration_s
            sample = _Sample(row, metrics, segment.data, record.info if self.config.sidecar_info else None)
            numbers = np.array(METRIC_NAMES)[np.isfinite(metrics)].tolist()
            for ready in self._order.add(sample, numbers):
                self._add_sample(ready)
        self._segment_rows.append(row)
        self._metrics.append(metrics)

    def _add_sample(self, sample: _Sample) -> None:
        """Append the audio and the sidecar of a sample to the tar, and the offset of its audio to its row."""
        row = sample.row
        member = row["key"] + SUFFIXES[self.config.audio_format]
        row["tar_offset"] = self._add_member(member, self.spool.read(sample.data))
        sidecar = serialize_sidecar(row, sample.metrics, self.config.sample_rate, sample.info)
        self._add_member(row["key"] + ".json", sidecar)
        entry = {
            "audio_filepath": member,
            "duration": row["duration_s"],
            "text": row["text"] or "",
            "lang": row["language"],
            "shard_id": self.shard.index,
        }
        self._manifest.append(json.dumps(entry, ensure_ascii=False) + "\n")

    def _add_member(self, name: str, data: bytes) -> int:
        """Append a member to the tar; return the offset of its data. A USTAR header is one block."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(member, io.BytesIO(data))
        return offset

    def finish(self) -> dict[str, Path]:
        """Finish the files and return their local paths by role. A shard with nothing kept has no tar."""
        for sample in self._order.finish():
            self._add_sample(sample)
        self._tar.close()
        self._tar_file.close()
        self._write_table("segments", self._segment_table())
        self._write_table("videos", pa.Table.from_pylist(self._video_rows, VIDEOS_SCHEMA))
        (self.folder / "manifest").write_text("".join(self._manifest), encoding="utf-8")
        roles = ["audio", "segments", "videos", "manifest"] if self.kept else ["segments", "videos"]
        return {role: self.folder / role for role in roles}

    def _segment_table(self) -> pa.Table:
        schema = pa.schema([column for column in SEGMENTS_SCHEMA if column.name not in METRIC_NAMES])
        columns = dict(zip(schema.names, pa.Table.from_pylist(self._segment_rows, schema).columns, strict=True))
        values = np.array(self._metrics, dtype=np.float32).reshape(-1, len(METRIC_NAMES))
        missing = ~np.isfinite(values)
        columns |= {
            name: pa.array(values[:, number], mask=missing[:, number]) for number, name in enumerate(METRIC_NAMES)
        }
        return pa.table([columns[name] for name in SEGMENTS_SCHEMA.names], SEGMENTS_SCHEMA)

    def _write_table(self, role: str, table: pa.Table) -> None:
        pq.write_table(table, self.folder / role, compression="zstd")

    def close(self) -> None:
        """Close the open files, finished or not."""
        self._tar_file.close()
        self.spool.close()


def _segment_row(record: VideoRecord, segment: SegmentRecord, shard: int, digest: str) -> Row:
    media = record.media
    assert media is not None, "a video with segments has been probed"
    return {
        "key": sample_key(record.video.video_id, segment.index),
        "video_id": record.video.video_id,
        "language": record.video.language,
        "shard": shard,
        "segment": segment.index,
        "start_s": _finite(segment.span.start_s),
        "end_s": _finite(segment.span.end_s),
        "duration_s": _finite(segment.duration_s),
        "text": segment.span.text,
        "speaker": segment.span.speaker,
        "sound_event": segment.span.sound_event,
        "raw_text": segment.span.raw_text,
        "segment_times": record.segment_source,
        "kept": segment.data is not None,
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


def _video_row(record: VideoRecord, shard: int) -> Row:
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
        "declared_s": _finite(media.declared_s if media else record.video.duration_s),
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
        "segments_kept": sum(segment.data is not None for segment in record.segments),
        "fingerprint": None if failure else record.fingerprint,
    }


def _finite(value: float | None) -> float | None:
    """Return a number as it is, and None for NaN and infinity."""
    return value if value is not None and math.isfinite(value) else None
