"""Read the tables of an output: what is committed, its columns, rows by SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.conditions import parse_condition
from audiopipe.dataset.annotations import KEYS, Annotation, annotation_schema, list_annotations
from audiopipe.dataset.commit import Commit, read_commits
from audiopipe.dataset.database import checked, choose, open_database
from audiopipe.dataset.run_record import read_columns, read_run_record, read_schema
from audiopipe.dataset.schema import CatalogColumn
from audiopipe.dataset.sql import quote_name
from audiopipe.dataset.totals import Totals, effective_results
from audiopipe.errors import ConfigError
from audiopipe.plan.plan import load_plan
from audiopipe.scorers.scorer import Column
from audiopipe.store.objects import Store
from audiopipe.types import ShardResult, shard_name

__all__ = ["TAR_ORDER", "DatasetTables"]

# The order of kept segments: that of the tars. In a virtual selection, two tars may have one at the same offset.
TAR_ORDER = "language, shard, tar_offset, key"


class DatasetTables:
    """The tables of an output, or the rows of them that a condition holds for.

    Raises:
        VerifyError: the address does not hold the output of a run, or it is damaged.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.store = Store(url)
        self.run = read_run_record(self.store)
        self.conditions: tuple[str, ...] = ()

    def refresh(self) -> Self:
        """Return the same view of what is committed by now."""
        return self._view(self.conditions, {})

    def filter(self, condition: str) -> Self:
        """Return a view of the segments that a SQL condition over their columns holds for, on top of earlier ones.

        Raises:
            ConfigError: the condition has an unknown column, is not valid SQL or could read files.
        """
        text = parse_condition(condition, self.column_types).text
        return self._view((*self.conditions, text), self._listed)

    def select_shards(self, shards: Iterable[str]) -> Self:
        """Return a view of some committed shards. Nothing is read from the others."""
        return self._view(self.conditions, self._listed | {"commits": {shard: self.commits[shard] for shard in shards}})

    def _view(self, conditions: tuple[str, ...], shared: Mapping[str, Any]) -> Self:
        view = object.__new__(type(self))
        view.__dict__.update(
            {"url": self.url, "store": self.store, "run": self.run, "conditions": conditions, **shared}
        )
        return view

    def reopen(self) -> Self:
        """Return the same view with a connection of the calling process to its store."""
        return self._view(self.conditions, self._listed | {"store": Store(self.url)})

    @property
    def _listed(self) -> dict[str, Any]:
        return {"commits": self.commits, "annotations": self.annotations}

    @cached_property
    def commits(self) -> Mapping[str, Commit]:
        """The committed shards by name."""
        return read_commits(self.store)

    @cached_property
    def results(self) -> Mapping[str, ShardResult]:
        """The results of the committed shards by name; a video tried again counts once, with its last result."""
        return effective_results(self.commits, load_plan(self.store))

    @cached_property
    def totals(self) -> dict[str, Totals]:
        """Sums of `results` by language, whatever the view's conditions."""
        results = self.results.values()
        names = sorted({result.language for result in results})
        return {name: Totals.of(result for result in results if result.language == name) for name in names}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table of segments."""
        return tuple(self.view_schema.names)

    @cached_property
    def column_types(self) -> Mapping[str, str]:
        """The type of each column, as DuckDB names it."""
        with duckdb.connect() as connection:
            table = connection.from_arrow(self.view_schema.empty_table())
            return dict(zip(table.columns, map(str, table.types), strict=True))

    @cached_property
    def annotations(self) -> tuple[Annotation, ...]:
        """The columns that were added to the output after its run."""
        return list_annotations(self.store)

    @cached_property
    def score_columns(self) -> tuple[Column, ...]:
        """The columns of the run's scorers and of annotations, with their units and descriptions."""
        columns = [column for column in read_columns(self.run) if not isinstance(column, CatalogColumn)]
        return (*columns, *(column for item in self.annotations for column in item.columns))

    @cached_property
    def schema(self) -> pa.Schema:
        """The schema of the table of segments in the output's files."""
        return read_schema(self.run)

    @cached_property
    def view_schema(self) -> pa.Schema:
        """The schema of the table of segments with the columns of annotations."""
        added = annotation_schema([column for item in self.annotations for column in item.columns])
        return pa.schema([*self.schema, *(column for column in added if column.name not in KEYS)])

    @cached_property
    def scores(self) -> tuple[str, ...]:
        """The columns that scorers and annotations add."""
        return tuple(column.name for column in self.score_columns)

    def segments(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Read the table of segments, kept and dropped, in the order of shards, videos and segments.

        Args:
            columns: those to read; all by default.
            where: a SQL condition over all columns, in addition to those of the view.

        Raises:
            ConfigError: `columns` or the condition names an unknown column, or the condition is not valid SQL.
        """
        with self._connect() as connection:
            rows = choose(connection.table("segments"), self._checked_condition(where)).order(
                "language, shard, video_id, segment"
            )
            return checked(lambda: rows.select(*map(quote_name, columns or self.columns)).to_arrow_table())

    def videos(self) -> pa.Table:
        """Read the table of videos; of a video that was tried again, the last row."""
        with self._connect(with_videos=True) as connection:
            return connection.table("videos").to_arrow_table()

    def to_pandas(self, columns: Sequence[str] | None = None, where: str | None = None) -> pd.DataFrame:
        """Read the table of segments as `segments` does, into pandas."""
        frame: pd.DataFrame = self.segments(columns, where).to_pandas()
        return frame

    def query(self, sql: str) -> pa.Table:
        """Run a SELECT over the tables `segments` (the view's) and `videos`.

        Neither other files nor the network can be reached by the query.

        Raises:
            ConfigError: it is not one SELECT, or DuckDB refuses it.
        """
        with self._connect(with_videos=True) as connection:
            statements = checked(lambda: connection.extract_statements(sql))
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise ConfigError(f"a query is one SELECT over the tables segments and videos, not: {sql}")
            table: pa.Table = checked(lambda: connection.sql(sql).to_arrow_table())
            return table

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Open a database with the table `segments` of the view, for many queries; it reaches no other files.

        The caller must check what it runs, and close it.
        """
        return self._connect()

    def count_by_shard(self) -> dict[str, int]:
        """Count the kept segments of each shard of the view, by its name; shards without any are left out."""
        if not self.conditions:
            counts = {shard: commit.result.segments_kept for shard, commit in sorted(self.commits.items())}
            return {shard: count for shard, count in counts.items() if count}
        with self._connect() as connection:
            kept = connection.table("segments").filter("kept").aggregate("language, shard, count(*)")
            rows = checked(kept.fetchall)
        return {shard_name(language, index): count for language, index, count in sorted(rows)}

    def kept_by_shard(self, columns: Sequence[str]) -> dict[str, pa.Table]:
        """Read the kept segments of each shard of the view, in the order of its tar."""
        with self._connect(columns, threads=1) as connection:
            rows = connection.table("segments").filter("kept").order(TAR_ORDER)
            table = checked(lambda: rows.select(*map(quote_name, columns)).to_arrow_table())
        return {
            shard: table.filter((pc.field("language") == language) & (pc.field("shard") == number))
            for shard, (language, number) in self._numbers.items()
        }

    def _checked_condition(self, where: str | None) -> str | None:
        return None if where is None else parse_condition(where, self.column_types).text

    def _connect(
        self, columns: Sequence[str] | None = None, threads: int | None = None, with_videos: bool = False
    ) -> duckdb.DuckDBPyConnection:
        """Open the database; if it is known that only some columns are read, annotations are joined if need be."""
        needed = columns is None or self.conditions or not set(columns) <= set(self.schema.names)
        annotations = self.annotations if needed else ()
        return open_database(self.store, self._numbers, self.schema, self.conditions, annotations, threads, with_videos)

    @property
    def _numbers(self) -> dict[str, tuple[str, int]]:
        """The language and the number of each committed shard."""
        return {shard: (commit.result.language, commit.result.index) for shard, commit in self.commits.items()}
