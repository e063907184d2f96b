"""Turn a list of segments into a committed shard of a selection: copy their samples from the parent's tars.

A sample is copied as it is: the headers, the audio and the sidecar have the parent's bytes, so that a sidecar's `shard`
is the parent's. Neighbors in the parent are copied together. Tables and manifest are new.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.config import RunConfig
from audiopipe.dataset.commit import Commit, CommittedObject, commit_shard, part_name, publish, read_commit, upload
from audiopipe.dataset.run_record import RunRecord, read_run_record, read_schema
from audiopipe.dataset.sample_order import SampleOrder
from audiopipe.dataset.schema import is_audio_tar, is_number, object_names
from audiopipe.dataset.select_lists import ShardList, read_list
from audiopipe.dataset.selection import Selection, read_selection
from audiopipe.errors import VerifyError
from audiopipe.media.encode import SUFFIXES
from audiopipe.pipeline.sample_reader import Extent, SampleReader, open_samples, sample_size
from audiopipe.pipeline.scratch import scratch_folder
from audiopipe.pipeline.timing import StageTimer
from audiopipe.pipeline.worker_errors import raise_worker_failures
from audiopipe.store.objects import Store
from audiopipe.types import Shard, ShardResult

__all__ = ["copy_shard"]

COPY_BYTES = 512 << 10  # of neighbors that are copied together: more would leave the cache before they are written


def copy_shard(shard: Shard, config: RunConfig, run_id: str, worker: str = "local") -> ShardResult:
    """Copy and commit one shard; if it is committed already, only publish the commit again.

    Raises:
        VerifyError: a tar of the parent is damaged or missing, or the shard's list is; nothing is committed.
        TransientError, OSError: something outside failed; nothing is committed, and the shard may be tried again.
    """
    store = Store(config.output)
    if commit := read_commit(store, shard.name):
        publish(store, commit)
        return commit.result
    record = read_run_record(store)
    selection = read_selection(record)
    assert selection is not None, "the driver gives shards of selections only"
    started_at, timer = datetime.now(UTC), StageTimer()
    with ExitStack() as stack:
        stack.enter_context(raise_worker_failures())
        folder = stack.enter_context(scratch_folder(shard.name, config.scratch))
        shard_list = read_list(store, shard.name)
        job = _CopyJob(shard, store, record, selection, shard_list, folder, timer)
        objects, bytes_in = job.run()
        count, seconds = shard_list.segments.num_rows, sum(shard_list.segments["duration_s"].to_pylist())
        result = ShardResult(
            shard=shard.name,
            language=shard.language,
            partition=shard.partition,
            attempt=job.attempt,
            run_id=run_id,
            worker=worker,
            videos=shard_list.new_videos,
            videos_failed=0,
            segments=count,
            segments_kept=count,
            drops={},
            audio_s=round(seconds, 3),
            kept_s=round(seconds, 3),
            bytes_in=bytes_in,
            bytes_out=sum(item.size for item in objects),
            stage_s=timer.seconds(),
            stage_cpu_s=timer.cpu_seconds(),
            stage_items=timer.items(),
            wall_s=round(timer.wall_s, 3),
            started_at=started_at.isoformat(),
            finished_at=datetime.now(UTC).isoformat(),
        )
        return commit_shard(store, Commit(result, objects, record.config_digest))


class _Sample(NamedTuple):
    """A sample to copy: its row, its key, the size of its audio, and its range in the parent."""

    row: int
    key: str
    audio_bytes: int
    extent: Extent


@dataclass
class _CopyJob:
    """One attempt at a shard."""

    shard: Shard
    store: Store
    record: RunRecord
    selection: Selection
    shard_list: ShardList
    folder: Path
    timer: StageTimer
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        self.names = object_names(self.shard.language, self.shard.index)
        self.suffix = SUFFIXES[self.record.audio_format]

    def run(self) -> tuple[tuple[CommittedObject, ...], int]:
        """Write and upload the objects; return them and the number of bytes read from the parent's tars."""
        segments = self.shard_list.segments
        samples = self._samples()
        tars, bytes_in = [], 0
        rows = [sample.row for sample in samples]
        if self.selection.options.virtual:
            offsets = segments["tar_offset"].to_pylist()
        else:
            tar, offsets_in_order = self._copy(samples)
            tars, bytes_in = [tar], tar.size
            offsets = [0] * len(samples)
            for row, offset in zip(rows, offsets_in_order, strict=True):
                offsets[row] = offset
        position = segments.schema.get_field_index("tar_offset")
        segments = segments.set_column(position, segments.schema.field(position), pa.array(offsets, pa.int64()))
        schema = read_schema(self.record)
        segments = segments.select(schema.names).cast(schema)
        with self.timer.measure("write", items=0):
            pq.write_table(segments, self.folder / "segments", compression="zstd")
            pq.write_table(self.shard_list.videos, self.folder / "videos", compression="zstd")
            manifest = "".join(self._manifest_lines(segments, rows))
            (self.folder / "manifest").write_text(manifest, encoding="utf-8")
        files = {self.names[role]: self.folder / role for role in ("segments", "videos", "manifest")}
        with self.timer.measure("upload"):
            return (*tars, *upload(self.store, self.shard.name, self.attempt, files)), bytes_in

    def _samples(self) -> list[_Sample]:
        """Return the samples in the order of the tar, which begins with samples that have all metrics between them."""
        segments = self.shard_list.segments
        names = ("key", "parent_tar", "parent_offset", "audio_bytes")
        columns = zip(*(segments[name].to_pylist() for name in names), self.shard_list.sample_bytes, strict=True)
        samples = [
            _Sample(row, key, audio_bytes, Extent.of(tar, offset, audio_bytes, size))
            for row, (key, tar, offset, audio_bytes, size) in enumerate(columns)
        ]
        if self.selection.options.virtual:
            return samples
        scores = [column for scorer in self.record.scorers for column in scorer.columns]
        metrics = [column.name for column in (*scores, *self.record.catalog_columns) if is_number(column.type)]
        present = np.column_stack([segments[name].is_valid().to_numpy() for name in metrics])
        order: SampleOrder[_Sample] = SampleOrder(metrics)
        ordered = [
            ready
            for sample in samples
            for ready in order.add(sample, (metrics[column] for column in np.flatnonzero(present[sample.row])))
        ]
        return [*ordered, *order.finish()]

    def _copy(self, samples: Sequence[_Sample]) -> tuple[CommittedObject, list[int]]:
        """Write the tar where it can be published from; return its object and the offset of each sample's audio."""
        name = part_name(self.shard.name, self.attempt, self.names["audio"])
        local = self.store.local_folder
        path = self.folder / "audio" if local is None else local / name
        path.parent.mkdir(parents=True, exist_ok=True)
        parent = Store(self.selection.url)
        extents = [sample.extent for sample in samples]
        with (
            open_samples(parent, extents, self.shard_list.tars, self.folder, self.timer) as reader,
            path.open("wb", buffering=0) as file,
        ):
            writer = _TarWriter(file)
            for group in _neighbors(samples):
                self._copy_group(group, reader, writer)
            size, sha256 = writer.finish()
        if local is None:
            with self.timer.measure("upload"):
                self.store.upload(path, name)
            path.unlink()
        return CommittedObject(name, self.names["audio"], size, sha256), writer.offsets

    def _copy_group(self, group: Sequence[_Sample], reader: SampleReader, writer: _TarWriter) -> None:
        first, last = group[0].extent, group[-1].extent
        data = memoryview(reader.read(first.tar, first.start, last.end - first.start))
        start, offsets = 0, []
        for sample in group:
            try:
                size = sample_size(data[start:], sample.key, self.suffix, sample.audio_bytes)
                if size > len(data) and not sample.extent.is_exact:  # its sidecar is larger than was expected
                    data = memoryview(reader.read(first.tar, first.start, size))
                    size = sample_size(data, sample.key, self.suffix, sample.audio_bytes)
                if size > len(data) - start:
                    raise ValueError(f"the sidecar of {sample.key} is not whole")
                if sample.extent.is_exact and size != sample.extent.size:
                    raise ValueError(f"the next sample does not begin where that of {sample.key} ends")
            except ValueError as error:
                raise VerifyError(f"{first.tar} of the parent is damaged: {error}") from None
            offsets.append(start + tarfile.BLOCKSIZE)
            start += size
        with self.timer.measure("write", items=len(group)):
            writer.append(data[:start], offsets)

    def _manifest_lines(self, segments: pa.Table, rows: Sequence[int]) -> Iterator[str]:
        """Yield the lines of the NeMo manifest; of a virtual selection, those of the parent's tars of kept segments."""
        names = ("key", "duration_s", "text", "language", "shard", "split", "parent_tar")
        columns: list[list[Any]] = [segments[name].to_pylist() for name in names]
        for row in rows:
            key, duration, text, language, index, split, tar = (column[row] for column in columns)
            if self.selection.options.virtual and not is_audio_tar(tar):
                continue
            entry = {
                "audio_filepath": key + self.suffix,
                "duration": duration,
                "text": text or "",
                "lang": language,
                "shard_id": index,
            }
            if split is not None:
                entry["split"] = split
            yield json.dumps(entry, ensure_ascii=False) + "\n"


