"""The plan: which video is in which shard, decided once, for all partitions, and kept with the output.

A file a language and generation (`plan_files`), created only if absent by whoever comes first; all others read theirs.
So nodes that start at the same moment agree, and a row added to the catalogue later moves nothing. Generation 0 is made
here; a later one (an extension, a retry) is made of `assign` with the number after the last shard's.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.catalog import read as catalog
from audiopipe.config import RunConfig
from audiopipe.errors import PlanError
from audiopipe.plan.files import PLAN_FOLDER, PLAN_SCHEMA, ObjectStore, PlanFile, plan_path, read_files, serialize
from audiopipe.plan.partition import partition_of
from audiopipe.types import Shard, Video

__all__ = ["PLAN_SCHEMA", "Plan", "PlanTotals", "assign_shards", "create_plan", "load_plan", "plan_path", "serialize"]

Order = Literal["round_robin", "sequential"]


class CatalogView(Protocol):
    """What the plan needs of a catalogue: `catalog.Catalog`."""

    @property
    def columns(self) -> tuple[str, ...]: ...
    def languages(self) -> list[str]: ...
    def videos(self, language: str) -> pa.Table: ...


@dataclass(frozen=True)
class PlanTotals:
    """Sums over shards; hours are of the `timed` videos, bytes of the `sized`: where duration or size is known."""

    videos: int
    shards: int
    hours: float
    videos_with_duration: int
    size_bytes: int
    videos_with_size: int


@dataclass(frozen=True)
class Plan:
    """All shards of a run. A language's table has the columns of `SCHEMA`, in order of shard and position."""

    partition_count: int
    tables: Mapping[str, pa.Table]

    def languages(self) -> list[str]:
        return sorted(self.tables)

    def shards(
        self, partition: int | None = None, languages: Iterable[str] | None = None, order: Order = "round_robin"
    ) -> Iterator[Shard]:
        """The shards of a partition (or of all), made one at a time.

        Args:
            languages: whose shards; by default all. Those that have no plan are passed over.
            order: "round_robin" takes a shard of each language in turn, by name; "sequential" takes one language
                after the other, as they are given.
        """
        given = self.languages() if languages is None else [n for n in dict.fromkeys(languages) if n in self.tables]
        if order == "sequential":
            return itertools.chain.from_iterable(_shards(name, self.tables[name], partition) for name in given)
        each = [_shards(name, self.tables[name], partition) for name in sorted(given)]
        return (shard for turn in itertools.zip_longest(*each) for shard in turn if shard is not None)

    def totals(self, partition: int | None = None) -> dict[str, PlanTotals]:
        """The sums of each language, over a partition or all of them."""
        return {name: _totals(self.tables[name], partition) for name in self.languages()}


def create_plan(
    config: RunConfig, store: ObjectStore, catalog_reader: Callable[[RunConfig], CatalogView] = catalog.read_catalog
) -> Plan:
    """The plan of the languages that `config` asks for, made now where there is none.

    The catalogue is read only if a language lacks its plan: one that was asked for by name, or one that was in the
    catalogue when somebody first planned 'all' and broke off. What comes later needs an extension.

    Raises `PlanError` if a plan that is there cannot be read or was made for another `partition_count`, and
    `CatalogError` as `catalog.read` does.
    """
    files = read_files(store, config.partition_count)
    wanted = _wanted(config, files)
    if wanted is None or wanted - files.keys():
        videos = catalog_reader(config)
        wanted = wanted or files.keys() | set(videos.languages())
        facts = {**_facts(config, videos), "languages": sorted(wanted) if config.languages is None else None}
        for language in sorted(wanted - files.keys()):
            path, data = plan_path(language, 0), serialize(assign_shards(videos.videos(language), config), facts)
            # Whoever lost reads theirs at once: if it has another partition_count, no further one must be made.
            file = PlanFile.parse(path, data if store.create(path, data) else store.read(path))
            files[language] = [file.check_partition_count(config.partition_count)]
    return _plan({name: files[name] for name in wanted}, config.partition_count)


def load_plan(store: ObjectStore) -> Plan:
    """The plan as it is, of all languages. Raises `PlanError` if there is none or it cannot be read."""
    files = read_files(store)
    if not files:
        raise PlanError(f"no plan below {PLAN_FOLDER}/ in the output; check its address, or start the run")
    return _plan(files, next(iter(files.values()))[0].metadata["partition_count"])


