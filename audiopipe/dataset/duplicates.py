"""Find videos that have the audio of another, by the fingerprints in the tables of a complete dataset.

Of a group of such videos the one with the lowest id is the first, and the others are its duplicates. The tars stay as
they are; a table names the duplicates, and next to each NeMo manifest lies another one without them. All of it depends
only on what the output holds, so it can be written again by any driver, at any time, with the same bytes.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.dataset.checksum import md5
from audiopipe.dataset.commit import Commit
from audiopipe.dataset.schema import sample_key
from audiopipe.dataset.video_table import COLUMNS, VideoTable
from audiopipe.errors import VerifyError
from audiopipe.store.objects import Store
from audiopipe.store.parquet import read_table

if TYPE_CHECKING:
    from audiopipe.dataset.similarity import SimilarityIndex

__all__ = [
    "SCHEMA",
    "TABLE",
    "DuplicateCounts",
    "check_duplicates",
    "count_duplicates",
    "is_manifest",
    "read_duplicates",
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
VIDEO_TABLE = re.compile(r"[^/]+/videos_\d{6,}\.parquet")
MANIFEST = re.compile(r"[^/]+/manifest_\d{6,}\.json")
TABLES_PER_READ = 64
THREADS = 16

# By manifest, the prefixes of the keys of the videos that are left out of it.
KeyPrefixes = Mapping[str, set[bytes]]


@dataclass(frozen=True, slots=True)
class DuplicateCounts:
    """The duplicates of a dataset in numbers; `left_out` of the `videos` are left out of the manifests."""

    videos: int
    groups: int
    left_out: int
    hours: float


def is_manifest(name: str) -> bool:
    """Check whether an object is the NeMo manifest of a tar."""
    return MANIFEST.fullmatch(name) is not None


def unique_name(manifest: str) -> str:
    """Return the name of the manifest without duplicates: it starts differently, so that a glob finds one kind."""
    language, _, name = manifest.rpartition("/")
    return f"{language}/unique_{name}"


def write_duplicates(
    store: Store,
    commits: Mapping[str, Commit],
    similarity: float | None,
    listed: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> dict[str, str]:
    """Write the table and the manifests without duplicates; do nothing if `similarity` is None.

    Args:
        listed: entries of the objects in the folders of the languages, with the tags of an S3 store.

    Returns:
        The MD5 of each object, by name.
    """
    if similarity is None:
        return {}
    table = find_duplicates(store, commits, similarity)
    prefixes = _left_out_prefixes(table)
    with ThreadPoolExecutor(THREADS) as pool:
        written = pool.map(partial(_write_unique, store, prefixes, listed), _committed_names(commits, MANIFEST))
        tags = dict(written)
    data = _to_parquet(table)
    store.write(TABLE, data)
    return tags | {TABLE: md5(data)}


def find_duplicates(store: Store, commits: Mapping[str, Commit], similarity: float) -> pa.Table:
    """Compare all videos that are done; return a table of `SCHEMA`, in the order of groups and ids."""
    from audiopipe.dataset.similarity import SimilarityIndex  # noqa: PLC0415 - imports duckdb

    videos = VideoTable()
    with tempfile.TemporaryDirectory(prefix="audiopipe-duplicates-", ignore_cleanup_errors=True) as folder:
        index = SimilarityIndex(Path(folder))
        try:
            for table in _fingerprinted(store, _committed_names(commits, VIDEO_TABLE)):
                videos.add(table.select(COLUMNS))
                index.add(table["fingerprint"].to_pylist())
            return _duplicate_table(videos, index, similarity)
        finally:
            index.close()


def read_duplicates(store: Store) -> pa.Table:
    """Read the table of an output; raise `VerifyError` if there is none or it is damaged."""
    try:
        return read_table(store.read(TABLE))
    except (FileNotFoundError, pa.ArrowException, OSError) as error:
        state = "missing" if isinstance(error, FileNotFoundError) else "damaged"
        raise VerifyError(f"{TABLE} is {state}; `audiopipe resume {store.url}` writes it again") from error


def count_duplicates(store: Store) -> DuplicateCounts:
    """Count the duplicates in the table of an output; raises as `read_duplicates`."""
    table = read_duplicates(store)
    firsts = set(zip(table["duplicate_of"].to_pylist(), table["duplicate_of_language"].to_pylist(), strict=True))
    return DuplicateCounts(
        videos=table.num_rows,
        groups=len(firsts),
        left_out=sum(table["left_out"].to_pylist()),
        hours=round(sum(table["duration_s"].to_pylist()) / 3600, 4),
    )


def check_duplicates(
    store: Store, commits: Mapping[str, Commit], similarity: float | None, present: Mapping[str, int], fast: bool
) -> Iterator[tuple[str, str]]:
    """Yield name and problem of objects that are missing or do not follow from the shards' tables and manifests.

    Args:
        present: names and sizes of the output's objects.
        fast: only look for missing objects; otherwise all committed objects must be there and undamaged.
    """
    if similarity is None:
        return
    manifests = list(_committed_names(commits, MANIFEST))
    missing = [name for name in [TABLE, *map(unique_name, manifests)] if name not in present]
    yield from ((name, "is missing, although all shards are committed") for name in missing)
    if fast or missing:
        return
    table = find_duplicates(store, commits, similarity)
    if store.read(TABLE) != _to_parquet(table):
        yield TABLE, "does not name the duplicates among these videos"
    prefixes = _left_out_prefixes(table)
    for name in manifests:
        if store.read(unique_name(name)) != _without_duplicates(store.read(name), prefixes.get(name, set())):
            yield unique_name(name), "differs from its manifest without the duplicates"


def _committed_names(commits: Mapping[str, Commit], pattern: re.Pattern[str]) -> list[str]:
    """List the committed objects whose names match, in the order of shards."""
    return [item.name for shard in sorted(commits) for item in commits[shard].objects if pattern.fullmatch(item.name)]


def _fingerprinted(store: Store, names: list[str]) -> Iterator[pa.Table]:
    """Read the videos that have a fingerprint, a few shards at a time."""
    for start in range(0, len(names), TABLES_PER_READ):
        bodies = store.read_all(names[start : start + TABLES_PER_READ])
        tables = [read_table(body, [*COLUMNS, "fingerprint"]) for body in bodies.values()]
        table = pa.concat_tables(tables)
        yield table.filter(table["fingerprint"].is_valid())


def _duplicate_table(videos: VideoTable, index: SimilarityIndex, similarity: float) -> pa.Table:
    groups = _groups(videos, index.pairs(similarity))
    pairs = [(first, duplicate) for first, *duplicates in groups for duplicate in duplicates]
    similarities = index.similarities(np.array(pairs, np.int64).reshape(-1, 2)).tolist()
    # Each group keeps one video in the manifests: the first of which anything was kept.
    stay = {next((number for number in group if videos[number].has_samples), group[0]) for group in groups}
    rows = [
        {
            "video_id": videos[duplicate].video_id,
            "language": videos[duplicate].language,
            "shard": videos[duplicate].shard,
            "duplicate_of": videos[first].video_id,
            "duplicate_of_language": videos[first].language,
            "similarity": value,
            "left_out": duplicate not in stay,
            "duration_s": videos[duplicate].duration_s,
        }
        for (first, duplicate), value in zip(pairs, similarities, strict=True)
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def _groups(videos: VideoTable, pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Join pairs of numbers into groups (union-find); each group, and the list of them, in the order of ids."""
    parent: dict[int, int] = {}

    def sort_key(number: int) -> tuple[bytes, str]:
        return videos[number].sort_key

    def root(number: int) -> int:
        while (above := parent.get(number, number)) != number:
            parent[number] = parent.get(above, above)
            number = above
        return number

    for left, right in pairs:
        first, second = sorted((root(left), root(right)), key=sort_key)
        parent[second] = first
        parent.setdefault(first, first)
    groups: dict[int, list[int]] = {}
    for number in sorted(parent, key=sort_key):
        groups.setdefault(root(number), []).append(number)
    return list(groups.values())


