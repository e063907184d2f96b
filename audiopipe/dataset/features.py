"""Describe tables with audio as Hugging Face's `datasets` does: the features in the metadata of their schema."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

__all__ = ["NOT_EXPORTED", "audio_schema"]

AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# Columns that say something about the place in the dataset, not about the segment.
NOT_EXPORTED = ("kept", "drop_reason", "tar_offset", "audio_bytes", "tar_url")


def audio_schema(columns: pa.Schema, sample_rate: int) -> pa.Schema:
    """Return the schema of an export: the audio and some columns, with Hugging Face's features in its metadata.

    The features are the same in every file, also where all values of a column are null.
    """
    features = features_of(columns, sample_rate)
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([pa.field("audio", AUDIO), *columns], metadata)


def features_of(columns: pa.Schema, sample_rate: int) -> dict[str, Any]:
    """Describe columns as Hugging Face's `Features` write themselves, after the column `audio`."""
    return {"audio": {"sampling_rate": sample_rate, "_type": "Audio"}} | {
        column.name: _feature(column.type) for column in columns
    }


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    names = {"float": "float32", "double": "float64"}
    return {"dtype": names.get(str(kind), str(kind)), "_type": "Value"}
