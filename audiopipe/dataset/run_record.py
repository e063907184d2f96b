"""The run that an output belongs to, as its `_run.json` records it."""

from __future__ import annotations

import runpy
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from audiopipe import __version__
from audiopipe.catalog.read import read_catalog
from audiopipe.config import OUTPUT_VERSION, RunConfig
from audiopipe.dataset.checksum import add_checksum, verify_checksum
from audiopipe.dataset.schema import (
    INFO_COLUMNS,
    SELECTION_COLUMNS,
    TAR_URL,
    arrow_type,
    catalog_columns,
    segments_schema,
)
from audiopipe.errors import ConfigError, VerifyError
from audiopipe.scorers.registry import stored_columns
from audiopipe.scorers.scorer import Column, Scorer
from audiopipe.store.objects import Store

__all__ = [
    "RUN_RECORD",
    "RunRecord",
    "ScorerRecord",
    "find_run_record",
    "open_run",
    "read_columns",
    "read_config",
    "read_run_record",
    "read_schema",
]

RUN_RECORD = "_run.json"

# The parameters that say where the videos and the files of scorers come from. They are not part of the digest; a retry
# needs them.
SOURCE_PARAMETERS = ("catalog", "source_prefix", "language", "partition_count", "scorers")

Value = str | float | bool | None


@dataclass(frozen=True, slots=True)
class ScorerRecord:
    """The name and version of a scorer, and the columns that tables have of it."""

    name: str
    version: str
    columns: tuple[Column, ...]

    @classmethod
    def of(cls, scorer: Scorer) -> Self:
        """Describe a scorer."""
        return cls(scorer.name, scorer.version, stored_columns([scorer]))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the scorer."""
        columns = [{key: value for key, value in asdict(column).items() if key != "stored"} for column in self.columns]
        return {"name": self.name, "version": self.version, "columns": columns}

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Read what `to_dict` returned."""
        return cls(body["name"], body["version"], tuple(Column(**column) for column in body["columns"]))


@dataclass(frozen=True, slots=True)
class RunRecord:
    """The content of `_run.json`.

    `config` holds the parameters that the bytes of the output depend on, `source` those that say where the videos come
    from, `versions` the versions of audiopipe and torch that the run was started with, `scorers` what was computed.
    `parent` says what a selection was made from (`selection.py`), and has the columns of annotations that it took over;
    it is None for a run. `catalog_columns` are those of the catalog that segments have.
    """

    run_id: str
    config_digest: str
    config: Mapping[str, Value]
    output_version: int
    source: Mapping[str, Value]
    versions: Mapping[str, str]
    scorers: Sequence[ScorerRecord]
    parent: Mapping[str, Any] | None = None
    catalog_columns: Sequence[Column] = ()

    @classmethod
    def of(cls, config: RunConfig, kept: Sequence[tuple[str, pa.DataType]] = ()) -> RunRecord:
        """Describe a new run.

        Args:
            kept: names and types of the columns of the catalog that segments get.

        Raises:
            ConfigError: a scorer or the catalog has the name of a column that every dataset has.
        """
        scorers = config.create_scorers()
        columns = stored_columns(scorers)
        segments_schema(columns)
        added = catalog_columns(kept, columns)
        if config.sidecar_info and (clashes := INFO_COLUMNS.keys() & {column.name for column in added}):
            raise ConfigError(f"keep_columns: {min(clashes)!r} is in the JSON of segments already, by sidecar_info")
        return cls(
            run_id=config.run_id or str(uuid.uuid4()),
            config_digest=config.digest,
            config=config.output_fields(),
            output_version=OUTPUT_VERSION,
            source={name: getattr(config, name) for name in SOURCE_PARAMETERS},
            versions={"audiopipe": __version__, "torch": _torch_version()},
            scorers=[ScorerRecord.of(scorer) for scorer in scorers],
            catalog_columns=added,
        )

    def to_json(self) -> bytes:
        """Serialize the record with a checksum."""
        body = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.parent is None:
            del body["parent"]
        del body["catalog_columns"]
        if self.catalog_columns:
            body["catalog_columns"] = [{"name": column.name, "type": column.type} for column in self.catalog_columns]
        return add_checksum(body | {"scorers": [scorer.to_dict() for scorer in self.scorers]})

    @classmethod
    def from_json(cls, data: bytes) -> RunRecord:
        """Read what `to_json` wrote; raise `VerifyError` if a byte of it has changed."""
        body = {"parent": None, "catalog_columns": [], **verify_checksum(data, RUN_RECORD)}
        try:
            values = {field.name: body[field.name] for field in fields(cls)}
            scorers = [ScorerRecord.from_dict(scorer) for scorer in body["scorers"]]
            kept = [(column["name"], arrow_type(column["type"])) for column in body["catalog_columns"]]
            columns = catalog_columns(kept, [column for scorer in scorers for column in scorer.columns])
            return cls(**values | {"scorers": scorers, "catalog_columns": columns})
        except KeyError as error:
            raise VerifyError(
                f"{RUN_RECORD} has no {error}: read this output with the audiopipe it was made by"
            ) from None

    @property
    def audio_format(self) -> str:
        """The codec of the audio, as in `RunConfig`."""
        return str(self.config["audio_format"])

    @property
    def duplicate_similarity(self) -> float | None:
        """The similarity from which on videos count as duplicates; None if duplicates are not searched."""
        value = self.config["duplicate_similarity"]
        return None if value is None else float(value)


