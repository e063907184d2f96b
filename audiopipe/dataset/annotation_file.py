"""Read columns for segments from a table that was made elsewhere, and match it with the keys of an output.

DuckDB reads and joins out of core: its memory is bounded, and what does not fit is spilled to a local folder.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from fsspec.implementations.local import LocalFileSystem

from audiopipe.dataset.annotation_sql import (
    ID,
    READERS,
    SEPARATOR,
    column_type_of,
    id_sql,
    value_sql,
)
from audiopipe.dataset.annotations import KEYS, AnnotationRecord, annotation_schema
from audiopipe.dataset.sql import quote_name, quote_text
from audiopipe.errors import ConfigError, StoreError, WorkerFailure
from audiopipe.redaction import without_query
from audiopipe.scorers.scorer import Column, ColumnType
from audiopipe.store.objects import Store, open_filesystem
from audiopipe.store.retry import with_retries

__all__ = ["AnnotationFile", "KeyCounts"]

MEMORY_LIMIT = "1GB"
ROWS_PER_BATCH = 65_536
EXAMPLES = 3
INT32 = 2**31
SUFFIX = re.compile(r"\.(parquet|pq|csv|tsv|jsonl|ndjson)(\.(?:gz|zst))?$", re.IGNORECASE)
UNKNOWN = f"{ID} NOT IN (SELECT {ID} FROM segments)"


@dataclass(frozen=True)
class KeyCounts:
    """The comparison of a file's keys with those of an output.

    Attributes:
        rows: rows of the file.
        segments: segments of the committed shards.
        matched: segments that have a row.
        unknown: rows of keys that no segment has.
        examples: some of these keys.
    """

    rows: int
    segments: int
    matched: int
    unknown: int
    examples: tuple[str, ...]


class AnnotationFile:
    """A table of values for segments: Parquet, CSV, TSV or JSON lines at any address.

    Args:
        folder: local folder for a copy of a remote file, and for what does not fit into memory.
        key_column: the column with the segment's key; default: `key`, or else `video_id` and `segment`.
        columns: the columns to take; default: all but the keys.

    Raises:
        ConfigError: it cannot be read, or a column is missing or has a type that no annotation can have.
    """

    def __init__(
        self, url: str, folder: Path, key_column: str | None = None, columns: Sequence[str] | None = None
    ) -> None:
        self.name = PurePosixPath(without_query(url)).name
        match = SUFFIX.search(self.name)
        if match is None:
            raise ConfigError(f"annotations {url}: the name must end in .parquet, .csv, .tsv or .jsonl")
        self._format = match[1].lower()
        self._path = self._fetch(url, folder)
        with self._path.open("rb") as file:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self._connection = duckdb.connect(str(folder / "annotation.duckdb"))
        self._connection.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        self._connection.execute("SET temp_directory = $folder", {"folder": str(folder)})
        self._connection.execute("SET preserve_insertion_order = false")
        self.keys = self._load(key_column)
        self.columns = tuple(self._choose_columns(columns))

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def record(self, name: str | None = None) -> AnnotationRecord:
        """Describe the annotation. Its version is a digest of the file's bytes and of what is taken from it.

        Args:
            name: default: that of the file, without its suffix.
        """
        stem = re.sub(r"[^A-Za-z0-9_-]+", "-", SUFFIX.sub("", self.name)).strip("-_") or "file"
        body = [self.sha256, self.keys, [column.name for column in self.columns]]
        version = hashlib.sha256(json.dumps(body).encode()).hexdigest()[:12]
        source = {"file": self.name, "sha256": self.sha256, "key": ", ".join(self.keys)}
        return AnnotationRecord(name or stem, version, self.columns, source)

    def _fetch(self, url: str, folder: Path) -> Path:
        """Return the path of a local file, or copy a remote one."""
        fs, path = open_filesystem(url)
        target = Path(path) if isinstance(fs, LocalFileSystem) else folder / self.name
        try:
            if not isinstance(fs, LocalFileSystem):
                with_retries(f"reading {url}", lambda: fs.get_file(path, str(target)))
            if target.is_file():
                return target
        except FileNotFoundError:
            pass
        raise ConfigError(f"annotations {url}: the file does not exist")

    def _execute(self, sql: str, parameters: Mapping[str, object] | None = None) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except duckdb.OutOfMemoryException as error:
            raise WorkerFailure(f"annotations {self.name}: {_first_line(error)}") from None
        except duckdb.Error as error:
            raise ConfigError(f"annotations {self.name} cannot be read: {_first_line(error)}") from None

    def _load(self, key_column: str | None) -> tuple[str, ...]:
        """Read the file into the table `rows`, with the id of each row's segment; return the columns of the key."""
        parameters, source = {"path": str(self._path)}, READERS[self._format]
        names = [str(name) for name, *_ in self._execute(f"DESCRIBE SELECT * FROM {source}", parameters)]
        keys = self._choose_keys(names, key_column)
        if source.startswith("read_csv"):  # a key of digits is a text
            types = ", ".join(f"{quote_text(name)}: 'VARCHAR'" for name in keys if name != "segment")
            source = f"{source.removesuffix(')')}, types={{{types}}})"
        self._execute(f"CREATE TABLE rows AS SELECT {id_sql(keys)} AS {ID}, * FROM {source}", parameters)
        return keys

    def _choose_keys(self, names: Sequence[str], key_column: str | None) -> tuple[str, ...]:
        """Return the columns of the file that say which segment a row is for."""
        if key_column is not None and key_column not in names:
            raise ConfigError(f"annotations {self.name} has no column '{key_column}': it has {', '.join(names)}")
        if key_column is not None or "key" in names:
            keys: tuple[str, ...] = (key_column or "key",)
        elif {"video_id", "segment"} <= set(names):
            keys = ("video_id", "segment")
        else:
            raise ConfigError(
                f"annotations {self.name} has neither a column 'key' nor 'video_id' and 'segment': it has "
                f"{', '.join(names)}; name the one with the keys by --key-column"
            )
        return (*keys, "language") if "language" in names else keys

    def _choose_columns(self, chosen: Sequence[str] | None) -> Iterator[Column]:
        """Yield the columns to take; refuse those whose values cannot be stored."""
        types = {str(name): str(kind) for name, kind, *_ in self._execute("DESCRIBE rows")}
        types.pop(ID.strip('"'))
        keys = {*self.keys, *KEYS, "video_id", "segment"}
        names = [name for name in types if name not in keys] if chosen is None else list(chosen)
        if not names:
            raise ConfigError(f"annotations {self.name} has no column but {', '.join(types)}: there is nothing to add")
        for name in names:
            if name not in types:
                raise ConfigError(f"annotations {self.name} has no column '{name}': it has {', '.join(types)}")
            yield Column(name, self._type_of(name, types[name]), "", f"column {name} of {self.name}")

    def _type_of(self, name: str, kind: str) -> ColumnType:
        column_type = column_type_of(kind)
        if column_type is None:
            raise ConfigError(
                f"column '{name}' of {self.name} has the type {kind}: take numbers, texts, flags or lists of numbers"
            )
        if column_type == "int":
            ((low, high),) = self._execute(f"SELECT min({quote_name(name)}), max({quote_name(name)}) FROM rows")
            if low is not None and (low < -INT32 or high >= INT32):
                raise ConfigError(
                    f"column '{name}' of {self.name} has whole numbers of more than 32 bits ({low} to {high}): write "
                    "them as texts or with a decimal point"
                )
        return column_type

    def compare(self, store: Store, tables: Sequence[str]) -> KeyCounts:
        """Read the keys of an output, and count the segments that have a row of the file.

        Args:
            tables: the tables of segments, as DuckDB opens them.

        Raises:
            ConfigError: rows have no key, several rows have the same, or a key belongs to segments of two languages.
            StoreError: a table cannot be read.
        """
        if store.local_folder is None:
            self._connection.register_filesystem(store.fs)
        keys = tuple(name if name in ("video_id", "segment", "language") else "key" for name in self.keys)
        try:
            self._connection.execute(
                f"CREATE OR REPLACE TABLE segments AS SELECT {id_sql(keys)} AS {ID}, language, shard, key, "
                "file_row_number AS number FROM read_parquet($tables, file_row_number=true)",
                {"tables": list(tables)},
            )
        except (duckdb.IOException, OSError) as error:
            raise StoreError(f"reading the segments of {store.url}: {_first_line(error)}") from None
        self._refuse("rows", f"{ID} IS NULL", "rows have no key")
        self._refuse("rows", "true", "keys are there more than once", repeated=True)
        problem = "keys belong to segments of two languages: add a column 'language'"
        self._refuse("segments", f"{ID} IN (SELECT {ID} FROM rows)", problem, repeated=True)
        ((rows, unknown),) = self._execute(f"SELECT count(*), count(*) FILTER ({UNKNOWN}) FROM rows")
        ((total, matched),) = self._execute(
            f"SELECT count(*), count(*) FILTER ({ID} IN (SELECT {ID} FROM rows)) FROM segments"
        )
        examples = self._execute(f"SELECT {ID} FROM rows WHERE {UNKNOWN} ORDER BY 1 LIMIT {EXAMPLES}")
        return KeyCounts(rows, total, matched, unknown, tuple(_shown(text) for (text,) in examples))

    def _refuse(self, table: str, condition: str, problem: str, repeated: bool = False) -> None:
        """Raise if there are such rows, or such ids that are there more than once."""
        group = f"GROUP BY {ID} HAVING count(*) > 1" if repeated else ""
        rows = f"SELECT {ID} FROM {table} WHERE {condition} {group}"
        ((count,),) = self._execute(f"SELECT count(*) FROM ({rows})")
        if count:
            examples = self._execute(f"{rows} ORDER BY 1 LIMIT {EXAMPLES}")
            shown = ", ".join(_shown(text) for (text,) in examples if text is not None)
            raise ConfigError(f"annotations {self.name}: {count} {problem}{f' ({shown})' if shown else ''}")

    def shards(self) -> Iterator[tuple[str, int, pa.Table]]:
        """Yield language, number and table of each shard that has segments, in this order; `compare` must be first.

        A table has a row for each segment in the order of the shard, with null where the file has none.
        """
        schema = annotation_schema(self.columns)
        values = ", ".join(value_sql(column) for column in self.columns)
        rows = self._connection.sql(
            f"SELECT segments.language, segments.shard, segments.key, {values} "
            f"FROM segments LEFT JOIN rows USING ({ID}) ORDER BY segments.language, segments.shard, number"
        )
        parts: list[pa.Table] = []
        for batch in rows.to_arrow_reader(ROWS_PER_BATCH):
            for part in _split(pa.Table.from_batches([batch]).cast(schema)):
                if parts and _shard_of(parts[0]) != _shard_of(part):
                    yield *_shard_of(parts[0]), pa.concat_tables(parts)
                    parts = []
                parts.append(part)
        if parts:
            yield *_shard_of(parts[0]), pa.concat_tables(parts)


def _split(table: pa.Table) -> Iterator[pa.Table]:
    """Split a table in the order of shards into one for each shard."""
    changed = np.zeros(max(0, len(table) - 1), bool)
    for name in ("language", "shard"):
        changed |= pc.not_equal(table[name].slice(1), table[name].slice(0, len(changed))).to_numpy()
    starts = [0, *(np.flatnonzero(changed) + 1).tolist(), len(table)]
    for start, end in pairwise(starts):
        if end > start:
            yield table.slice(start, end - start)


def _shard_of(table: pa.Table) -> tuple[str, int]:
    return table["language"][0].as_py(), table["shard"][0].as_py()


def _shown(identity: str) -> str:
    return identity.replace(SEPARATOR, " ")


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
