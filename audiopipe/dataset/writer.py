"""Write a shard's files to local scratch: the WebDataset tar, the Parquet tables and the NeMo manifest.

The same records give the same bytes: times in tar headers are 0, tables are written in one piece, and nothing here
reads a clock. `commit.py` brings the files to their store.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.config import RunConfig
from audiopipe.dataset.records import Metrics, Row, SegmentRecord, VideoRecord, finite, segment_row, video_row
from audiopipe.dataset.sample_tar import SampleTar
from audiopipe.dataset.schema import METRIC_NAMES, VIDEOS_SCHEMA, CatalogColumn, is_number, segments_schema
from audiopipe.dataset.sidecar import serialize_sidecar, sidecar_types
from audiopipe.dataset.spool import Spool, SpoolRange
from audiopipe.media.encode import SUFFIXES
from audiopipe.scorers.scorer import Column
from audiopipe.types import DeadLetter, Shard, Value, VideoInfo

__all__ = ["SegmentRecord", "ShardFiles", "VideoRecord"]


class _Sample(NamedTuple):
    """A segment with audio: its row, its scores, its encoded audio, and the fields of its video for the sidecar."""

    row: Row
    scores: Mapping[str, Value]
    data: SpoolRange
    info: VideoInfo | None


class ShardFiles:
    """Writes a shard's videos, which are added in the plan's order, to files in a scratch folder.

    Args:
        columns: those of the scorers, `signal` first, and those of the catalog.
    """

    def __init__(self, shard: Shard, config: RunConfig, folder: Path, columns: Sequence[Column]) -> None:
        self.shard = shard
        self.config = config
        self.folder = folder
        self.drops: Counter[str] = Counter()
        self.segments = self.kept = 0
        self.audio_s = self.kept_s = 0.0
        self.dead_letters: list[DeadLetter] = []
        self.spool = Spool(folder / "spool")
        self.digest = config.digest
        self._segment_rows: list[Row] = []
        self._metrics: list[Metrics] = []
        self._scores: list[Mapping[str, Value]] = []
        stored = [column for column in columns if column.stored]
        self._kept = [column.name for column in stored if isinstance(column, CatalogColumn)]
        self._columns = [column for column in stored if column.name not in (*METRIC_NAMES, *self._kept)]
        self._schema = segments_schema(columns)
        self._sidecar_types = sidecar_types(columns, config.sidecar_info)
        self._video_rows: list[Row] = []
        self._manifest: list[str] = []
        numbers = [column.name for column in stored if is_number(column.type)]
        self._tar = SampleTar(folder / "audio", self._write_sample, numbers)
        self._dropped = SampleTar(folder / "dropped", self._write_sample, numbers)

    def add(self, record: VideoRecord) -> None:
        """Write a complete video: its samples to the tar, its rows to the tables."""
        self.audio_s += record.decoded_s
        if record.failure is not None:
            self.dead_letters.append(record.failure)
            record.segments = []
        for segment in record.segments:
            self._add_segment(record, segment)
        self._video_rows.append(video_row(record, self.shard.index))

    def _add_segment(self, record: VideoRecord, segment: SegmentRecord) -> None:
        row = segment_row(record, segment, self.shard.index, self.digest)
        row |= {name: segment.span.values.get(name, record.video.values.get(name)) for name in self._kept}
        metrics = np.full(len(METRIC_NAMES), np.nan) if segment.metrics is None else segment.metrics
        self.segments += 1
        if segment.drop_reason is not None:
            self.drops[segment.drop_reason] += 1
        else:
            self.kept += 1
            self.kept_s += segment.duration_s
        if segment.data is not None:
            scores: dict[str, Value] = dict(zip(METRIC_NAMES, map(finite, metrics.tolist()), strict=True))
            scores |= {column.name: segment.scores.get(column.name) for column in self._columns}
            sample = _Sample(row, scores, segment.data, record.info if self.config.sidecar_info else None)
            tar = self._tar if row["kept"] else self._dropped
            present = [name for name, value in (scores | row).items() if value is not None]
            tar.add(sample, present)
        self._segment_rows.append(row)
        self._metrics.append(metrics)
        self._scores.append(segment.scores)

    def _write_sample(self, tar: SampleTar[_Sample], sample: _Sample) -> None:
        """Append the audio and the sidecar of a sample to its tar, and the offset of its audio to its row."""
        row = sample.row
        member = row["key"] + SUFFIXES[self.config.audio_format]
        row["tar_offset"] = tar.append(member, self.spool.read(sample.data))
        sidecar = serialize_sidecar(self._sidecar_types, row, sample.scores, self.config.sample_rate, sample.info)
        tar.append(row["key"] + ".json", sidecar)
        if not row["kept"]:
            return
        entry = {
            "audio_filepath": member,
            "duration": row["duration_s"],
            "text": row["text"] or "",
            "lang": row["language"],
            "shard_id": self.shard.index,
        }
        self._manifest.append(json.dumps(entry, ensure_ascii=False) + "\n")

    def finish(self) -> dict[str, Path]:
        """Finish the files and return their local paths by role. A shard with nothing kept has no tar of it."""
        self._tar.finish()
        self._dropped.finish()
        self._write_table("segments", self._segment_table())
        self._write_table("videos", pa.Table.from_pylist(self._video_rows, VIDEOS_SCHEMA))
        (self.folder / "manifest").write_text("".join(self._manifest), encoding="utf-8")
        roles = ["audio", "segments", "videos", "manifest"] if self.kept else ["segments", "videos"]
        roles += ["dropped"] if self._dropped.samples else []
        return {role: self.folder / role for role in roles}

    def _segment_table(self) -> pa.Table:
        names = {*METRIC_NAMES, *(column.name for column in self._columns)}
        schema = pa.schema([field for field in self._schema if field.name not in names])
        columns = dict(zip(schema.names, pa.Table.from_pylist(self._segment_rows, schema).columns, strict=True))
        values = np.array(self._metrics, dtype=np.float32).reshape(-1, len(METRIC_NAMES))
        missing = ~np.isfinite(values)
        columns |= {
            name: pa.array(values[:, number], mask=missing[:, number]) for number, name in enumerate(METRIC_NAMES)
        }
        columns |= {
            column.name: pa.array(
                [scores.get(column.name) for scores in self._scores], self._schema.field(column.name).type
            )
            for column in self._columns
        }
        return pa.table([columns[name] for name in self._schema.names], self._schema)

    def _write_table(self, role: str, table: pa.Table) -> None:
        pq.write_table(table, self.folder / role, compression="zstd")

    def close(self) -> None:
        """Close the open files, finished or not."""
        self._tar.close()
        self._dropped.close()
        self.spool.close()
