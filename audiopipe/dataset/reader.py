"""Read a dataset: its tables by SQL, its audio segment by segment.

A dataset can be read at any fsspec URL, during a run (what is committed so far) and after it. Tables are scanned by
DuckDB, which reads only the columns and rows that a query needs; the audio of a segment is one ranged read of its tar.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import soundfile as sf

from audiopipe.dataset.commit import Commit, read_commits
from audiopipe.dataset.run_record import read_run_record
from audiopipe.dataset.schema import METRIC_NAMES, SEGMENTS_SCHEMA, VIDEOS_SCHEMA, object_names
from audiopipe.dataset.totals import Totals, effective_results
from audiopipe.errors import ConfigError
from audiopipe.plan.plan import load_plan
from audiopipe.store.objects import Store
from audiopipe.types import Seconds, ShardResult

__all__ = ["Dataset", "Segment"]

Result = TypeVar("Result")

# A video that was tried again has a row in each shard that the plan has it in.
LAST_VIDEOS = """
CREATE VIEW videos AS SELECT * FROM video_attempts
QUALIFY row_number() OVER (PARTITION BY language, video_id ORDER BY shard DESC) = 1
"""
ROWS_PER_READ = 1024  # rows of a table that an iteration holds at a time


@dataclass(frozen=True)
class Segment:
    """One segment of a dataset. `audio` is read when it is asked for, by one ranged read.

    `metrics` has the value of each metric by name, None where it does not exist; `row` has all columns of the segment.
    """

    key: str
    video_id: str
    language: str
    start_s: Seconds
    end_s: Seconds
    text: str | None
    speaker: str | None
    metrics: Mapping[str, float | None]
    row: Mapping[str, Any]
    _store: Store

    def __repr__(self) -> str:
        return f"Segment({self.key!r}, {self.language}, {self.start_s:.2f}-{self.end_s:.2f} s, {self.text!r})"

    @property
    def duration_s(self) -> Seconds:
        """The length of the audio in seconds."""
        return float(self.row["duration_s"])

    @property
    def tar(self) -> str:
        """The name of the tar that holds the audio, relative to the dataset."""
        return object_names(self.language, int(self.row["shard"]))["audio"]

    def read_bytes(self) -> bytes:
        """Read the encoded audio, in the format of the dataset (FLAC by default).

        Raises:
            ConfigError: the segment was dropped, so that the dataset has no audio of it.
            FileNotFoundError: the tar is missing; `verify` reports what else is.
        """
        if self.row["tar_offset"] is None:
            raise ConfigError(
                f"segment {self.key} was dropped ({self.row['drop_reason']}): the dataset has no audio of it"
            )
        return self._store.read_range(self.tar, int(self.row["tar_offset"]), int(self.row["audio_bytes"]))

    @cached_property
    def _decoded(self) -> tuple[npt.NDArray[np.float32], int]:
        samples, rate = sf.read(io.BytesIO(self.read_bytes()), dtype="float32")
        return samples, int(rate)

    @property
    def audio(self) -> npt.NDArray[np.float32]:
        """The samples, mono [T] in -1..1; raises as `read_bytes`."""
        return self._decoded[0]

    @property
    def sample_rate(self) -> int:
        """The sample rate of `audio` in Hz; raises as `read_bytes`."""
        return self._decoded[1]


class Dataset:
    """The segments of an output, or of those a condition holds for.

        dataset = Dataset("s3://speech/en")
        for segment in dataset.filter("snr_db > 20"):
            segment.audio, segment.text, segment.metrics["loudness_lufs"]

    Iteration and `len` count kept segments, which have audio; the tables have the dropped ones too, with their reason.
    What is committed is listed once; `refresh` lists it again during a run.

    Raises:
        VerifyError: there is no output of a run at that address, or it is damaged.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.store = Store(url)
        self.run = read_run_record(self.store)
        self.conditions: tuple[str, ...] = ()

    def __repr__(self) -> str:
        chosen = f".filter({' AND '.join(self.conditions)!r})" if self.conditions else ""
        return f"Dataset({self.url!r}){chosen}: {len(self):,} segments of {len(self.commits):,} shards"

    def refresh(self) -> Dataset:
        """Return the same view of what is committed by now."""
        return self._view(self.conditions, {})

    def filter(self, condition: str) -> Dataset:
        """Return a view of the segments that a SQL condition over their columns holds for, on top of earlier ones.

        Raises:
            ConfigError: the condition has an unknown column or is not valid SQL.
        """
        view = self._view((*self.conditions, condition), {"commits": self.commits})
        view._connect().close()
        return view

    def select_shards(self, shards: Iterable[str]) -> Dataset:
        """Return a view of some committed shards. Nothing is read from the others."""
        return self._view(self.conditions, {"commits": {shard: self.commits[shard] for shard in shards}})

    def _view(self, conditions: tuple[str, ...], shared: Mapping[str, Any]) -> Dataset:
        view = object.__new__(Dataset)
        view.__dict__.update(url=self.url, store=self.store, run=self.run, conditions=conditions, **shared)
        return view

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

    def segments(self, columns: Sequence[str] | None = None, where: str | None = None) -> pa.Table:
        """Read the table of segments, kept and dropped, in the order of shards, videos and segments.

        Args:
            columns: those to read; all by default.
            where: a SQL condition over all columns, in addition to those of the view.

        Raises:
            ConfigError: there is no such column, or the condition is not valid SQL.
        """
        with self._connect() as connection:
            rows = _where(connection.table("segments"), where).order("language, shard, video_id, segment")
            return _checked(lambda: rows.select(*map(_quoted, columns or SEGMENTS_SCHEMA.names)).to_arrow_table())

    def videos(self) -> pa.Table:
        """Read the table of videos; of a video that was tried again, the last row."""
        with self._connect() as connection:
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
        with self._connect() as connection:
            statements = _checked(lambda: connection.extract_statements(sql))
            if [statement.type for statement in statements] != [duckdb.StatementType.SELECT]:
                raise ConfigError(f"a query is one SELECT over the tables segments and videos, not: {sql}")
            table: pa.Table = _checked(lambda: connection.sql(sql).to_arrow_table())
            return table

    def __len__(self) -> int:
        with self._connect() as connection:
            [(count,)] = connection.table("segments").filter("kept").aggregate("count(*)").fetchall()
            return int(count)

    def __iter__(self) -> Iterator[Segment]:
        """Iterate over the kept segments in the order of their tars."""
        with self._connect() as connection:
            rows = connection.table("segments").filter("kept").order("language, shard, tar_offset")
            for batch in rows.to_arrow_reader(ROWS_PER_READ):
                for row in batch.to_pylist():
                    yield self._segment(row)

    def __getitem__(self, key: str) -> Segment:
        """Return the segment with a key, kept or dropped; raises KeyError if the view has none."""
        rows = self.segments(where=f"key = '{key.replace(chr(39), chr(39) * 2)}'").to_pylist()
        if not rows:
            raise KeyError(key)
        return self._segment(rows[0])

    def _segment(self, row: dict[str, Any]) -> Segment:
        fields = {name: row[name] for name in ("key", "video_id", "language", "start_s", "end_s", "text", "speaker")}
        metrics = {name: _finite(row[name]) for name in METRIC_NAMES}
        return Segment(**fields, metrics=metrics, row=row, _store=self.store)

    def _connect(self) -> duckdb.DuckDBPyConnection:
        """Open a database that has the tables `segments` and `videos`, and can reach nothing but their files."""
        connection = duckdb.connect()
        if self.store.local_folder is None:
            connection.register_filesystem(self.store.fs)
        segments, videos = (self._addresses(role) for role in ("segments", "videos"))
        connection.execute("SET allowed_paths = $paths", {"paths": segments + videos})
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        rows = _table(connection, segments, SEGMENTS_SCHEMA)
        for condition in self.conditions:
            rows = _where(rows, condition)
        rows.create_view("segments")
        _table(connection, videos, VIDEOS_SCHEMA).create_view("video_attempts")
        connection.execute(LAST_VIDEOS)
        return connection

    def _addresses(self, role: str) -> list[str]:
        """List the tables of the committed shards, as DuckDB opens them."""
        shards = [(commit.result.language, int(shard.rsplit("-", 1)[1])) for shard, commit in self.commits.items()]
        paths = [self.store.path(object_names(*shard)[role]) for shard in sorted(shards)]
        return (
            paths
            if self.store.local_folder is not None
            else [str(self.store.fs.unstrip_protocol(path)) for path in paths]
        )


def _table(connection: duckdb.DuckDBPyConnection, paths: list[str], schema: pa.Schema) -> duckdb.DuckDBPyRelation:
    return connection.read_parquet(paths) if paths else connection.from_arrow(schema.empty_table())


def _where(rows: duckdb.DuckDBPyRelation, condition: str | None) -> duckdb.DuckDBPyRelation:
    return rows if condition is None else _checked(lambda: rows.filter(condition))


def _checked(run: Callable[[], Result]) -> Result:
    """Run a query; what DuckDB says of wrong SQL becomes a ConfigError."""
    try:
        return run()
    except (duckdb.ProgrammingError, duckdb.DataError, duckdb.PermissionException) as error:
        raise ConfigError(f"the condition or query is not valid: {error}") from None


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
