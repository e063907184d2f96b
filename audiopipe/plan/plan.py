"""Create and load the plan, which assigns every video to a shard, once, for all partitions.

The plan is kept with the output, in one file for each language and generation (`files.py`). A file is created only if
absent by the driver that comes first; all others read it. So nodes that start at the same moment agree, and a row that
is added to the catalog later changes no shard. Generation 0 is made here, later ones (extensions, retries) in
`extend.py`.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.catalog.read import CATALOG_SCHEMA, read_catalog
from audiopipe.config import RunConfig
from audiopipe.errors import PlanError
from audiopipe.plan.catalog_columns import conform
from audiopipe.plan.files import (
    ADDED_COLUMNS,
    PLAN_FOLDER,
    PLAN_SCHEMA,
    ObjectStore,
    PlanFile,
    PlanMetadata,
    plan_columns,
    plan_path,
    read_files,
    serialize,
)
from audiopipe.plan.partition import partition_of
from audiopipe.plan.totals import PlanTotals, is_planned_once, sum_rows
from audiopipe.types import Shard, Video, shard_name

__all__ = ["CatalogView", "Order", "Plan", "assign_shards", "create_plan", "load_plan"]

Order = Literal["round_robin", "sequential"]


class CatalogView(Protocol):
    """The part of `catalog.read.Catalog` that the plan uses."""

    @property
    def columns(self) -> tuple[str, ...]: ...
    def languages(self) -> list[str]: ...
    def videos(self, language: str) -> pa.Table: ...


@dataclass(frozen=True)
class Plan:
    """All shards of a run. The table of a language has the columns of `PLAN_SCHEMA`, in order of shard and position."""

    partition_count: int
    tables: Mapping[str, pa.Table]

    def languages(self) -> list[str]:
        """List the languages in alphabetical order."""
        return sorted(self.tables)

    def shards(
        self,
        partition: int | None = None,
        languages: Iterable[str] | None = None,
        order: Order = "round_robin",
        without: Set[str] = frozenset(),
    ) -> Iterator[Shard]:
        """Yield the shards of a partition, or of all.

        Args:
            languages: by default all; those without a plan are skipped.
            order: "round_robin" takes a shard of each language in turn, by name; "sequential" takes one language after
                the other, in the given order.
            without: names of shards that are left out.
        """
        selected = self.select(languages)
        streams = (_shards(name, self.tables[name], partition, without) for name in selected)
        if order == "sequential":
            return (shard for stream in streams for shard in stream if shard is not None)
        streams = (_shards(name, self.tables[name], partition, without) for name in sorted(selected))
        return (shard for turn in itertools.zip_longest(*streams) for shard in turn if shard is not None)

    def select(self, languages: Iterable[str] | None) -> list[str]:
        """Return those of some languages, by default of all, that have a plan."""
        if languages is None:
            return self.languages()
        return [name for name in dict.fromkeys(languages) if name in self.tables]

    def shard_names(self) -> set[str]:
        """Return the names of all shards."""
        shards = ((language, pc.unique(table["shard"]).to_pylist()) for language, table in self.tables.items())
        return {shard_name(language, index) for language, indices in shards for index in indices}

    def totals(self, partition: int | None = None) -> dict[str, PlanTotals]:
        """Sum up the shards of each language, of a partition or all of them.

        A video that was planned again counts in its last shard only.
        """
        return {
            name: sum_rows(table, partition, len(_find_shards(table, partition)))
            for name, table in sorted(self.tables.items())
        }


class _ShardRows(NamedTuple):
    """The rows of a shard in the table of its language."""

    start: int
    length: int


def create_plan(
    config: RunConfig, store: ObjectStore, catalog_reader: Callable[[RunConfig], CatalogView] = read_catalog
) -> Plan:
    """Return the plan of the config's languages; create the files that are missing.

    The catalog is read only if a language lacks its file: one that the config names, or one that was in the catalog
    when planning for 'all' was interrupted. Videos that are added later need an extension.

    Raises:
        PlanError: a file of the plan cannot be read, or was made for another `partition_count`.
        CatalogError: as `read_catalog`.
    """
    files = read_files(store, config.partition_count)
    required = _required_languages(config, files)
    if required is None or required - files.keys():
        catalog = catalog_reader(config)
        required = required or files.keys() | set(catalog.languages())
        metadata = PlanMetadata.of(
            config,
            generation=0,
            languages=sorted(required) if config.languages is None else None,
            catalog_columns=list(catalog.columns),
        )
        for language in sorted(required - files.keys()):
            videos = conform(catalog.videos(language), (item.table for others in files.values() for item in others))
            file = _create_file(store, language, assign_shards(videos, config), metadata)
            # Checked after each file: with another partition_count, no further file may be created.
            file.check_partition_count(config.partition_count)
            files[language] = [file]
    return _join_files({name: files[name] for name in required}, config.partition_count)


def load_plan(store: ObjectStore) -> Plan:
    """Load the plan of all languages.

    Raises:
        PlanError: the output does not have a plan, or it cannot be read.
    """
    files = read_files(store)
    if not files:
        raise PlanError(f"the output does not have a plan in {PLAN_FOLDER}/; check its address, or start the run")
    return _join_files(files, next(iter(files.values()))[0].metadata.partition_count)


def assign_shards(videos: pa.Table, config: RunConfig, first_shard: int = 0) -> pa.Table:
    """Assign the videos of one language to shards.

    Args:
        videos: columns of `CATALOG_SCHEMA`, in any order of rows.
        first_shard: the number of the first shard.

    Returns:
        The rows sorted by partition and by the UTF-8 bytes of the id, with the columns of `plan_columns`.
    """
    partition = pa.array(partition_of(videos["video_id"], config.partition_count))
    table = videos.append_column("partition", partition).sort_by(
        [("partition", "ascending"), ("video_id", "ascending")]
    )
    starts = _shard_starts(table, config)
    is_start = np.zeros(table.num_rows, np.int32)
    is_start[starts] = 1
    shard = np.cumsum(is_start, dtype=np.int32) - np.int32(1)
    position = np.arange(table.num_rows) - np.asarray(starts, np.int64)[shard]
    table = table.append_column("shard", pa.array(shard + first_shard)).append_column("position", pa.array(position))
    table = table.select(plan_columns(table))
    added = [table.schema.field(name) for name in table.column_names[len(PLAN_SCHEMA) :]]
    return table.cast(pa.schema([*PLAN_SCHEMA, *added])).combine_chunks()


def _create_file(store: ObjectStore, language: str, table: pa.Table, metadata: PlanMetadata) -> PlanFile:
    """Create the first file of a language; if another driver was faster, return the file of that one."""
    path, data = plan_path(language, metadata.generation), serialize(table, metadata)
    return PlanFile.parse(path, data if store.create(path, data) else store.read(path))


def _shard_starts(table: pa.Table, config: RunConfig) -> list[int]:
    """Return the rows that begin a shard: the first of a partition, and those that would exceed a limit of the shard.

    Unknown sizes and durations count as 0.
    """
    max_bytes, max_s = config.shard_mb * 1_000_000, config.shard_minutes * 60
    partitions = table["partition"].to_pylist()
    sizes = pc.fill_null(table["size_bytes"], 0).to_pylist()
    durations = pc.fill_null(table["duration_s"], 0.0).to_pylist()
    starts: list[int] = []
    first, last_partition, shard_bytes, shard_s = 0, -1, 0, 0.0
    for row, (partition, size, duration) in enumerate(zip(partitions, sizes, durations, strict=True)):
        shard_bytes, shard_s = shard_bytes + size, shard_s + duration
        is_full = row - first == config.shard_videos or shard_bytes > max_bytes or shard_s > max_s
        if partition != last_partition or is_full:
            starts.append(row)
            first, last_partition, shard_bytes, shard_s = row, partition, size, duration
    return starts


def _required_languages(config: RunConfig, files: Mapping[str, list[PlanFile]]) -> set[str] | None:
    """Return the languages that must have a plan; None if the catalog is needed to know them."""
    if config.languages is not None:
        return set(config.languages)
    complete = [
        file.metadata.languages
        for language_files in files.values()
        for file in language_files
        if file.metadata.languages is not None
    ]
    return set(files).union(*complete) if complete else None


def _join_files(files: Mapping[str, list[PlanFile]], partition_count: int) -> Plan:
    tables = {
        language: pa.concat_tables([file.table for file in language_files], promote_options="default")
        for language, language_files in files.items()
    }
    return Plan(partition_count, tables)


def _find_shards(table: pa.Table, partition: int | None) -> list[_ShardRows]:
    """Find the rows of each shard of a partition, or of all."""
    starts = np.flatnonzero(np.diff(table["shard"].to_numpy(), prepend=-1))
    lengths = np.diff(starts, append=table.num_rows)
    if partition is not None:
        is_selected = table["partition"].to_numpy()[starts] == partition
        starts, lengths = starts[is_selected], lengths[is_selected]
    return list(map(_ShardRows, starts.tolist(), lengths.tolist()))


def _shards(language: str, table: pa.Table, partition: int | None, without: Set[str]) -> Iterator[Shard | None]:
    """Yield the shards of a table, and None for those that are left out."""
    attempts = _count_attempts(table)
    for start, length in _find_shards(table, partition):
        rows = table.slice(start, length)
        if without and shard_name(language, rows["shard"][0].as_py()) in without:
            yield None
            continue
        columns = [rows[name].to_pylist() for name in CATALOG_SCHEMA.names if name != "sidecars"]
        sidecars = [tuple(names or ()) for names in rows["sidecars"].to_pylist()]
        added = [rows[name].to_pylist() if name in rows.column_names else [None] * length for name in ADDED_COLUMNS]
        values = [row or {} for row in added[1]]
        videos = map(Video, *columns, sidecars, attempts[start : start + length], added[0], values)
        yield Shard(language, rows["shard"][0].as_py(), rows["partition"][0].as_py(), tuple(videos))


def _count_attempts(table: pa.Table) -> Sequence[int]:
    """Count for each row how many rows up to it have the same video: each retry adds one."""
    if is_planned_once(table):
        return [1] * table.num_rows
    counts: Counter[str] = Counter()
    attempts = []
    for video_id in table["video_id"].to_pylist():
        counts[video_id] += 1
        attempts.append(counts[video_id])
    return attempts
