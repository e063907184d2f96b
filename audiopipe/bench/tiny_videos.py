"""Make very small videos in an object store, and a stub task that commits very small objects."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import wave
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.bench.scale import stub_result
from audiopipe.config import RunConfig
from audiopipe.dataset.commit import Commit, commit_shard, upload
from audiopipe.dataset.schema import VIDEOS_SCHEMA, object_names
from audiopipe.kernels.fingerprint import MAX_EVENTS
from audiopipe.store.objects import Store
from audiopipe.types import Shard, ShardResult

__all__ = ["SETTINGS", "stub_objects", "upload_videos"]

SECONDS, RATE_HZ = 0.5, 8_000
STUB_BYTES = 1024
BATCH = 256  # videos in memory
# Noise must not be dropped.
SETTINGS = {"min_snr_db": None, "max_silence_ratio": None}


def upload_videos(store: Store, videos: int, languages: int, folder: Path) -> Path:
    """Upload tars of half a second of noise with one segment; return the path of their catalog in a local folder."""
    names = [f"{number:08d}.tar" for number in range(videos)]
    for start in range(0, videos, BATCH):
        bodies = {store.path(name): _make_tar(int(name[:8])) for name in names[start : start + BATCH]}
        store.fs.pipe(bodies)
    columns = {
        "youtube_id": [f"v{number:010d}" for number in range(videos)],
        "language": [f"l{number % languages:02d}" for number in range(videos)],
        "status": ["COMPLETED"] * videos,
        "r2_tar_key": [f"{store.url}/{name}" for name in names],
        "size_bytes": [len(_make_tar(0))] * videos,
        "duration_s": [SECONDS] * videos,
    }
    pq.write_table(pa.table(columns), folder / "videos.parquet")
    return folder / "videos.parquet"


def _make_tar(number: int) -> bytes:
    """Return a tar of a WAV file with noise, and of a JSON file with one segment."""
    noise = np.random.default_rng(number).normal(0, 3000, int(SECONDS * RATE_HZ)).astype("<i2")
    audio, buffer = io.BytesIO(), io.BytesIO()
    with wave.open(audio, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(noise.tobytes())
    segments = {"segments": [{"start": 0.0, "end": SECONDS, "text": f"video {number}"}]}
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in (("audio.wav", audio.getvalue()), ("audio.json", json.dumps(segments).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def stub_objects(shard: Shard, config: RunConfig, run_id: str, worker: str) -> ShardResult:
    """Commit a shard without processing it: four small objects, of which the table of videos has fingerprints."""
    store, result = Store(config.output), stub_result(shard, run_id, worker)
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
