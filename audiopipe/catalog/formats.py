"""Recognize the format of a catalog by its address and, where that does not say it, by its contents."""

from __future__ import annotations

from enum import StrEnum

import fsspec
from fsspec.implementations.local import LocalFileSystem

from audiopipe.catalog.kaldi import WAV_SCP
from audiopipe.catalog.layout import AUDIO_FOLDER, recognize
from audiopipe.catalog.lhotse import is_lhotse, list_manifests
from audiopipe.catalog.read_errors import READ_ERRORS
from audiopipe.catalog.tables import iterate_json, open_text, read_names, table_format
from audiopipe.store.objects import open_filesystem

__all__ = ["Format", "find_format", "list_metadata"]

METADATA = tuple(f"metadata.{suffix}" for suffix in ("csv", "jsonl", "parquet"))  # Hugging Face's names


class Format(StrEnum):
    """The format of a catalog at an fsspec URL."""

    TABLE = "table"
    LHOTSE = "Lhotse manifest"
    KALDI = "Kaldi data folder"
    AUDIO_FOLDER = "Hugging Face audio folder"
    FOLDER = "folder of files"


def find_format(url: str) -> Format:
    """Return the format of a catalog. An address that cannot be read is what its name says."""
    kind = table_format(url)
    try:
        if kind in ("jsonl", "ndjson", "json"):
            with open_text(url) as file:
                row = next((row for _, row in iterate_json(file)), {})
            return Format.LHOTSE if is_lhotse(row) else Format.TABLE
        return _folder_format(url) if kind is None else Format.TABLE
    except READ_ERRORS:
        return Format.FOLDER if kind is None else Format.TABLE


def _folder_format(url: str) -> Format:
    fs, path = open_filesystem(url)
    if url.rpartition("/")[2] == WAV_SCP:
        return Format.KALDI
    if url.startswith(("http://", "https://")) or not fs.isdir(path):
        return Format.FOLDER
    if fs.exists(f"{path.rstrip('/')}/{WAV_SCP}"):
        return Format.KALDI
    if list_metadata(url):
        return Format.AUDIO_FOLDER
    return Format.LHOTSE if list_manifests(url) else Format.FOLDER


def list_metadata(url: str) -> list[str]:
    """Return the addresses of Hugging Face's metadata of a folder: its own, or those of the folders below it.

    Folders below a remote one are not examined: there may be many.
    """
    fs, path = open_filesystem(url)
    folder = url.rstrip("/")
    names = [name for name in METADATA if fs.exists(f"{path.rstrip('/')}/{name}")]
    if not names and isinstance(fs, LocalFileSystem):
        names = sorted(name for entry in _folders(fs, path) for name in _below(fs, path, entry))
    addresses = [f"{folder}/{name}" for name in names]
    return [address for address in addresses if recognize(read_names(address)) == AUDIO_FOLDER]


def _folders(fs: fsspec.AbstractFileSystem, path: str) -> list[str]:
    return [entry["name"] for entry in fs.ls(path, detail=True) if entry["type"] == "directory"]


def _below(fs: fsspec.AbstractFileSystem, path: str, folder: str) -> list[str]:
    below = folder.removeprefix(path.rstrip("/")).lstrip("/")
    return [f"{below}/{name}" for name in METADATA if fs.exists(f"{folder}/{name}")]