def read_columns(run: RunRecord) -> tuple[Column, ...]:
    """Return the columns that an output's tables have of its scorers, of its catalog, and a selection's annotations."""
    taken = () if run.parent is None else map(ScorerRecord.from_dict, run.parent["annotations"])
    scores = [column for scorer in run.scorers for column in scorer.columns]
    return (*scores, *run.catalog_columns, *(column for scorer in taken for column in scorer.columns))


def read_schema(run: RunRecord) -> pa.Schema:
    """Return the schema of an output's table of segments."""
    schema = segments_schema(read_columns(run))
    if run.parent is None:
        return schema
    is_virtual = run.parent["options"]["virtual"]
    return pa.schema([*schema, *SELECTION_COLUMNS, *([(TAR_URL, pa.string())] if is_virtual else [])])


def open_run(store: Store, config: RunConfig) -> str:
    """Return the id of the run that an output belongs to; record a new run if there is none.

    With `keep_columns`, a new run reads the types of the catalog's columns.

    Raises:
        CatalogError, TransientError: as `read_catalog`.
        ConfigError: the output was made with parameters that give other bytes, or belongs to another run.
        VerifyError: the output's `_run.json` is damaged.
    """
    kept: Sequence[tuple[str, pa.DataType]] = ()
    if config.keep_columns is not None and store.size(RUN_RECORD) is None:
        kept = read_catalog(config.model_copy(update={"language": "all"})).kept_columns
    new = RunRecord.of(config, kept)
    if store.create(RUN_RECORD, new.to_json()):
        return new.run_id
    recorded = read_run_record(store)
    if recorded.parent is not None:
        raise ConfigError(f"{store.url} holds a selection of {recorded.parent['url']}: choose another output")
    if recorded.config_digest != new.config_digest:
        raise ConfigError(
            f"{store.url} holds a run made with other parameters ({_differences(recorded, new)}): "
            "use those again, or choose another output"
        )
    if config.run_id not in (None, recorded.run_id):
        raise ConfigError(f"{store.url} holds run {recorded.run_id}, not {config.run_id}: leave run_id out to resume")
    return recorded.run_id


def read_run_record(store: Store) -> RunRecord:
    """Read the record of an output's run.

    Raises:
        VerifyError: this is not the output of a run, or its `_run.json` is damaged.
    """
    if (record := find_run_record(store)) is None:
        raise VerifyError(f"{store.url} has no {RUN_RECORD}: it is not the output of a run; check the address")
    return record


def find_run_record(store: Store) -> RunRecord | None:
    """Read the record of an output's run; return None if there is none.

    Raises:
        VerifyError: the output's `_run.json` is damaged.
    """
    try:
        return RunRecord.from_json(store.read(RUN_RECORD))
    except FileNotFoundError:
        return None


def read_config(store: Store, **parameters: object) -> RunConfig:
    """Rebuild the config of an output's run from the output alone; given parameters replace the recorded ones.

    Raises:
        VerifyError: as `read_run_record`.
        ConfigError: the run was made by a version whose parameters this one does not know.
    """
    record = read_run_record(store)
    return RunConfig.of(**{**record.config, **record.source, "output": store.url, **parameters})


def _differences(recorded: RunRecord, new: RunRecord) -> str:
    names = sorted(recorded.config.keys() | new.config.keys())
    texts = [
        f"{name}: {recorded.config.get(name)} there, {new.config.get(name)} here"
        for name in names
        if recorded.config.get(name) != new.config.get(name)
    ]
    return "; ".join(texts) or f"output version {recorded.output_version} there, {new.output_version} here"


def _torch_version() -> str:
    """Return `torch.__version__`, with its build, without importing PyTorch, which takes a driver 0.5 GB."""
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    return str(runpy.run_path(str(Path(spec.origin).with_name("version.py")))["__version__"])
