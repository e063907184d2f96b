"""Build results to record; every number follows from the arguments, so that sums can be computed by hand."""

from __future__ import annotations

from typing import Any

from audiopipe.types import DeadLetter, ShardResult

RUN = "3f1e7a52-7f0e-4c0c-9d5c-0a8a4a3f6d11"


def shard_result(index: int, language: str = "de", *, videos: int = 10, failed: int = 0, **changes: Any) -> ShardResult:
    """Build a shard with 20 segments and 100 s in each good video; every fourth segment is dropped."""
    letters = [DeadLetter(f"bad{index}-{n}", language, "decode", "NoAudio", "no audio stream") for n in range(failed)]
    good = videos - failed
    values: dict[str, Any] = {
        "shard": f"{language}-{index:06d}",
        "language": language,
        "partition": 0,
        "attempt": f"attempt-{index}",
        "run_id": RUN,
        "worker": "host-0",
        "videos": videos,
        "videos_failed": failed,
        "segments": 20 * good,
        "segments_kept": 15 * good,
        "drops": {"noisy": 5 * good},
        "audio_s": 100.0 * good,
        "kept_s": 75.0 * good,
        "bytes_in": 1000 * videos,
        "bytes_out": 500 * good,
        "stage_s": {"decode": 2.5, "score": 1.5},
        "wall_s": 3.0,
        "started_at": "2026-11-22T10:00:00+00:00",
        "finished_at": f"2026-11-22T10:{index % 60:02d}:30+00:00",
        "dead_letters": tuple(letters),
    }
    return ShardResult(**{**values, **changes})