def assign_shards(videos: pa.Table, config: RunConfig, first_shard: int = 0) -> pa.Table:
    """The shards of one language's videos.

    Args:
        videos: columns of `catalog.SCHEMA`, in any order of rows.
        first_shard: the number of the first shard.

    Returns the rows sorted by partition and by the id's UTF-8 bytes, with the columns of `SCHEMA`.
    """
    partition = pa.array(partition_of(videos["video_id"], config.partition_count))
    table = videos.append_column("partition", partition).sort_by(
        [("partition", "ascending"), ("video_id", "ascending")]
    )
    starts = _starts(table, config)
    begins = np.zeros(table.num_rows, np.int32)
    begins[starts] = 1
    shard = np.cumsum(begins, dtype=np.int32) - np.int32(1)
    position = np.arange(table.num_rows) - np.asarray(starts, np.int64)[shard]
    table = table.append_column("shard", pa.array(shard + first_shard)).append_column("position", pa.array(position))
    return table.select(PLAN_SCHEMA.names).cast(PLAN_SCHEMA).combine_chunks()


def _starts(table: pa.Table, config: RunConfig) -> list[int]:
    """The rows that begin a shard: of a new partition, or one too many for a bound. Unknown sizes count as nothing."""
    most_bytes, most_s = config.shard_mb * 1_000_000, config.shard_minutes * 60
    partitions = table["partition"].to_pylist()
    sizes = pc.fill_null(table["size_bytes"], 0).to_pylist()
    durations = pc.fill_null(table["duration_s"], 0.0).to_pylist()
    starts: list[int] = []
    first, last, held_bytes, held_s = 0, -1, 0, 0.0
    for row, (partition, size, duration) in enumerate(zip(partitions, sizes, durations, strict=True)):
        held_bytes, held_s = held_bytes + size, held_s + duration
        full = row - first == config.shard_videos or held_bytes > most_bytes or held_s > most_s
        if partition != last or full:
            starts.append(row)
            first, last, held_bytes, held_s = row, partition, size, duration
    return starts


def _wanted(config: RunConfig, files: Mapping[str, list[PlanFile]]) -> set[str] | None:
    """The languages that must have a plan; None if only the catalogue knows."""
    if config.languages is not None:
        return set(config.languages)
    scopes = [file.metadata["languages"] for of_one in files.values() for file in of_one]
    complete = [scope for scope in scopes if scope is not None]
    return set(files).union(*complete) if complete else None


def _facts(config: RunConfig, videos: CatalogView) -> dict[str, Any]:
    """What generation 0 was made from."""
    bounds = {name: getattr(config, name) for name in ("shard_videos", "shard_mb", "shard_minutes")}
    made_from = {"partition_count": config.partition_count, "catalogue_columns": list(videos.columns)}
    return {"generation": 0, **made_from, **bounds}


def _plan(files: Mapping[str, list[PlanFile]], partition_count: int) -> Plan:
    tables = {name: pa.concat_tables([file.table for file in of_one]) for name, of_one in files.items()}
    return Plan(partition_count, tables)


def _edges(table: pa.Table, partition: int | None) -> list[tuple[int, int]]:
    """First row and length of each shard of a partition."""
    starts = np.flatnonzero(np.diff(table["shard"].to_numpy(), prepend=-1))
    lengths = np.diff(starts, append=table.num_rows)
    if partition is not None:
        mine = table["partition"].to_numpy()[starts] == partition
        starts, lengths = starts[mine], lengths[mine]
    return list(zip(starts.tolist(), lengths.tolist(), strict=True))


def _shards(language: str, table: pa.Table, partition: int | None) -> Iterator[Shard]:
    attempts = _attempts(table)
    for start, length in _edges(table, partition):
        rows = table.slice(start, length)
        columns = [rows[name].to_pylist() for name in catalog.CATALOG_SCHEMA.names]
        videos = map(Video, *columns, attempts[start : start + length])
        yield Shard(language, rows["shard"][0].as_py(), rows["partition"][0].as_py(), tuple(videos))


def _attempts(table: pa.Table) -> list[int]:
    """How many rows, from the first to itself, each row's video has: it has one more in each generation of retries."""
    seen: Counter[str] = Counter()
    attempts = []
    for video_id in table["video_id"].to_pylist():
        seen[video_id] += 1
        attempts.append(seen[video_id])
    return attempts


def _totals(table: pa.Table, partition: int | None) -> PlanTotals:
    shards = len(_edges(table, partition))
    rows = table if partition is None else table.filter(pc.field("partition") == partition)
    sizes, durations = rows["size_bytes"], rows["duration_s"]
    return PlanTotals(
        videos=rows.num_rows,
        shards=shards,
        hours=(pc.sum(durations).as_py() or 0.0) / 3600,
        videos_with_duration=len(durations) - durations.null_count,
        size_bytes=pc.sum(sizes).as_py() or 0,
        videos_with_size=len(sizes) - sizes.null_count,
    )
