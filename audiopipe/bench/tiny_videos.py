"""Make a catalog of very small videos in an object store."""

from __future__ import annotations

import io
import json
import tarfile
import wave
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.store.objects import Store

__all__ = ["SETTINGS", "upload_videos"]

SECONDS, RATE_HZ = 0.5, 8_000
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
