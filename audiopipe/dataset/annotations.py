"""Columns that are added to a dataset after its run: their objects in the output, and their join with the segments.

    _annotations/<name>-<version>/columns.json       the columns and their source; created once
    _annotations/<name>-<version>/<shard>.parquet    a row for each segment of the shard, in the order of its table
    _annotations/<name>-<version>/<shard>.json       the commit of that table, created once, as for shards

A table has `language`, `shard` and `key` of the segments, and the columns; a value that does not exist is null.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

import pyarrow as pa

from audiopipe.dataset.checksum import add_checksum, verify_checksum
from audiopipe.dataset.schema import COLUMN_TYPES, RESERVED_COLUMNS
from audiopipe.errors import ConfigError, VerifyError
from audiopipe.scorers.scorer import Column
from audiopipe.store.objects import Store

if TYPE_CHECKING:
    import duckdb  # workers use these modules, and the machine of a GPU check lacks DuckDB

__all__ = [
    "ANNOTATIONS",
    "COLUMNS",
    "KEYS",
    "Annotation",
    "AnnotationRecord",
    "annotation_paths",
    "annotation_schema",
    "annotation_shard_of",
    "check_columns",
    "is_annotation_record",
    "join_annotations",
    "list_annotations",
    "open_annotation",
]

ANNOTATIONS = "_annotations"
COLUMNS = "columns.json"
KEYS = ("language", "shard", "key")  # a video may be in two languages, so that its keys are too
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
COLUMN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")

Source = Mapping[str, str | bool]


@dataclass(frozen=True, slots=True)
class AnnotationRecord:
    """The content of an annotation's `columns.json`.

    Attributes:
        version: that of the scorer, or a digest of the file that the values are from.
        source: where the values are from: a scorer with its options, or a file with its sha256.
    """

    name: str
    version: str
    columns: tuple[Column, ...]
    source: Source = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError(f"annotation '{self.name}': a name has 1 to 64 letters, digits, '-' and '_'")
        if not VERSION.fullmatch(self.version):
            raise ConfigError(f"annotation '{self.name}': '{self.version}' is not a version of letters, digits and '.'")

    @property
    def id(self) -> str:
        """The name of its folder."""
        return f"{self.name}-{self.version}"

    @property
    def folder(self) -> str:
        """The folder of its objects in the output."""
        return f"{ANNOTATIONS}/{self.id}"

    @property
    def columns_name(self) -> str:
        """The name of its `columns.json`."""
        return f"{self.folder}/{COLUMNS}"

    @property
    def digest(self) -> str:
        """16 hex digits of a SHA-256 over the record, which each of its commits has."""
        return hashlib.sha256(self.to_json()).hexdigest()[:16]

    def commit_name(self, shard: str) -> str:
        """Return the name of the commit of a shard's table."""
        return f"{self.folder}/{shard}.json"

    def table_name(self, shard: str) -> str:
        """Return the name of a shard's table."""
        return f"{self.folder}/{shard}.parquet"

    def command(self, url: str) -> str:
        """Return the command that makes the annotation, or what it lacks."""
        command, source = f"audiopipe annotate {shlex.quote(url)}", self.source
        if "file" not in source:
            return f"{command} --scorers {shlex.quote(str(source['scorer']))}{source.get('options', '')}"
        key, columns = str(source["key"]), ",".join(column.name for column in self.columns)
        key_option = f" --key-column {shlex.quote(key)}" if "," not in key and key != "key" else ""
        file = f"--from {shlex.quote(str(source['file']))} --name {self.name}"
        return f"{command} {file}{key_option} --columns {shlex.quote(columns)}"

    def to_json(self) -> bytes:
        """Serialize the record with a checksum."""
        body = asdict(self)
        return add_checksum(body | {"columns": [asdict(column) for column in self.columns]})

    @classmethod
    def from_json(cls, data: bytes, name: str = COLUMNS) -> AnnotationRecord:
        """Read what `to_json` wrote; raise `VerifyError` if a byte of it has changed."""
        body = verify_checksum(data, name)
        try:
            body["columns"] = tuple(Column(**column) for column in body["columns"])
            return cls(**{item.name: body[item.name] for item in fields(cls)})
        except (KeyError, TypeError, ConfigError) as error:
            raise VerifyError(f"{name} cannot be read by this version of audiopipe: {error}") from None


@dataclass(frozen=True)
class Annotation:
    """An annotation of an output, and the shards for which it is committed and published."""

    record: AnnotationRecord
    shards: frozenset[str]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that it adds to the segments."""
        return self.record.columns

    def tables(self, shards: Iterable[str]) -> list[str]:
        """Return the names of its tables of some shards, in their order; a shard that is not annotated has none."""
        return [self.record.table_name(shard) for shard in shards if shard in self.shards]


def is_annotation_record(name: str) -> bool:
    """Check whether an object is the `columns.json` of an annotation."""
    return name.startswith(f"{ANNOTATIONS}/") and name.endswith(f"/{COLUMNS}") and name.count("/") == 2


def annotation_shard_of(name: str) -> str:
    """Return the shard in the name of a commit or a table of an annotation."""
    return name.rpartition("/")[2].removesuffix(".json").removesuffix(".parquet")


def annotation_schema(columns: Sequence[Column]) -> pa.Schema:
    """Return the schema of an annotation's tables."""
    keys = [("language", pa.string()), ("shard", pa.int32()), ("key", pa.string())]
    return pa.schema([*keys, *((column.name, COLUMN_TYPES[column.type]) for column in columns)])