def _to_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def _left_out_prefixes(table: pa.Table) -> KeyPrefixes:
    prefixes: dict[str, set[bytes]] = {}
    left_out = table.filter(table["left_out"])
    columns = (left_out[name].to_pylist() for name in ("video_id", "language", "shard"))
    for video_id, language, shard in zip(*columns, strict=True):
        manifest = f"{language}/manifest_{shard:06d}.json"
        prefixes.setdefault(manifest, set()).add(_key_prefix(sample_key(video_id, 0).encode()))
    return prefixes


def _key_prefix(key: bytes) -> bytes:
    """Return the part of a sample's key that all samples of its video share."""
    return key.rpartition(b"_")[0]


def _write_unique(
    store: Store, prefixes: KeyPrefixes, listed: Mapping[str, Mapping[str, Any]], manifest: str
) -> tuple[str, str]:
    """Write a manifest without duplicates; return its name and its MD5."""
    name = unique_name(manifest)
    data = _without_duplicates(store.read(manifest), prefixes.get(manifest, set()))
    tag = md5(data)
    if store.is_s3:
        # One request at most: the listing says whether it is there.
        if listed.get(name, {}).get("ETag") != tag:
            store.replace(name, data)
    else:
        store.write(name, data)
    return name, tag


def _without_duplicates(manifest: bytes, prefixes: set[bytes]) -> bytes:
    """Remove the lines of some videos from a manifest. A line begins with the name of its sample."""
    lines = manifest.splitlines(keepends=True)
    return b"".join(line for line in lines if _key_prefix(line.split(b'"', 4)[3]) not in prefixes)
