"""Videos with the audio of another: named when the dataset is complete, from the fingerprints in its tables.

Of a group the one with the lowest id is the first, and the others are its duplicates. The tars stay as they are. A
table names the duplicates, and beside each NeMo manifest lies another without them. All of it is made again whenever
the dataset is described, from what lies in the output alone: it does not matter who does it, how often, or after what.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.dataset.commit import Commit
from audiopipe.dataset.schema import sample_key
from audiopipe.dataset.similarity import SimilarityIndex
from audiopipe.errors import VerifyError
from audiopipe.store.objects import Store
from audiopipe.store.parquet import read_table

__all__ = [
    "SCHEMA",
    "TABLE",
    "check_duplicates",
    "is_manifest",
    "read_duplicates",
    "summarize_duplicates",
    "unique_name",
    "write_duplicates",
]

TABLE = "duplicates.parquet"
SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("language", pa.string()),
        ("shard", pa.int32()),
        ("duplicate_of", pa.string()),
        ("duplicate_of_language", pa.string()),
        ("similarity", pa.float32()),
        ("left_out", pa.bool_()),
        ("duration_s", pa.float64()),
    ]
)
COLUMNS = ["video_id", "language", "shard", "status", "segments_kept", "duration_s", "fingerprint"]
VIDEOS = re.compile(r"[^/]+/videos_\d{6,}\.parquet")
MANIFEST = re.compile(r"[^/]+/manifest_\d{6,}\.json")
TABLES_AT_ONCE = 64
THREADS = 8

# What is left out, by manifest: the starts of its samples' keys.
LeftOut = Mapping[str, set[bytes]]


@dataclass(frozen=True, slots=True)
class FingerprintedVideo:
    """A video with a fingerprint."""

    video_id: str
    language: str
    shard: int
    kept: bool
    duration_s: float

    @property
    def order(self) -> tuple[bytes, str]:
        return self.video_id.encode(), self.language


def is_manifest(name: str) -> bool:
    """Whether an object is the NeMo manifest of a tar."""
    return MANIFEST.fullmatch(name) is not None


def unique_name(manifest: str) -> str:
    """The manifest without duplicates that lies beside a manifest: another start, so that a glob finds one kind."""
    language, _, name = manifest.rpartition("/")
    return f"{language}/unique_{name}"


def write_duplicates(store: Store, commits: Mapping[str, Commit], similarity: float | None) -> None:
    """Write the table and the manifests; nothing where `duplicate_similarity` is None."""
    if similarity is None:
        return
    table = find_duplicates(store, commits, similarity)
    left_out = _left_out(table)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(partial(_write_unique, store, left_out), _named(commits, MANIFEST)))
    store.write(TABLE, _bytes(table))


def find_duplicates(store: Store, commits: Mapping[str, Commit], similarity: float) -> pa.Table:
    """The duplicates among all videos that are done: a table of `SCHEMA`, in the order of groups and ids."""
    heard: list[FingerprintedVideo] = []
    with tempfile.TemporaryDirectory(prefix="audiopipe-duplicates-", ignore_cleanup_errors=True) as folder:
        alike = SimilarityIndex(Path(folder))
        try:
            for videos in _tables(store, _named(commits, VIDEOS)):
                heard += [_heard(row) for row in videos.drop_columns("fingerprint").to_pylist()]
                alike.add(videos["fingerprint"].to_pylist())
            return _named_duplicates(heard, alike, similarity)
        finally:
            alike.close()


def read_duplicates(store: Store) -> pa.Table:
    """The table of an output; `VerifyError` if there is none or it is damaged."""
    try:
        table = read_table(store.read(TABLE))
    except (FileNotFoundError, pa.ArrowException, OSError) as error:
        kind = "is missing" if isinstance(error, FileNotFoundError) else "is damaged"
        raise VerifyError(f"{TABLE} {kind}; `audiopipe resume {store.url}` makes it again") from error
    return table


def summarize_duplicates(store: Store) -> dict[str, Any]:
    """What `dataset.json` says of the duplicates; raises as `read`."""
    rows = read_duplicates(store)
    firsts = set(zip(rows["duplicate_of"].to_pylist(), rows["duplicate_of_language"].to_pylist(), strict=True))
    return {
        "videos": rows.num_rows,
        "groups": len(firsts),
        "left_out": sum(rows["left_out"].to_pylist()),
        "hours": round(sum(rows["duration_s"].to_pylist()) / 3600, 4),
    }


def check_duplicates(
    store: Store, commits: Mapping[str, Commit], similarity: float | None, present: Mapping[str, int], fast: bool
) -> Iterator[tuple[str, str]]:
    """Objects that are missing, or, unless `fast`, are not what the shards' tables and manifests make.

    Args:
        fast: look for them only; else all that is committed must be there and undamaged.
    """
    if similarity is None:
        return
    manifests = list(_named(commits, MANIFEST))
    missing = [name for name in [TABLE, *map(unique_name, manifests)] if name not in present]
    yield from ((name, "is missing, and all shards are there") for name in missing)
    if fast or missing:
        return
    table = find_duplicates(store, commits, similarity)
    if store.read(TABLE) != _bytes(table):
        yield TABLE, "does not name the duplicates among these videos"
    left_out = _left_out(table)
    for name in manifests:
        if store.read(unique_name(name)) != _unique(store.read(name), left_out.get(name, set())):
            yield unique_name(name), "is not its manifest without the duplicates"


def _named(commits: Mapping[str, Commit], pattern: re.Pattern[str]) -> list[str]:
    """The committed objects whose names fit, in the order of shards."""
    return [item.name for shard in sorted(commits) for item in commits[shard].objects if pattern.fullmatch(item.name)]


def _tables(store: Store, names: list[str]) -> Iterator[pa.Table]:
    """The videos of many shards that have a fingerprint, a few shards at a time."""
    for start in range(0, len(names), TABLES_AT_ONCE):
        bodies = store.read_all(names[start : start + TABLES_AT_ONCE])
        tables = [read_table(body, COLUMNS) for body in bodies.values()]
        rows = pa.concat_tables(tables)
        yield rows.filter(rows["fingerprint"].is_valid())


def _heard(row: Mapping[str, Any]) -> FingerprintedVideo:
    return FingerprintedVideo(
        row["video_id"], row["language"], row["shard"], row["segments_kept"] > 0, row["duration_s"]
    )


def _named_duplicates(heard: list[FingerprintedVideo], alike: SimilarityIndex, similarity: float) -> pa.Table:
    groups = _groups(heard, alike.pairs(similarity))
    pairs = [(first, one) for first, *others in groups for one in others]
    shares = alike.similarities(np.array(pairs, np.int64).reshape(-1, 2)).tolist()
    stays = {next((one for one in group if heard[one].kept), group[0]) for group in groups}
    rows = [
        {
            "video_id": heard[one].video_id,
            "language": heard[one].language,
            "shard": heard[one].shard,
            "duplicate_of": heard[first].video_id,
            "duplicate_of_language": heard[first].language,
            "similarity": share,
            "left_out": one not in stays,
            "duration_s": heard[one].duration_s,
        }
        for (first, one), share in zip(pairs, shares, strict=True)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def _groups(heard: list[FingerprintedVideo], pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Those that pairs join, each group and all of them in the order of ids."""
    leader: dict[int, int] = {}

    def led(one: int) -> int:
        while (above := leader.get(one, one)) != one:
            leader[one] = leader.get(above, above)
            one = above
        return one

    for one, other in pairs:
        first, second = sorted((led(one), led(other)), key=lambda number: heard[number].order)
        leader[second] = first
        leader.setdefault(first, first)
    groups: dict[int, list[int]] = {}
    for one in sorted(leader, key=lambda number: heard[number].order):
        groups.setdefault(led(one), []).append(one)
    return list(groups.values())


def _bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _left_out(table: pa.Table) -> dict[str, set[bytes]]:
    left_out: dict[str, set[bytes]] = {}
    for row in table.to_pylist():
        if row["left_out"]:
            name = f"{row['language']}/manifest_{row['shard']:06d}.json"
            left_out.setdefault(name, set()).add(_start(sample_key(row["video_id"], 0).encode()))
    return left_out


def _start(key: bytes) -> bytes:
    """What the keys of a video's samples have in common."""
    return key.rpartition(b"_")[0]


def _write_unique(store: Store, left_out: LeftOut, manifest: str) -> None:
    store.write(unique_name(manifest), _unique(store.read(manifest), left_out.get(manifest, set())))


def _unique(manifest: bytes, left_out: set[bytes]) -> bytes:
    """A manifest without the lines of some videos. A line begins with the name of its sample."""
    lines = manifest.splitlines(keepends=True)
    return b"".join(line for line in lines if _start(line.split(b'"', 4)[3]) not in left_out)
