"""Recognize the format of a catalog by its address and, where that does not say it, by its contents."""

from __future__ import annotations

from enum import StrEnum

from audiopipe.catalog.tables import table_format

__all__ = ["Format", "find_format"]


class Format(StrEnum):
    """The format of a catalog at an fsspec URL."""

    TABLE = "table"
    FOLDER = "folder"


def find_format(url: str) -> Format:
    """Return the format of a catalog."""
    return Format.TABLE if table_format(url) else Format.FOLDER
