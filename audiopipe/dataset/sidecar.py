"""Define the JSON next to the audio of a sample: its fields, their types, and how a missing value is written.

Loaders infer types from values. A text that does not exist is empty and a flag false, as null would be another type. A
metric that does not exist is null, as JSON has no NaN; `sample_order.py` and the dataset's card give it its type.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from audiopipe.dataset.schema import INFO_COLUMNS, METRIC_NAMES, SEGMENTS_SCHEMA
from audiopipe.types import VideoInfo

__all__ = ["serialize_sidecar", "sidecar_types"]

# A sidecar does not depend on its own position in the tar.
NOT_IN_SIDECAR = ("kept", "drop_reason", "tar_offset", "audio_bytes")
MISSING: Mapping[str, str | bool] = {"string": "", "bool": False}


@cache
def sidecar_types(with_info: bool) -> Mapping[str, str]:
    """Return the fields of a sidecar in order, each with its type: string, bool, int64 or float64.

    Args:
        with_info: the config's `sidecar_info`.
    """
    fields = {column.name: _json_type(column.type) for column in SEGMENTS_SCHEMA if column.name not in METRIC_NAMES}
    ordered: dict[str, str] = {}
    for name, kind in fields.items():
        if name not in NOT_IN_SIDECAR:
            ordered[name] = kind
        if name == "sound_event":
            ordered["raw_text"] = "string"  # which is in no table
    if with_info:
        ordered |= dict.fromkeys(INFO_COLUMNS, "string")
    return ordered | {"sample_rate_hz": "int64"} | dict.fromkeys(METRIC_NAMES, "float64")


def serialize_sidecar(
    row: Mapping[str, Any], metrics: npt.NDArray[np.float64], sample_rate_hz: int, info: VideoInfo | None
) -> bytes:
    """Serialize the JSON member of a sample.

    Args:
        row: a value for each column of the segments but the metrics, and `raw_text`.
        metrics: in the order of `METRIC_NAMES`.
        info: the metadata of the video, if the sidecar is to have it.
    """
    values = dict(row) | {"sample_rate_hz": sample_rate_hz}
    if info is not None:
        values |= {column: getattr(info, name) for column, name in INFO_COLUMNS.items()}
    for name, value in zip(METRIC_NAMES, metrics.tolist(), strict=True):
        values[name] = float(f"{value:.6g}") if math.isfinite(value) else None
    body = {
        name: MISSING.get(kind) if values[name] is None else values[name]
        for name, kind in sidecar_types(info is not None).items()
    }
    return json.dumps(body, ensure_ascii=False).encode()


def _json_type(column: pa.DataType) -> str:
    """Return the type that loaders infer for a column's values in JSON."""
    if pa.types.is_integer(column):
        return "int64"
    return "float64" if pa.types.is_floating(column) else str(column)
