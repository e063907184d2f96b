"""Describe an output in Croissant, the format of data set search engines and of the library `mlcroissant`.

The files are named relative to `croissant.json`, so that the description stays right where the output is copied to.
The records are those of the tables. The tars are files with their sha256, and have no records: `mlcroissant` 1.1 names
the folder for an unpacked tar by its relative address, and would take the tar of another dataset for this one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from audiopipe.dataset.annotations import ANNOTATIONS, KEYS, AnnotationRecord, annotation_schema
from audiopipe.dataset.commit import CommittedObject
from audiopipe.dataset.run_record import RunRecord, read_columns, read_schema
from audiopipe.dataset.virtual import is_virtual
from audiopipe.scorers.scorer import Column

__all__ = ["CROISSANT", "to_croissant"]

CROISSANT = "croissant.json"
VOCABULARY = "http://mlcommons.org/croissant/1.0"
# Croissant's own context; the library warns of any other.
_TERMS = (
    *("citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format"),
    *("includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex"),
    *("repeated", "replace", "samplingRate", "separator", "source", "subField", "transform"),
)
CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS},
}
TYPES = {
    "string": "sc:Text",
    "bool": "sc:Boolean",
    **{f"int{bits}": f"cr:Int{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"cr:UInt{bits}" for bits in (8, 16, 32, 64)},
    "date32[day]": "sc:Date",
    "timestamp[us]": "sc:DateTime",
    "timestamp[us, tz=UTC]": "sc:DateTime",
    "float": "cr:Float32",
    "double": "cr:Float64",
}
DESCRIPTIONS = {
    "key": "name of the sample in its tar, without suffix",
    "video_id": "id of the video that the segment was cut from",
    "language": "language of the video",
    "shard": "number of the shard",
    "segment": "number of the segment in its video",
    "start_s": "start on the clock of the video's file, in seconds",
    "end_s": "end on the clock of the video's file, in seconds",
    "duration_s": "length of the audio in seconds",
    "text": "text of the segment",
    "speaker": "label of the speaker in the video",
    "kept": "true if the dataset has audio of the segment",
    "drop_reason": "reason why the segment was dropped",
    "tar_offset": "offset of the audio in its tar, in bytes",
    "audio_bytes": "size of the audio in bytes",
    "gain_db": "gain that was applied to the audio, in dB",
}


def to_croissant(
    run: RunRecord, tars: Sequence[CommittedObject], annotations: Sequence[AnnotationRecord], hours: float
) -> bytes:
    """Return the content of `croissant.json`.

    Args:
        tars: those of kept segments.
        hours: of audio in the dataset.
    """
    columns = {column.name: column for column in read_columns(run)}
    distribution = [_file_set("tables", "application/x-parquet", "*/segments_*.parquet")]
    records = [_record_set("segments", "every segment, kept or dropped", "tables", read_schema(run), columns)]
    if not is_virtual(run):
        distribution += map(_tar, tars)
    for annotation in annotations:
        name = f"annotation-{annotation.id}"
        distribution.append(_file_set(name, "application/x-parquet", f"{ANNOTATIONS}/{annotation.id}/*.parquet"))
        added = {column.name: column for column in annotation.columns}
        schema = annotation_schema(annotation.columns)
        records.append(_record_set(annotation.id, "columns that were added later", name, schema, added))
    body = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": f"speech-{run.run_id}",
        "description": f"Segments of speech, {hours:.2f} hours, with text, metrics and source, made by audiopipe.",
        "conformsTo": VOCABULARY,
        "version": f"{run.output_version}.0.0",
        "distribution": distribution,
        "recordSet": records,
    }
    return json.dumps(body, indent=1, ensure_ascii=False).encode()


def _file_set(name: str, mime_type: str, pattern: str) -> dict[str, Any]:
    return {"@type": "cr:FileSet", "@id": name, "name": name, "encodingFormat": mime_type, "includes": pattern}


def _tar(tar: CommittedObject) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": tar.name,
        "name": tar.name,
        "contentUrl": tar.name,
        "contentSize": f"{tar.size} B",
        "encodingFormat": "application/x-tar",
        "sha256": tar.sha256,
    }


def _record_set(
    name: str, description: str, files: str, schema: pa.Schema, columns: Mapping[str, Column]
) -> dict[str, Any]:
    fields = [_field(name, files, field, columns.get(field.name)) for field in schema]
    key = [{"@id": f"{name}/{column}"} for column in KEYS]
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "key": key,
        "field": fields,
    }


def _field(record: str, files: str, field: pa.Field, column: Column | None) -> dict[str, Any]:
    is_list = pa.types.is_list(field.type)
    kind = field.type.value_type if is_list else field.type
    description = DESCRIPTIONS.get(field.name, field.name.replace("_", " "))
    if column is not None:
        unit = f" ({column.unit})" if column.unit not in ("", "1") else ""
        description = column.description + unit
    return {
        "@type": "cr:Field",
        "@id": f"{record}/{field.name}",
        "name": field.name,
        "description": description,
        "dataType": TYPES[str(kind)],
        "source": {"fileSet": {"@id": files}, "extract": {"column": field.name}},
        **({"repeated": True} if is_list else {}),
    }
