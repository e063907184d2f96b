"""Define the columns of an output's tables, the names of its objects and the keys of its samples."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from audiopipe.errors import ConfigError
from audiopipe.metrics import METRICS
from audiopipe.scorers.scorer import Column

__all__ = [
    "COLUMN_TYPES",
    "DESCRIPTION",
    "INFO_COLUMNS",
    "METRIC_NAMES",
    "RESERVED_COLUMNS",
    "SELECTION_COLUMNS",
    "TAR_URL",
    "VIDEOS_SCHEMA",
    "CatalogColumn",
    "arrow_type",
    "catalog_columns",
    "is_audio_tar",
    "is_number",
    "object_names",
    "sample_key",
    "segments_schema",
]

DESCRIPTION = "dataset.json"  # the object that describes a whole dataset
METRIC_NAMES: tuple[str, ...] = tuple(METRICS)  # the columns of the scorer `signal`
COLUMN_TYPES: dict[str, pa.DataType] = {
    "float": pa.float32(),
    "int": pa.int32(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "floats": pa.list_(pa.float32()),
}

# A value that does not exist is null, never NaN: DuckDB's average over a column with one NaN is NaN. The loudness of
# silence, minus infinity, is null as well.
# A kept segment's audio is `audio_bytes` bytes of its shard's tar, from `tar_offset` on. Where it was dropped, both are
# null; with `keep_dropped` they are those of the shard's tar of dropped segments.
COLUMNS_BEFORE_SCORES = pa.schema(
    [
        ("key", pa.string()),
        ("video_id", pa.string()),
        ("language", pa.string()),
        ("shard", pa.int32()),
        ("segment", pa.int32()),
        ("start_s", pa.float64()),
        ("end_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("text", pa.string()),
        ("speaker", pa.string()),
        ("sound_event", pa.bool_()),
        ("segment_times", pa.string()),
        ("kept", pa.bool_()),
        ("drop_reason", pa.string()),
    ]
)
COLUMNS_AFTER_SCORES = pa.schema(
    [
        ("tar_offset", pa.int64()),
        ("audio_bytes", pa.int64()),
        ("source_uri", pa.string()),
        ("source_etag", pa.string()),
        ("container", pa.string()),
        ("codec", pa.string()),
        ("source_rate_hz", pa.int32()),
        ("source_channels", pa.int32()),
        ("gain_db", pa.float32()),
        ("config_digest", pa.string()),
        ("version", pa.string()),
    ]
)
# Of a selection: the split, and the shard, tar and position of the audio in the dataset that it was made from.
SELECTION_COLUMNS = pa.schema(
    [
        ("split", pa.string()),
        ("parent_shard", pa.int32()),
        ("parent_tar", pa.string()),
        ("parent_offset", pa.int64()),
    ]
)
UTC_TIME = "timestamp[us, tz=UTC]"
TAR_URL = "tar_url"  # of a virtual selection: the address of the tar that `tar_offset` and `audio_bytes` belong to
RESERVED_COLUMNS = (*SELECTION_COLUMNS.names, TAR_URL)  # a selection adds them, so that no scorer or annotation may
# The columns of a video's metadata, with the names of `VideoInfo`; also of a sidecar with `sidecar_info`.
INFO_COLUMNS = {
    "title": "title",
    "channel": "channel",
    "upload_date": "upload_date",
    "chapters": "chapters",
    "info_language": "language",
}
VIDEOS_SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("language", pa.string()),
        ("shard", pa.int32()),
        ("uri", pa.string()),
        ("attempts", pa.int32()),
        ("status", pa.string()),
        ("error_stage", pa.string()),
        ("error_type", pa.string()),
        ("error_message", pa.string()),
        ("retriable", pa.bool_()),
        ("duration_s", pa.float64()),
        ("declared_s", pa.float64()),
        ("gap_s", pa.float64()),
        ("container", pa.string()),
        ("codec", pa.string()),
        ("source_rate_hz", pa.int32()),
        ("source_channels", pa.int32()),
        ("audio_track", pa.string()),
        ("audio_channel", pa.string()),  # mean; left, right or a number from 0 where the channels cancel in the mean
        ("captions", pa.string()),
        *((name, pa.string()) for name in INFO_COLUMNS),
        ("notes", pa.string()),
        ("source_bytes", pa.int64()),
        ("source_etag", pa.string()),
        ("segments", pa.int32()),
        ("segments_kept", pa.int32()),
        ("fingerprint", pa.binary()),
    ]
)


@dataclass(frozen=True, slots=True)
class CatalogColumn(Column):
    """A column of the catalog that segments have because of `keep_columns`."""


def segments_schema(columns: Sequence[Column]) -> pa.Schema:
    """Return the schema of the table of segments.

    Args:
        columns: those of the output's scorers, as `run_record.read_columns` returns them.

    Raises:
        ConfigError: a scorer's column has the name of another column, or of one that a selection adds.
    """
    fields = [pa.field(column.name, arrow_type(column.type)) for column in columns if column.stored]
    schema = pa.schema([*COLUMNS_BEFORE_SCORES, *fields, *COLUMNS_AFTER_SCORES])
    reserved = [name for name in schema.names if schema.names.count(name) > 1 or name in RESERVED_COLUMNS]
    if reserved:
        raise ConfigError(
            f"a scorer has the column '{min(reserved)}', which every dataset or selection has: it must be renamed"
        )
    return schema


def catalog_columns(fields: Sequence[tuple[str, pa.DataType]], others: Sequence[Column]) -> tuple[Column, ...]:
    """Describe the columns of the catalog that segments get.

    Args:
        fields: names and types, as `Catalog.kept_columns`.
        others: the columns of the output's scorers.

    Raises:
        ConfigError: a column has the name of another, in whatever case, as SQL ignores it.
    """
    taken = {name.casefold() for name in (*segments_schema(others).names, *RESERVED_COLUMNS, "raw_text", "audio")}
    clashes = [name for name, _ in fields if name.casefold() in taken]
    if clashes:
        renamed = [f"catalog_{name}={name}" if name in clashes else name for name, _ in fields]
        raise ConfigError(
            f"keep_columns: segments have a column {', '.join(map(repr, clashes))} already; give another name, as in "
            f"--keep-columns {','.join(renamed)}, or leave it out"
        )
    return tuple(CatalogColumn(name, _type_name(kind), "", "column of the catalog") for name, kind in fields)


def arrow_type(name: str) -> pa.DataType:
    """Return the type of a column in tables, by its name in `_run.json`: that of a scorer's column, or Arrow's."""
    if name in COLUMN_TYPES:
        return COLUMN_TYPES[name]
    if name.startswith("list<"):
        return pa.list_(arrow_type(name[5:-1]))
    return pa.timestamp("us", "UTC") if name == UTC_TIME else pa.type_for_alias(name)


def is_number(name: str) -> bool:
    """Check whether a column has numbers or lists of them, by the name of its type."""
    kind = arrow_type(name)
    kind = kind.value_type if pa.types.is_list(kind) else kind
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list<{_type_name(kind.value_type)}>"
    return "date32" if pa.types.is_date32(kind) else str(kind)


def object_names(language: str, index: int) -> dict[str, str]:
    """Return the final names of a shard's objects in the output, by role."""
    number = f"{index:06d}"
    return {
        "audio": f"{language}/audio_{number}.tar",
        "dropped": f"{language}/dropped_{number}.tar",  # with keep_dropped only
        "segments": f"{language}/segments_{number}.parquet",
        "videos": f"{language}/videos_{number}.parquet",
        "manifest": f"{language}/manifest_{number}.json",
    }


def sample_key(video_id: str, index: int) -> str:
    """Return a member name without suffix: no "." (WebDataset ends the key there), no "/", different for other ids."""
    safe = re.sub(r"[^A-Za-z0-9_-]", lambda match: "".join(f"={byte:02x}" for byte in match[0].encode()), video_id)
    if len(safe) > 80:
        safe = f"=sha256={hashlib.sha256(video_id.encode()).hexdigest()[:40]}"
    return f"{safe}_{index:05d}"


def is_audio_tar(name: str) -> bool:
    """Check whether an object is a tar of kept segments, which loaders are given."""
    return name.endswith(".tar") and name.rpartition("/")[2].startswith("audio_")
