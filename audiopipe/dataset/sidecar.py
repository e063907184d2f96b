"""Define the JSON next to the audio of a sample: its fields, their types, and how a missing value is written.

Loaders infer types from values. A text that does not exist is empty and a flag false, as null would be another type. A
number that does not exist is null, as JSON has no NaN; `sample_order.py` and the dataset's card give it its type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa

from audiopipe.dataset.schema import INFO_COLUMNS, segments_schema
from audiopipe.scorers.scorer import Column
from audiopipe.types import Value, VideoInfo

__all__ = ["serialize_sidecar", "sidecar_types"]

# A sidecar does not depend on its own position in the tar.
NOT_IN_SIDECAR = ("kept", "drop_reason", "tar_offset", "audio_bytes")
MISSING: Mapping[str, str | bool] = {"string": "", "bool": False}


def sidecar_types(columns: Sequence[Column], with_info: bool) -> dict[str, str]:
    """Return the fields of a sidecar in order, each with its type: string, bool, int64, float64 or list<float64>.

    Args:
        columns: those of the scorers.
        with_info: the config's `sidecar_info`.
    """
    scores = {column.name for column in columns}
    schema = {field.name: _json_type(field.type) for field in segments_schema(columns)}
    fields = {name: kind for name, kind in schema.items() if name not in scores}
    ordered: dict[str, str] = {}
    for name, kind in fields.items():
        if name not in NOT_IN_SIDECAR:
            ordered[name] = kind
        if name == "sound_event":
            ordered["raw_text"] = "string"  # which is in no table
    if with_info:
        ordered |= dict.fromkeys(INFO_COLUMNS, "string")
    return ordered | {"sample_rate_hz": "int64"} | {name: schema[name] for name in schema if name in scores}


def serialize_sidecar(
    types: Mapping[str, str],
    row: Mapping[str, Any],
    scores: Mapping[str, Value],
    sample_rate_hz: int,
    info: VideoInfo | None,
) -> bytes:
    """Serialize the JSON member of a sample.

    Args:
        types: those of `sidecar_types`.
        row: a value for each column of the segments but those of scorers, and `raw_text`.
        scores: a value for each column of the scorers; None where it does not exist.
        info: the metadata of the video, if the sidecar is to have it.
    """
    values = {**row, "sample_rate_hz": sample_rate_hz}
    if info is not None:
        values |= {column: getattr(info, name) for column, name in INFO_COLUMNS.items()}
    for name, value in scores.items():
        values[name] = _shorten(value)
    body = {name: MISSING.get(kind) if values[name] is None else values[name] for name, kind in types.items()}
    return json.dumps(body, ensure_ascii=False, default=_format_date).encode()


def _format_date(value: object) -> str:
    """Return a date or time of the catalog as ISO 8601 writes it."""
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not a value of a sidecar")


def _shorten(value: Value) -> Value:
    """Round floats to the digits that a float32 has."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    return [float(f"{number:.6g}") for number in value] if isinstance(value, list) else value


def _json_type(column: pa.DataType) -> str:
    """Return the type that loaders infer for a column's values in JSON."""
    if pa.types.is_integer(column):
        return "int64"
    if pa.types.is_list(column):
        return f"list<{_json_type(column.value_type)}>"
    if pa.types.is_temporal(column):
        return "string"
    return "float64" if pa.types.is_floating(column) else str(column)
