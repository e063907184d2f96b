"""A shard's files: the WebDataset tar, the Parquet tables and the NeMo manifest, written to local scratch.

The same records give the same bytes: times in tar headers are 0, tables are written in one piece, and nothing here
looks at a clock. `commit.py` brings the files to their store.
"""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe import __version__
from audiopipe.config import RunConfig
from audiopipe.dataset.schema import METRIC_NAMES, SEGMENTS_SCHEMA, VIDEOS_SCHEMA, sample_key
from audiopipe.media.encode import SUFFIXES
from audiopipe.types import DeadLetter, Media, Shard, Span, Video

__all__ = [
    "SegmentRecord",
    "ShardFiles",
    "Spool",
    "VideoRecord",
]

WRITE_BYTES = 1 << 18  # of a tar at once, which tarfile would write 16 KB by 16 KB

# A sidecar does not depend on its own position in the tar.
NOT_IN_SIDECAR = ("kept", "drop_reason", "tar_offset", "audio_bytes")


@dataclass(frozen=True, slots=True)
class Spooled:
    """A byte range of a spool."""

    offset: int
    size: int


class Spool:
    """Encoded segments on scratch disk, until their video is known to be good and it is their turn in the tar.

    One rare length can keep a video waiting for its batch until the shard's end, and everything after it in the
    plan's order with it: that is too much for memory.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b")
        self._end = 0

    def append(self, data: bytes) -> Spooled:
        self._file.seek(self._end)
        self._file.write(data)
        place = Spooled(self._end, len(data))
        self._end += len(data)
        return place

    def read(self, place: Spooled) -> bytes:
        self._file.seek(place.offset)
        return self._file.read(place.size)

    def close(self) -> None:
        self._file.close()


@dataclass
class SegmentRecord:
    """What came of one segment. `data` is where its encoded audio waits in the spool, None where it was dropped."""

    index: int
    span: Span
    duration_s: float
    drop_reason: str | None
    metrics: npt.NDArray[np.float64] | None
    data: Spooled | None = None
    gain_db: float = 0.0


@dataclass
class VideoRecord:
    """What came of one video: its segments, or why there are none."""

    video: Video
    etag: str | None = None
    bytes_in: int = 0
    media: Media | None = None
    decoded_s: float = 0.0
    clips: int = 0
    times: str | None = None
    fingerprint: bytes | None = None
    segments: list[SegmentRecord] = field(default_factory=list)
    failure: DeadLetter | None = None


class ShardFiles:
    """Collects a shard's videos, in the plan's order, into files in a scratch folder."""

    def __init__(self, shard: Shard, config: RunConfig, folder: Path) -> None:
        self.shard = shard
        self.config = config
        self.folder = folder
        self.drops: Counter[str] = Counter()
        self.segments = self.kept = 0
        self.audio_s = self.kept_s = 0.0
        self.dead_letters: list[DeadLetter] = []
        self._digest = config.digest
        self._segment_rows: list[dict[str, Any]] = []
        self._metrics: list[npt.NDArray[np.float64]] = []
        self._video_rows: list[dict[str, Any]] = []
        self._manifest: list[str] = []
        self.spool = Spool(folder / "spool")
        self._tar_file = (folder / "audio").open("wb", buffering=WRITE_BYTES)
        self._tar = tarfile.open(fileobj=self._tar_file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - finish() closes it

    def add(self, record: VideoRecord) -> None:
        """Write a finished video: its samples to the tar, its rows to the tables."""
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
            row["tar_offset"] = self._add_sample(row, metrics, self.spool.read(segment.data))
        self._segment_rows.append(row)
        self._metrics.append(metrics)

    def _add_sample(self, row: dict[str, Any], metrics: npt.NDArray[np.float64], data: bytes) -> int:
        """Append a sample's audio and sidecar to the tar and return the offset of the first byte of the audio."""
        member = row["key"] + SUFFIXES[self.config.audio_format]
        offset = self._add_member(member, data)
        self._add_member(row["key"] + ".json", _sidecar(row, metrics, self.config.sample_rate))
        entry = {
            "audio_filepath": member,
            "duration": row["duration_s"],
            "text": row["text"] or "",
            "lang": row["language"],
            "shard_id": self.shard.index,
        }
        self._manifest.append(json.dumps(entry, ensure_ascii=False) + "\n")
        return offset

    def _add_member(self, name: str, data: bytes) -> int:
        """Append a member to the tar and return the offset of its data: a USTAR header is one block."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(member, io.BytesIO(data))
        return offset

    def finish(self) -> dict[str, Path]:
        """Close the files; the local path of each object by its role. A shard with nothing kept has no tar."""
        self._tar.close()
        self._tar_file.close()
        self._write_table("segments", self._segment_table())
        self._write_table("videos", pa.Table.from_pylist(self._video_rows, VIDEOS_SCHEMA))
        (self.folder / "manifest").write_text("".join(self._manifest), encoding="utf-8")
        roles = ["segments", "videos"] if not self.kept else ["audio", "segments", "videos", "manifest"]
        return {role: self.folder / role for role in roles}

    def _segment_table(self) -> pa.Table:
        described = pa.schema([item for item in SEGMENTS_SCHEMA if item.name not in METRIC_NAMES])
        columns = dict(zip(described.names, pa.Table.from_pylist(self._segment_rows, described).columns, strict=True))
        values = np.array(self._metrics, dtype=np.float32).reshape(-1, len(METRIC_NAMES))
        columns |= {name: pa.array(values[:, number]) for number, name in enumerate(METRIC_NAMES)}
        return pa.table([columns[name] for name in SEGMENTS_SCHEMA.names], SEGMENTS_SCHEMA)

    def _write_table(self, role: str, table: pa.Table) -> None:
        pq.write_table(table, self.folder / role, compression="zstd")

    def close(self) -> None:
        """Let go of the open files, finished or not."""
        self._tar_file.close()
        self.spool.close()


def _segment_row(record: VideoRecord, segment: SegmentRecord, shard: int, digest: str) -> dict[str, Any]:
    media = record.media
    assert media is not None, "a video with segments has been probed"
    return {
        "key": sample_key(record.video.video_id, segment.index),
        "video_id": record.video.video_id,
        "language": record.video.language,
        "shard": shard,
        "segment": segment.index,
        "start_s": segment.span.start_s,
        "end_s": segment.span.end_s,
        "duration_s": segment.duration_s,
        "text": segment.span.text,
        "speaker": segment.span.speaker,
        "segment_times": record.times,
        "kept": segment.data is not None,
        "drop_reason": segment.drop_reason,
        "tar_offset": None,
        "audio_bytes": None if segment.data is None else segment.data.size,
        "source_uri": record.video.uri,
        "source_etag": record.etag,
        "container": media.container,
        "codec": media.codec,
        "source_rate_hz": media.sample_rate_hz,
        "source_channels": media.channels,
        "gain_db": segment.gain_db,
        "config_digest": digest,
        "version": __version__,
    }


def _video_row(record: VideoRecord, shard: int) -> dict[str, Any]:
    media, failure = record.media, record.failure
    return {
        "video_id": record.video.video_id,
        "language": record.video.language,
        "shard": shard,
        "uri": record.video.uri,
        "attempts": record.video.attempts,
        "status": "failed" if failure else "done",
        "error_stage": failure.stage if failure else None,
        "error_type": failure.error_type if failure else None,
        "error_message": failure.message if failure else None,
        "retriable": failure.retriable if failure else None,
        "duration_s": record.decoded_s,
        "declared_s": media.declared_s if media else record.video.duration_s,
        "container": media.container if media else None,
        "codec": media.codec if media else None,
        "source_rate_hz": media.sample_rate_hz if media else None,
        "source_channels": media.channels if media else None,
        "source_bytes": record.bytes_in,
        "source_etag": record.etag,
        "segments": len(record.segments),
        "segments_kept": sum(segment.data is not None for segment in record.segments),
        "fingerprint": None if failure else record.fingerprint,
    }


def _sidecar(row: dict[str, Any], metrics: npt.NDArray[np.float64], sample_rate_hz: int) -> bytes:
    """The JSON beside a sample. JSON has no NaN and no infinity: a metric that does not exist is null."""
    body = {name: value for name, value in row.items() if name not in NOT_IN_SIDECAR}
    body["sample_rate_hz"] = sample_rate_hz
    for name, value in zip(METRIC_NAMES, metrics.tolist(), strict=True):
        body[name] = float(f"{value:.6g}") if math.isfinite(value) else None
    return json.dumps(body, ensure_ascii=False).encode()
