"""Check that a worker can work: process a known-good video through all stages, and look at its disk and memory.

A failure on a worker may be the video's, the store's or the worker's. If the worker cannot process a video whose answer
is known, it is the worker's, whatever the error looked like. The sample is made when it is needed: a few seconds of
sounds like those of speech, as FLAC in a tar with two segments.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from audiopipe.config import RunConfig
from audiopipe.dataset.schema import object_names
from audiopipe.errors import BrokenWorker, WorkerFailure
from audiopipe.media.encode import encode
from audiopipe.pipeline.scratch import scratch_folder
from audiopipe.pipeline.shard import process_shard
from audiopipe.pipeline.worker_errors import to_worker_failure
from audiopipe.types import Shard, Video

__all__ = ["MIN_FREE_BYTES", "check_worker", "require_sound_worker"]

SAMPLE_RATE_HZ, SAMPLE_S = 16_000, 3.0
SEGMENTS = [{"start": 0.2, "end": 1.4, "text": "one"}, {"start": 1.5, "end": 2.7, "text": "two"}]
# Of the segments, by the reference implementation of the tests; a device that computes something else is broken.
LOUDNESS_LUFS, MAX_ERROR_LU = (-19.43, -19.627), 0.1
MIN_FREE_BYTES = 64 << 20
SHARED_MEMORY = Path("/dev/shm")
SHARED_BYTES = 1 << 20
# Fields that decide how a worker works; the thresholds of a run could drop the sample.
CHECKED_FIELDS = ("device", "scratch", "sample_rate", "audio_format")
# Small, and a memory budget that the worker's shards do not share: the sample must not wait for them.
LIMITS = {"batch_mb": 8, "batch_queue_mb": 8, "memory_mb": 25}


def require_sound_worker(config: RunConfig) -> None:
    """Raise the `WorkerFailure` of `check_worker`, if there is one."""
    if failure := check_worker(config):
        raise failure


def check_worker(config: RunConfig, needed_bytes: int = MIN_FREE_BYTES) -> WorkerFailure | None:
    """Check this worker, and return the reason why it cannot work, which is confirmed thereby; None if it can.

    Args:
        needed_bytes: free space that the scratch disk must have.
    """
    failure = _find_failure(config, needed_bytes)
    if failure is not None:
        failure.is_confirmed = True
    return failure


def _find_failure(config: RunConfig, needed_bytes: int) -> WorkerFailure | None:
    try:
        with scratch_folder("self-check", config.scratch) as folder:
            return _check_space(folder, needed_bytes) or _check_sample(folder, config)
    except Exception as error:  # noqa: BLE001 - whatever a known-good video causes is the worker's
        return to_worker_failure(error) or WorkerFailure(
            f"a known-good video fails on it: {type(error).__name__}: {error}"
        )


def _check_space(folder: Path, needed_bytes: int) -> WorkerFailure | None:
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        return BrokenWorker(
            f"scratch folder {folder.parent} has {free >> 20} MB free and needs {needed_bytes >> 20} MB; free some "
            "space, or name another folder (parameter scratch)"
        )
    try:
        if SHARED_MEMORY.is_dir():
            with tempfile.TemporaryFile(dir=SHARED_MEMORY) as file:
                os.posix_fallocate(file.fileno(), 0, SHARED_BYTES)
    except OSError as error:
        return BrokenWorker(f"shared memory {SHARED_MEMORY} cannot be used: {error.strerror}; free or enlarge it")
    return None


def _check_sample(folder: Path, config: RunConfig) -> WorkerFailure | None:
    """Process the sample as a run would, and compare the result with what is known."""
    tar = folder / "sample.tar"
    tar.write_bytes(_sample_tar())
    output = folder / "output"
    fields = {name: getattr(config, name) for name in CHECKED_FIELDS}
    thresholds = dict.fromkeys(("min_snr_db", "max_silence_ratio", "min_loudness_lufs", "max_clipping_ratio"))
    settings = RunConfig.of(catalog=str(tar), output=str(output), segments="json", **fields, **thresholds, **LIMITS)
    video = Video("sample", "en", str(tar), tar.stat().st_size, SAMPLE_S)
    result = process_shard(Shard("en", 0, 0, (video,)), settings, "self-check", "self-check")
    if result.dead_letters:
        letter = result.dead_letters[0]
        return WorkerFailure(f"a known-good video fails on it: {letter.error_type}: {letter.message}")
    rows = pq.read_table(output / object_names("en", 0)["segments"], columns=["kept", "loudness_lufs"]).to_pylist()
    measured = [row["loudness_lufs"] if row["kept"] else None for row in rows]
    is_right = len(measured) == len(SEGMENTS) and all(
        value is not None and abs(value - known) < MAX_ERROR_LU
        for value, known in zip(measured, LOUDNESS_LUFS, strict=True)
    )
    if not is_right:
        return WorkerFailure(f"it computes wrong values: loudness {measured} of segments that have {LOUDNESS_LUFS}")
    return None


@cache
def _sample_tar() -> bytes:
    """Return the tar of the sample."""
    buffer = io.BytesIO()
    members = {
        "sample.flac": encode(_sample(), SAMPLE_RATE_HZ, "flac"),
        "sample.json": json.dumps({"segments": SEGMENTS}).encode(),
    }
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _sample() -> npt.NDArray[np.int16]:
    """Make [T] int16 like speech: harmonics of a gliding pitch, shaped by formants, four syllables a second."""
    t = np.arange(round(SAMPLE_S * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    pitch_hz = 120 + 20 * np.sin(2 * np.pi * 0.7 * t)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / SAMPLE_RATE_HZ
    sound = np.zeros_like(t)
    for harmonic in range(1, 30):
        formants = sum(np.exp(-(((harmonic * pitch_hz - hertz) / 180) ** 2)) for hertz in (500, 1500, 2500))
        sound += (0.02 + formants) * np.sin(harmonic * phase)
    syllables = 0.55 + 0.45 * np.sin(2 * np.pi * 4 * t)
    return np.round(0.08 * 32767 * syllables * sound).clip(-32768, 32767).astype(np.int16)
