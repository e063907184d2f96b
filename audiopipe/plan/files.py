"""Read and write the files of a plan: one Parquet file for each language and generation.

The metadata of the Parquet schema records the parameters that the file was made with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.catalog.kept_columns import KEPT_FIELD
from audiopipe.catalog.read import CATALOG_SCHEMA, SEGMENTS_FIELD
from audiopipe.config import RunConfig
from audiopipe.errors import PlanError
from audiopipe.redaction import redact_address
from audiopipe.store.parquet import read_table

__all__ = [
    "ADDED_COLUMNS",
    "PLAN_FOLDER",
    "PLAN_SCHEMA",
    "ObjectStore",
    "PlanFile",
    "PlanMetadata",
    "plan_columns",
    "plan_path",
    "read_files",
    "serialize",
]

PLAN_FOLDER = "_plan"
PATH = re.compile(rf"{PLAN_FOLDER}/(?P<language>.+)-(?P<generation>\d{{3,}})\.parquet")
VERSION = 3
PLAN_SCHEMA = pa.schema([("shard", pa.int32()), ("position", pa.int32()), ("partition", pa.int32()), *CATALOG_SCHEMA])
ADDED_COLUMNS = (SEGMENTS_FIELD.name, KEPT_FIELD)
METADATA_KEY = b"audiopipe"


class ObjectStore(Protocol):
    """The operations of the output's store that a plan uses."""

    def create(self, name: str, data: bytes) -> bool: ...
    def read(self, name: str) -> bytes: ...
    def read_all(self, names: Sequence[str]) -> dict[str, bytes]: ...
    def list(self, prefix: str) -> dict[str, int]: ...


@dataclass(frozen=True)
class PlanMetadata:
    """The parameters that a file of the plan was made with.

    Attributes:
        languages: all languages of the catalog, if the plan was made for all of them; else None.
        kind: 'extend' or 'retry' for a later generation; None for generation 0.
        catalog_columns: the columns of the catalog, for generation 0.
    """

    generation: int
    partition_count: int
    shard_videos: int
    shard_mb: int
    shard_minutes: float
    languages: list[str] | None = None
    kind: str | None = None
    catalog_columns: list[str] | None = None

    @classmethod
    def of(
        cls,
        config: RunConfig,
        generation: int,
        *,
        languages: list[str] | None = None,
        kind: str | None = None,
        catalog_columns: list[str] | None = None,
    ) -> Self:
        """Take the parameters of the plan from a config."""
        return cls(
            generation=generation,
            partition_count=config.partition_count,
            shard_videos=config.shard_videos,
            shard_mb=config.shard_mb,
            shard_minutes=config.shard_minutes,
            languages=languages,
            kind=kind,
            catalog_columns=catalog_columns,
        )

    def to_json(self) -> str:
        """Serialize with the version of the format; `kind` and `catalog_columns` are left out if they are None."""
        fields = {"version": VERSION, **asdict(self)}
        optional = {name for name in ("kind", "catalog_columns") if fields[name] is None}
        return json.dumps({name: value for name, value in fields.items() if name not in optional}, sort_keys=True)


@dataclass(frozen=True)
class PlanFile:
    """A file of the plan with its rows and metadata."""

    path: str
    table: pa.Table
    metadata: PlanMetadata

    @classmethod
    def parse(cls, path: str, data: bytes) -> Self:
        """Parse the bytes of a file.

        Raises:
            PlanError: they are not a plan, or a plan of another version.
        """
        try:
            table = read_table(data)
            fields = json.loads((table.schema.metadata or {})[METADATA_KEY])
            version = fields.pop("version")
            metadata = PlanMetadata(**fields) if version == VERSION else None
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise PlanError(f"{path} is not a plan ({error}); run `audiopipe verify OUTPUT` to see a remedy") from error
        if metadata is None or not _is_plan_schema(table.schema):
            raise PlanError(f"{path} is a plan of version {version}, not {VERSION}; use the audiopipe that made it")
        return cls(path, table.replace_schema_metadata(), metadata)

    def check_partition_count(self, partition_count: int | None) -> None:
        """Raise `PlanError` unless the file was made for this number of partitions; None accepts any."""
        planned = self.metadata.partition_count
        if partition_count not in (None, planned):
            raise PlanError(
                f"{self.path} was made for partition_count {planned}, not {partition_count}; all drivers of a run "
                f"need the same number: set partition_count to {planned}, or start with an empty output"
            )


def _is_plan_schema(schema: pa.Schema) -> bool:
    """Check that a schema is `PLAN_SCHEMA`, followed by the columns that only some catalogs have."""
    first, added = list(schema)[: len(PLAN_SCHEMA)], schema.names[len(PLAN_SCHEMA) :]
    return pa.schema(first) == PLAN_SCHEMA and set(added) <= set(ADDED_COLUMNS)


def plan_columns(table: pa.Table) -> list[str]:
    """Return the names of a plan's columns for rows of a catalog, or the columns that such rows have in a plan."""
    return [*PLAN_SCHEMA.names, *(name for name in ADDED_COLUMNS if name in table.column_names)]


def plan_path(language: str, generation: int) -> str:
    """Return the name of a file of the plan in the output."""
    return f"{PLAN_FOLDER}/{language}-{generation:03d}.parquet"


def serialize(table: pa.Table, metadata: PlanMetadata) -> bytes:
    """Serialize a table with the columns of `PLAN_SCHEMA`: the same bytes for the same rows and metadata.

    Addresses are stored without their secrets (`addresses.py`).
    """
    sink = pa.BufferOutputStream()
    shown = pa.array([redact_address(uri) for uri in table["uri"].to_pylist()], pa.string())
    table = table.set_column(table.column_names.index("uri"), table.schema.field("uri"), shown)
    pq.write_table(table.replace_schema_metadata({METADATA_KEY: metadata.to_json()}), sink, compression="zstd")
    return bytes(sink.getvalue())


def read_files(store: ObjectStore, partition_count: int | None = None) -> dict[str, list[PlanFile]]:
    """Read the files of each language, in order of generation.

    Raises:
        PlanError: a file cannot be read, or was made for another `partition_count` than the argument or the others.
    """
    matches = filter(None, map(PATH.fullmatch, store.list(PLAN_FOLDER)))
    generations = sorted((match["language"], int(match["generation"])) for match in matches)
    files: dict[str, list[PlanFile]] = {}
    bodies = store.read_all([plan_path(*item) for item in generations])
    for language, generation in generations:
        path = plan_path(language, generation)
        file = PlanFile.parse(path, bodies.pop(path))
        file.check_partition_count(partition_count)
        partition_count = file.metadata.partition_count
        files.setdefault(language, []).append(file)
    return files