def list_annotations(store: Store) -> tuple[Annotation, ...]:
    """Return the annotations of an output by name and version, with what is committed of each.

    Raises:
        VerifyError: a `columns.json` is damaged.
    """
    names, bodies = _read_records(store)
    annotations = []
    for name, body in bodies.items():
        record = AnnotationRecord.from_json(body, name)
        start, end = f"{record.folder}/", ".parquet"
        tables = [item[len(start) : -len(end)] for item in names if item.startswith(start) and item.endswith(end)]
        shards = frozenset(shard for shard in tables if record.commit_name(shard) in names)
        annotations.append(Annotation(record, shards))
    return tuple(annotations)


def _read_records(store: Store) -> tuple[Mapping[str, int], dict[str, bytes]]:
    """List the objects of all annotations and read their records.

    Another process may remove a record between the two; a new list does not have it.
    """
    while True:
        names = store.list(ANNOTATIONS)
        records = [name for name in names if is_annotation_record(name)]
        try:
            return names, store.read_all(records)
        except FileNotFoundError:
            if store.list(ANNOTATIONS).keys() >= set(records):
                raise  # none was removed: the store lists objects that it does not have


def open_annotation(store: Store, record: AnnotationRecord, existing: Collection[str]) -> None:
    """Create an annotation, unless an equal one exists.

    Of several processes that do so at the same time, one creates it and the others read it. Two annotations that would
    add the same column refuse each other.

    Args:
        existing: names of the columns of the segments.

    Raises:
        ConfigError: it exists with other columns or another source, or a column's name is invalid or in use.
    """
    check_columns(store, record, existing)
    name = record.columns_name
    if not store.create(name, record.to_json()):
        recorded = AnnotationRecord.from_json(store.read(name), name)
        if recorded != record:
            raise ConfigError(
                f"annotation {record.id} of {store.url} exists and differs in {_differences(recorded, record)}: remove "
                f"it with `audiopipe annotate {store.url} --remove {record.id}`, or choose another name"
            )
        return
    try:
        # Another one may have been created since the first check. Whichever is created last finds the other.
        check_columns(store, record, existing)
    except ConfigError:
        store.remove_all([name])
        raise


def check_columns(store: Store, record: AnnotationRecord, existing: Collection[str]) -> None:
    """Check the columns of an annotation before it is created.

    Raises:
        ConfigError: a name is invalid, or is that of a column of the segments, of another annotation, or of
            selections.
    """
    used = {name.lower(): "the segments" for name in existing} | dict.fromkeys(KEYS, "every annotation")
    for annotation in list_annotations(store):
        if annotation.record.id != record.id:
            used |= {column.name.lower(): f"annotation {annotation.record.id}" for column in annotation.columns}
    if not record.columns:
        raise ConfigError(f"annotation '{record.name}' has no column")
    for column in record.columns:
        if not COLUMN_NAME.fullmatch(column.name):
            raise ConfigError(f"column '{column.name}': a name has 1 to 63 letters, digits and '_'; rename it")
        if column.name.lower() in RESERVED_COLUMNS:
            raise ConfigError(f"column '{column.name}' is one that `audiopipe select` adds: leave it out, rename it")
        owner = used.get(column.name.lower())
        if owner is not None:
            raise ConfigError(
                f"column '{column.name}' is already one of {owner} of {store.url}: leave it out, rename it"
            )
        used[column.name.lower()] = f"annotation {record.id}"


def _differences(recorded: AnnotationRecord, new: AnnotationRecord) -> str:
    """Describe what two records of one name and version differ in."""
    if recorded.columns != new.columns:
        there, new_names = (", ".join(column.name for column in item.columns) for item in (recorded, new))
        return (
            f"its columns ({there} there, {new_names} here)" if there != new_names else "the description of its columns"
        )
    names = sorted(recorded.source.keys() | new.source.keys())
    changed = [name for name in names if recorded.source.get(name) != new.source.get(name)]
    return ", ".join(f"{name} ({recorded.source.get(name)} there, {new.source.get(name)} here)" for name in changed)


def annotation_paths(store: Store, annotations: Iterable[Annotation], shards: Collection[str]) -> list[str]:
    """Return the tables of annotations as DuckDB opens them, for a connection that may open only known paths."""
    return [store.address(name) for annotation in annotations for name in annotation.tables(shards)]


def join_annotations(
    connection: duckdb.DuckDBPyConnection,
    segments: duckdb.DuckDBPyRelation,
    store: Store,
    annotations: Iterable[Annotation],
    shards: Collection[str],
) -> duckdb.DuckDBPyRelation:
    """Add the columns of annotations to a relation of segments, by language, shard and key.

    A segment that an annotation has no row for gets null. Nothing is read until the result is.

    Args:
        segments: with the columns `language`, `shard` and `key`.
        shards: names of the shards that `segments` has.
    """
    for number, annotation in enumerate(annotations):
        paths = annotation_paths(store, [annotation], shards)
        empty = annotation_schema(annotation.columns).empty_table()
        table = connection.read_parquet(paths) if paths else connection.from_arrow(empty)
        left, right = f"segments_{number}", f"annotation_{number}"
        segments.create_view(left)
        table.create_view(right)
        columns = ", ".join(f'{right}."{column.name}"' for column in annotation.columns)
        condition = " AND ".join(f"{left}.{name} = {right}.{name}" for name in KEYS)
        segments = connection.sql(f"SELECT {left}.*, {columns} FROM {left} LEFT JOIN {right} ON {condition}")
    return segments
