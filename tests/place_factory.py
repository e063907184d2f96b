"""Process shards whose sources are in one place or in several, and check who is blamed for what cannot be read."""

import pytest
from factories import config, shard_of

from audiopipe.errors import SourceUnavailable
from audiopipe.pipeline.shard import process_shard
from audiopipe.types import Video

RULES = {"min_loudness_lufs": None, "max_silence_ratio": None, "min_snr_db": None, "segments": "fixed"}


def videos_in(folder, names, tar, missing=()) -> list[Video]:
    """Put videos into a folder, except those that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        if name not in missing:
            (folder / f"{name}.tar").write_bytes(tar)
    return [Video(name, "en", str(folder / f"{name}.tar")) for name in names]


def run(folder, videos, last_attempt=False, index=0, **parameters):
    """Process a shard; return its dead letters' reasons by video."""
    settings = config(output=str(folder / "out"), scratch=str(folder), **RULES | parameters)
    result = process_shard(shard_of(videos, index=index), settings, "run", last_attempt=last_attempt)
    assert result.segments_kept == len(videos) - len(result.dead_letters)
    return {letter.video_id: letter.error_type for letter in result.dead_letters}


def refuses(folder, videos, match, error=SourceUnavailable, **parameters) -> None:
    """Check that a shard is never committed, not even in its last attempt."""
    for last_attempt in (False, True):
        with pytest.raises(error, match=match):
            run(folder, videos, last_attempt, **parameters)
    assert not (folder / "out/_commits").exists()
