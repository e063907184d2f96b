"""Check that the objects of a shard have the bytes of its commit, and agree with each other and with its plan.

The tar is read once, in blocks: its samples are checked while its sha256 is computed.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

import pyarrow as pa
import pyarrow.compute as pc
import soundfile as sf

from audiopipe.dataset.commit import Commit, CommittedObject
from audiopipe.dataset.schema import TAR_URL, object_names
from audiopipe.dataset.tar_stream import HashingReader, read_members
from audiopipe.media.encode import SUFFIXES
from audiopipe.store.objects import Store
from audiopipe.store.parquet import read_table
from audiopipe.types import Seconds, Shard

__all__ = ["ShardCheck", "check_shard"]

# Encoders pad to whole frames: Opus by up to 20 ms, MP3 by two frames.
PADDING_S = 0.1
NOT_THE_SEGMENTS = "its tar does not hold the kept segments"


@dataclass(frozen=True, slots=True)
class TarSegment:
    """The row of a segment that has audio."""

    key: str
    start_s: Seconds
    duration_s: Seconds
    tar_offset: int
    audio_bytes: int


@dataclass
class ShardCheck:
    """The damaged objects of a shard, by the name of each the problem, and contradictions between the others."""

    damaged: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def check_shard(
    store: Store, shard: Shard, commit: Commit, audio_format: str, planned: Sequence[tuple[str, str]]
) -> ShardCheck:
    """Read the objects of a shard and compare them with their commit, with each other and with the plan.

    Args:
        planned: id and address of the videos that it must have.
    """
    roles = {name: role for role, name in object_names(shard.language, shard.index).items()}
    items = {roles[item.name]: item for item in commit.objects if item.name in roles}
    check = ShardCheck()
    if len(items) < len(commit.objects) or not {"videos", "segments"} <= items.keys():
        check.problems.append("its commit does not name the objects of a shard")
        return check
    tars = {role: items.pop(role) for role in ("audio", "dropped") if role in items}
    tables = {role: _read_whole(store, item, check) for role, item in items.items()}
    if check.damaged:
        for item in tars.values():
            _read_whole(store, item, check, keep=False)
        return check
    segments = read_table(tables["segments"])
    kept, dropped = _segments_of_tars(segments)
    suffix = SUFFIXES[audio_format]
    check.problems += _check_tables(planned, commit, read_table(tables["videos"]), segments)
    entries = [json.loads(line) for line in tables.get("manifest", b"").splitlines()]
    if [entry["audio_filepath"] for entry in entries] != [segment.key + suffix for segment in kept]:
        check.problems.append("its manifest does not list the kept segments")
    for role, expected in (("audio", kept), ("dropped", dropped)):
        if role in tars:
            _check_audio(store, tars[role], expected, suffix, check)
        elif expected and TAR_URL not in segments.column_names:
            check.problems.append(NOT_THE_SEGMENTS)
    return check


def _read_whole(store: Store, item: CommittedObject, check: ShardCheck, keep: bool = True) -> bytes:
    """Read an object and compare its sha256.

    Args:
        keep: return its bytes; an object that is not kept takes no memory.
    """
    reader = HashingReader(store.read_blocks(item.name, item.size))
    body = reader.read() if keep else b""
    _compare(reader, item, check)
    return body


def _compare(reader: HashingReader, item: CommittedObject, check: ShardCheck) -> None:
    """Read the rest of an object, and note it as damaged if its sha256 differs from the commit's."""
    if reader.finish() != item.sha256:
        check.damaged[item.name] = "differs from the sha256 in its commit"


def _check_audio(store: Store, item: CommittedObject, kept: list[TarSegment], suffix: str, check: ShardCheck) -> None:
    reader = HashingReader(store.read_blocks(item.name, item.size))
    problems = []
    try:
        problems = list(_check_tar(reader, kept, suffix))
    except (tarfile.TarError, sf.LibsndfileError, ValueError, KeyError, EOFError) as error:
        problems = [f"its tar cannot be read: {type(error).__name__}: {error}"]
    _compare(reader, item, check)
    if item.name not in check.damaged:  # what is in damaged bytes means nothing
        check.problems += problems


def _segments_of_tars(segments: pa.Table) -> tuple[list[TarSegment], list[TarSegment]]:
    """Return the segments of the tar of kept ones and of that of dropped ones, in the order of each.

    Those of a virtual selection are in the tars of its parent.
    """
    rows = segments.filter(segments["tar_offset"].is_valid())
    is_dropped = (
        pc.match_substring_regex(rows[TAR_URL], "/dropped_[^/]*$")
        if TAR_URL in rows.column_names
        else pc.invert(rows["kept"])
    )
    return _in_order(rows.filter(pc.invert(is_dropped))), _in_order(rows.filter(is_dropped))


def _in_order(rows: pa.Table) -> list[TarSegment]:
    names = ("key", "start_s", "duration_s", "tar_offset", "audio_bytes")
    tar_segments = [TarSegment(*row) for row in zip(*(rows[name].to_pylist() for name in names), strict=True)]
    return sorted(tar_segments, key=lambda segment: segment.tar_offset)


def _check_tables(
    planned: Sequence[tuple[str, str]], commit: Commit, videos: pa.Table, segments: pa.Table
) -> Iterator[str]:
    result = commit.result
    ids = videos["video_id"].to_pylist()
    if list(zip(ids, videos["uri"].to_pylist(), strict=True)) != list(planned):
        yield "its videos differ from the plan's"
    stated = {video_id: count for video_id, count in zip(ids, videos["segments"].to_pylist(), strict=True) if count}
    if stated != Counter(segments["video_id"].to_pylist()):
        yield "its tables of videos and segments differ in the number of segments"
    if (segments.num_rows, sum(segments["kept"].to_pylist())) != (result.segments, result.segments_kept):
        yield "its commit and its table differ in the number of segments"
    failed = set(videos.filter(pa.compute.equal(videos["status"], "failed"))["video_id"].to_pylist())
    if failed != {letter.video_id for letter in result.dead_letters}:
        yield "its commit and its table name different failed videos"


def _check_tar(reader: HashingReader, kept: list[TarSegment], suffix: str) -> Iterator[str]:
    audio, offset = b"", 0
    expected = ((segment, ending) for segment in kept for ending in (suffix, ".json"))
    for member, place in zip_longest(read_members(reader), expected):
        if member is None or place is None or member.name != place[0].key + place[1]:
            yield NOT_THE_SEGMENTS
            return
        segment, ending = place
        if ending == suffix:
            audio, offset = member.data, member.offset
        elif (offset, len(audio)) != (segment.tar_offset, segment.audio_bytes):
            yield f"sample {segment.key} is not where its row says"
        elif not _is_described(audio, json.loads(member.data), segment):
            yield f"sample {segment.key} is not the segment that its row describes"


def _is_described(audio: bytes, sidecar: Mapping[str, object], segment: TarSegment) -> bool:
    with sf.SoundFile(io.BytesIO(audio)) as file:
        duration_s = file.frames / file.samplerate
    return abs(duration_s - segment.duration_s) <= PADDING_S and sidecar["start_s"] == segment.start_s