class _TarWriter:
    """Appends whole samples to a tar, and computes its sha256."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._size = 0
        self.offsets: list[int] = []

    def append(self, data: bytes | memoryview, offsets: Sequence[int]) -> None:
        """Append samples.

        Args:
            offsets: positions of their audio in the data.
        """
        self.offsets.extend(self._size + offset for offset in offsets)
        self._write(data)

    def finish(self) -> tuple[int, str]:
        """Write the end of the tar as `tarfile` does, sync it, and return its size and sha256."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        self._write(bytes(-self._size % tarfile.RECORDSIZE))
        os.fsync(self._file.fileno())
        return self._size, self._digest.hexdigest()

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]
        self._digest.update(data)
        self._size += len(data)


def _neighbors(samples: Sequence[_Sample]) -> Iterator[list[_Sample]]:
    """Yield runs of samples that follow each other in their tar."""
    group: list[_Sample] = []
    for sample in samples:
        last = group[-1].extent if group else None
        if last is not None and not (
            last.is_exact
            and sample.extent.is_exact
            and (last.tar, last.end) == (sample.extent.tar, sample.extent.start)
            and sample.extent.end - group[0].extent.start <= COPY_BYTES
        ):
            yield group
            group = []
        group.append(sample)
    if group:
        yield group
