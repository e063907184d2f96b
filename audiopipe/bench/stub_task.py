"""Tasks that commit shards without processing them, for benchmarks of everything else."""

from __future__ import annotations

import tempfile
import zlib
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.config import RunConfig
from audiopipe.dataset.commit import Commit, commit_shard, upload
from audiopipe.dataset.fingerprints import MAX_EVENTS
from audiopipe.dataset.schema import VIDEOS_SCHEMA, object_names
from audiopipe.store.objects import Store
from audiopipe.types import DeadLetter, Shard, ShardResult

__all__ = ["SEGMENT_S", "VIDEO_SEGMENTS", "stub_objects", "stub_shard"]

VIDEO_SEGMENTS, SEGMENT_S = 207, 5.0  # of each video, as in the plan document
STUB_BYTES = 1024


def stub_shard(shard: Shard, config: RunConfig, run_id: str, worker: str) -> ShardResult:
    """Commit a shard without processing it: counts as of real speech, one dead letter, no objects."""
    return commit_shard(Store(config.output), Commit(_stub_result(shard, run_id, worker), (), config.digest))


def _stub_result(shard: Shard, run_id: str, worker: str) -> ShardResult:
    """Invent the result of a shard: counts as of real speech, and one dead letter."""
    now = datetime.now(UTC).isoformat()
    count = len(shard.videos)
    segments = (count - 1) * VIDEO_SEGMENTS
    letter = DeadLetter(shard.videos[0].video_id, shard.language, "decode", "NoAudio", "stub")
    return ShardResult(
        shard=shard.name,
        language=shard.language,
        partition=shard.partition,
        attempt=f"bench-{shard.name}",
        run_id=run_id,
        worker=worker,
        videos=count,
        videos_failed=1,
        segments=segments,
        segments_kept=segments - segments // 10,
        drops={"noisy": segments // 10},
        audio_s=segments * SEGMENT_S,
        kept_s=(segments - segments // 10) * SEGMENT_S,
        bytes_in=sum(video.size_bytes or 0 for video in shard.videos),
        bytes_out=segments * 80_000,
        stage_s={"fetch": 1.0, "decode": 2.0, "score": 1.0, "encode": 1.0},
        wall_s=0.0,
        started_at=now,
        finished_at=now,
        dead_letters=(letter,),
    )


def stub_objects(shard: Shard, config: RunConfig, run_id: str, worker: str) -> ShardResult:
    """Commit a shard without processing it: four small objects, of which the table of videos has fingerprints."""
    store, result = Store(config.output), _stub_result(shard, run_id, worker)
    names = object_names(shard.language, shard.index)
    with tempfile.TemporaryDirectory(prefix="audiopipe-stub-") as folder:
        files = {names[role]: Path(folder, role) for role in ("audio", "segments", "videos", "manifest")}
        for path in files.values():
            path.write_bytes(bytes(STUB_BYTES))
        pq.write_table(_video_rows(shard), files[names["videos"]])
        sample = f'{{"audio_filepath": "{shard.videos[-1].video_id}_00000.flac", "duration": 5.0}}\n'
        files[names["manifest"]].write_text(sample, encoding="utf-8")
        objects = upload(store, shard.name, result.attempt, files)
    return commit_shard(store, Commit(result, objects, config.digest))


def _video_rows(shard: Shard) -> pa.Table:
    """Return a row for each video, with a fingerprint that has nothing in common with others."""
    rng = np.random.default_rng(zlib.crc32(shard.name.encode()))
    events = np.sort(rng.integers(0, 1 << 32, (len(shard.videos), MAX_EVENTS), np.uint32), axis=1)
    columns = {
        "video_id": [video.video_id for video in shard.videos],
        "language": [shard.language] * len(shard.videos),
        "shard": [shard.index] * len(shard.videos),
        "segments_kept": [0, *[1] * (len(shard.videos) - 1)],
        "duration_s": [video.duration_s for video in shard.videos],
        "fingerprint": [row.astype("<u4").tobytes() for row in events],
    }
    return pa.table(columns, schema=pa.schema([VIDEOS_SCHEMA.field(name) for name in columns]))
