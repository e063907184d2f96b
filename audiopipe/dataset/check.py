"""Whether a shard's objects agree with one another, with its plan and with its commit, given that none is damaged."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

import soundfile as sf

from audiopipe.dataset.commit import Commit
from audiopipe.dataset.schema import object_names
from audiopipe.media.encode import SUFFIXES
from audiopipe.store.parquet import read_table
from audiopipe.types import Shard

__all__ = ["check_shard"]

# Encoders pad to whole frames: Opus by up to 20 ms, MP3 by two frames.
PADDING_S = 0.1

Rows = list[dict[str, Any]]


def check_shard(shard: Shard, commit: Commit, bodies: Mapping[str, bytes], audio_format: str) -> Iterator[str]:
    """What disagrees.

    Args:
        bodies: the bytes of the shard's objects by their final names.
    """
    roles = {name: role for role, name in object_names(shard.language, shard.index).items()}
    files = {roles[name]: body for name, body in bodies.items() if name in roles}
    if len(files) < len(bodies) or not {"videos", "segments"} <= files.keys():
        yield "its commit does not name the objects of a shard"
        return
    videos = read_table(files["videos"]).to_pylist()
    segments = read_table(files["segments"]).to_pylist()
    kept = [row for row in segments if row["kept"]]
    suffix = SUFFIXES[audio_format]
    yield from _tables(shard, commit, videos, segments)
    entries = [json.loads(line) for line in files.get("manifest", b"").splitlines()]
    if [entry["audio_filepath"] for entry in entries] != [row["key"] + suffix for row in kept]:
        yield "its manifest does not list the segments that were kept"
    if kept or "audio" in files:
        yield from _tar(files.get("audio", b""), kept, suffix)


def _tables(shard: Shard, commit: Commit, videos: Rows, segments: Rows) -> Iterator[str]:
    result = commit.result
    if [(row["video_id"], row["uri"]) for row in videos] != [(video.video_id, video.uri) for video in shard.videos]:
        yield "its videos are not the plan's"
    counts: dict[str, int] = {}
    for row in segments:
        counts[row["video_id"]] = counts.get(row["video_id"], 0) + 1
    if {row["video_id"]: row["segments"] for row in videos if row["segments"]} != counts:
        yield "its videos and its segments differ in number"
    if (len(segments), sum(row["kept"] for row in segments)) != (result.segments, result.segments_kept):
        yield "its commit and its segments differ in number"
    failed = {row["video_id"] for row in videos if row["status"] == "failed"}
    if failed != {letter.video_id for letter in result.dead_letters}:
        yield "its commit and its table name different failed videos"


def _tar(body: bytes, kept: Rows, suffix: str) -> Iterator[str]:
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    if list(members) != [row["key"] + ending for row in kept for ending in (suffix, ".json")]:
        yield "its tar does not hold the segments that were kept"
        return
    for row in kept:
        audio, about = members[row["key"] + suffix], json.loads(members[f"{row['key']}.json"])
        duration_s = float(sf.info(io.BytesIO(audio)).duration)
        if abs(duration_s - row["duration_s"]) > PADDING_S or about["start_s"] != row["start_s"]:
            yield f"sample {row['key']} is not the segment that its row describes"
