"""Describe addresses that are not catalogs: an output of audiopipe, a tar of samples, or Parquet files with audio."""

from __future__ import annotations

import json
import shlex
import tarfile
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.catalog.inspection import Inspection
from audiopipe.catalog.read_errors import READ_ERRORS
from audiopipe.catalog.tables import open_text
from audiopipe.dataset.run_record import RUN_RECORD, read_run_record
from audiopipe.dataset.schema import DESCRIPTION
from audiopipe.store.objects import Store, open_filesystem
from audiopipe.types import AUDIO_SUFFIXES

__all__ = ["inspect_dataset", "inspect_samples"]

LOOKED_AT = 64  # members of a tar
LISTED = 8


def inspect_dataset(address: str) -> Inspection | None:
    """Describe an address that a run takes no videos from; None if it may be a catalog."""
    try:
        fs, path = open_filesystem(address)
        if fs.isdir(path):
            store = Store(address)
            if store.size(RUN_RECORD) is not None:
                return _inspect_output(address, store)
            parquet = sorted(str(name) for name in fs.glob(f"{path.rstrip('/')}/**.parquet"))[:1]
            audio = _audio_column(fs.unstrip_protocol(parquet[0])) if parquet else None
            return None if audio is None else _parquet_with_audio(address, audio)
        if path.endswith(".parquet"):
            audio = _audio_column(address)
            return None if audio is None else _parquet_with_audio(address, audio)
    except READ_ERRORS:
        return None
    return None


def _inspect_output(address: str, store: Store) -> Inspection:
    record = read_run_record(store)
    quoted = shlex.quote(address)
    kind = "output of audiopipe" if record.parent is None else f"selection of {record.parent['url']}"
    result = Inspection(address, kind, {"run": record.run_id})
    if record.parent is None:
        result.details["catalog"] = str(record.source.get("catalog"))
    if record.catalog_columns:
        result.details["columns"] = ", ".join(column.name for column in record.catalog_columns)
    result.details["scorers"] = ", ".join(scorer.name for scorer in record.scorers)
    if store.size(DESCRIPTION) is None:
        result.problems.append("it is not finished")
        result.commands = [f"audiopipe resume {quoted}", f"audiopipe monitor {quoted} --once"]
        return result
    body: Mapping[str, Any] = json.loads(store.read(DESCRIPTION))
    total = body["total"]
    result.details["files"] = f"{total['videos']:,}, {total['videos_failed']:,} failed"
    kept = f"{total['segments_kept']:,} of {total['segments']:,} kept, {total['hours_kept']:.2f} h"
    result.details["segments"] = kept
    shown = list(body["languages"].items())
    result.details["languages"] = ", ".join(f"{name} {counts['segments_kept']:,}" for name, counts in shown[:LISTED])
    if total["videos_failed"]:
        result.problems.append(f"{total['videos_failed']:,} videos failed: videos_*.parquet has the reasons")
    result.commands = [f"audiopipe verify {quoted}", f"audiopipe select {quoted} DEST --where 'snr_db > 20'"]
    return result


def _audio_column(address: str) -> str | None:
    """Return the name of a column that holds audio, as Hugging Face's datasets have it."""
    with open_text(address) as file:
        schema = pq.read_schema(file)
    for field in schema:
        names = {item.name for item in field.type} if pa.types.is_struct(field.type) else set()
        if "bytes" in names:
            return str(field.name)
    return None


def _parquet_with_audio(address: str, column: str) -> Inspection:
    result = Inspection(address, "Parquet files with audio in their rows")
    result.problems.append(
        f"its column {column!r} holds the audio itself, and a run reads files: write each audio to a file and their "
        "names to a metadata.csv (file_name, transcription), and inspect that folder"
    )
    return result


def inspect_samples(address: str, tar: str) -> Inspection | None:
    """Describe an address whose first tar has many samples, as WebDataset; None if it is the tar of one video.

    Args:
        tar: the address of the tar.
    """
    try:
        with open_text(tar) as file, tarfile.open(fileobj=file, mode="r|") as members:
            names = [member.name for _, member in zip(range(LOOKED_AT), members, strict=False)]
    except (*READ_ERRORS, tarfile.TarError):
        return None
    audio = [name for name in names if PurePosixPath(name).suffix.lower() in AUDIO_SUFFIXES]
    if len(audio) < 2:
        return None
    result = Inspection(address, "tars of many samples (WebDataset)", {"members": ", ".join(names[:LISTED])})
    result.problems.append(
        f"a run takes one audio file from each tar, and {PurePosixPath(tar).name} has several: unpack it into a folder"
    )
    folder = shlex.quote(PurePosixPath(tar).stem)
    result.commands = [f"mkdir {folder} && tar -xf {shlex.quote(tar)} -C {folder} && audiopipe inspect {folder}"]
    return result
