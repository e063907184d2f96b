"""The plan's files: one Parquet a language and generation, with the facts it was made from in the schema's metadata."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Protocol, Self

import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.catalog import read as catalog
from audiopipe.errors import PlanError
from audiopipe.store.parquet import read_table

__all__ = ["PLAN_FOLDER", "PLAN_SCHEMA", "ObjectStore", "PlanFile", "plan_path", "read_files", "serialize"]

PLAN_FOLDER = "_plan"
PATH = re.compile(rf"{PLAN_FOLDER}/(?P<language>.+)-(?P<generation>\d{{3,}})\.parquet")
VERSION = 1
PLAN_SCHEMA = pa.schema(
    [("shard", pa.int32()), ("position", pa.int32()), ("partition", pa.int32()), *catalog.CATALOG_SCHEMA]
)


class ObjectStore(Protocol):
    """What a plan needs of the output's store."""

    def create(self, name: str, data: bytes) -> bool: ...
    def read(self, name: str) -> bytes: ...
    def list(self, prefix: str) -> dict[str, int]: ...


@dataclass(frozen=True)
class PlanFile:
    """A file of the plan, read. `facts` are a dict of JSON: version, generation, partition_count, languages, …"""

    path: str
    table: pa.Table
    metadata: dict[str, Any]

    @classmethod
    def parse(cls, path: str, data: bytes) -> Self:
        """Read a file's bytes; raises `PlanError` if they are no plan, or one of another version."""
        try:
            table = read_table(data)
            facts = json.loads((table.schema.metadata or {})[b"audiopipe"])
        except (pa.ArrowException, OSError, KeyError, ValueError) as error:
            raise PlanError(f"{path} is no plan ({error}); `audiopipe verify OUTPUT` says what mends it") from error
        if facts["version"] != VERSION or table.schema.remove_metadata() != PLAN_SCHEMA:
            raise PlanError(
                f"{path} is a plan of version {facts['version']}, not {VERSION}; use the audiopipe it is of"
            )
        return cls(path, table.replace_schema_metadata(), facts)

    def check_partition_count(self, partition_count: int | None) -> Self:
        """Itself, if it was made for that many partitions (None: any); else `PlanError`."""
        made_for = self.metadata["partition_count"]
        if partition_count not in (None, made_for):
            raise PlanError(
                f"{self.path} was made for partition_count {made_for}, not {partition_count}; all drivers of a run "
                f"need the same: set partition_count to {made_for}, or start on an empty output"
            )
        return self


def plan_path(language: str, generation: int) -> str:
    return f"{PLAN_FOLDER}/{language}-{generation:03d}.parquet"


def serialize(table: pa.Table, metadata: dict[str, Any]) -> bytes:
    """The file of a table with the columns of `SCHEMA`: the same bytes for the same rows and facts."""
    told = json.dumps({"version": VERSION, **metadata}, sort_keys=True)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"audiopipe": told}), sink, compression="zstd")
    return bytes(sink.getvalue())


def read_files(store: ObjectStore, partition_count: int | None = None) -> dict[str, list[PlanFile]]:
    """The files of each language, by generation; all of one `partition_count`, or `PlanError`."""
    named = [
        (match["language"], int(match["generation"])) for match in map(PATH.fullmatch, store.list(PLAN_FOLDER)) if match
    ]
    files: dict[str, list[PlanFile]] = {}
    for language, generation in sorted(named):
        path = plan_path(language, generation)
        file = PlanFile.parse(path, store.read(path)).check_partition_count(partition_count)
        partition_count = file.metadata["partition_count"]
        files.setdefault(language, []).append(file)
    return files
