"""Check that the objects of a shard agree with each other, with its plan and with its commit."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
import soundfile as sf

from audiopipe.dataset.commit import Commit
from audiopipe.dataset.schema import object_names
from audiopipe.media.encode import SUFFIXES
from audiopipe.store.parquet import read_table
from audiopipe.types import Seconds, Shard

__all__ = ["check_shard"]

# Encoders pad to whole frames: Opus by up to 20 ms, MP3 by two frames.
PADDING_S = 0.1


@dataclass(frozen=True, slots=True)
class KeptSegment:
    """A kept segment's row in the table."""

    key: str
    start_s: Seconds
    duration_s: Seconds
    tar_offset: int
    audio_bytes: int


def check_shard(shard: Shard, commit: Commit, bodies: Mapping[str, bytes], audio_format: str) -> Iterator[str]:
    """Yield the contradictions between the objects of a shard, given that none of them is damaged.

    Args:
        bodies: the bytes of the shard's objects by their final names.
    """
    roles = {name: role for role, name in object_names(shard.language, shard.index).items()}
    objects = {roles[name]: body for name, body in bodies.items() if name in roles}
    if len(objects) < len(bodies) or not {"videos", "segments"} <= objects.keys():
        yield "its commit does not name the objects of a shard"
        return
    videos, segments = read_table(objects["videos"]), read_table(objects["segments"])
    kept = _kept_segments(segments)
    suffix = SUFFIXES[audio_format]
    yield from _check_tables(shard, commit, videos, segments)
    entries = [json.loads(line) for line in objects.get("manifest", b"").splitlines()]
    if [entry["audio_filepath"] for entry in entries] != [segment.key + suffix for segment in kept]:
        yield "its manifest does not list the kept segments"
    if kept or "audio" in objects:
        yield from _check_tar(objects.get("audio", b""), kept, suffix)


def _kept_segments(segments: pa.Table) -> list[KeptSegment]:
    """Return the kept segments in the order of the tar."""
    rows = segments.filter(segments["kept"])
    names = ("key", "start_s", "duration_s", "tar_offset", "audio_bytes")
    segments_kept = [KeptSegment(*row) for row in zip(*(rows[name].to_pylist() for name in names), strict=True)]
    return sorted(segments_kept, key=lambda segment: segment.tar_offset)


def _check_tables(shard: Shard, commit: Commit, videos: pa.Table, segments: pa.Table) -> Iterator[str]:
    result = commit.result
    ids = videos["video_id"].to_pylist()
    planned = [(video.video_id, video.shown_uri) for video in shard.videos]
    if list(zip(ids, videos["uri"].to_pylist(), strict=True)) != planned:
        yield "its videos differ from the plan's"
    stated = {video_id: count for video_id, count in zip(ids, videos["segments"].to_pylist(), strict=True) if count}
    if stated != Counter(segments["video_id"].to_pylist()):
        yield "its tables of videos and segments differ in the number of segments"
    if (segments.num_rows, sum(segments["kept"].to_pylist())) != (result.segments, result.segments_kept):
        yield "its commit and its table differ in the number of segments"
    failed = set(videos.filter(pa.compute.equal(videos["status"], "failed"))["video_id"].to_pylist())
    if failed != {letter.video_id for letter in result.dead_letters}:
        yield "its commit and its table name different failed videos"


def _check_tar(body: bytes, kept: list[KeptSegment], suffix: str) -> Iterator[str]:
    with tarfile.open(fileobj=io.BytesIO(body)) as tar:
        members = {member.name: member for member in tar}
    if list(members) != [segment.key + ending for segment in kept for ending in (suffix, ".json")]:
        yield "its tar does not hold the kept segments"
        return
    for segment in kept:
        audio, sidecar = members[segment.key + suffix], members[f"{segment.key}.json"]
        if (audio.offset_data, audio.size) != (segment.tar_offset, segment.audio_bytes):
            yield f"sample {segment.key} is not where its row says"
            continue
        metadata = json.loads(body[sidecar.offset_data : sidecar.offset_data + sidecar.size])
        samples = io.BytesIO(body[audio.offset_data : audio.offset_data + audio.size])
        duration_s = float(sf.info(samples).duration)
        if abs(duration_s - segment.duration_s) > PADDING_S or metadata["start_s"] != segment.start_s:
            yield f"sample {segment.key} is not the segment that its row describes"
