"""Convert dataclasses to database rows and back, and times to the text form of the ledger.

A time in the ledger is UTC as ISO 8601 text with milliseconds and a 'Z', so that times sort as text.
"""

from __future__ import annotations

import functools
import json
import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import EnumType
from typing import Any, Self, TypeAlias

__all__ = ["Row", "RowValues", "format_utc", "parse_utc", "utc_now"]

RowValues: TypeAlias = dict[str, Any]  # a database row: values by column name


def utc_now() -> str:
    """Return the current time in the text form of the ledger."""
    return format_utc(datetime.now(UTC))


def format_utc(moment: str | datetime) -> str:
    """Convert a time to the text form of the ledger; a time without a zone counts as UTC."""
    return parse_utc(moment).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_utc(moment: str | datetime) -> datetime:
    """Convert ISO text or a datetime to an aware UTC datetime.

    Raises:
        ValueError: the text is not a time.
    """
    parsed = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Row:
    """A dataclass that converts to a database row and back; a field has the name of its column."""

    def as_row(self) -> RowValues:
        """Return plain values by column: enums as text, times in the text form of the ledger.

        A None leaves the column to the default of the database.
        """
        return {name: _to_plain(name, value) for name, value in asdict(self).items()}

    @classmethod
    def from_row(cls, row: Mapping[str, object]) -> Self:
        """Build the dataclass from a row; columns without a field are ignored."""
        types = _field_types(typing.cast("type", cls))
        return cls(**{name: _to_field(name, hint, row[name]) for name, hint in types.items() if name in row})


CONVERTERS: dict[object, Callable[[Any], object]] = {
    bool | None: bool,
    int: int,
    float: float,
    float | None: float,
}


@functools.cache
def _field_types(cls: type) -> dict[str, object]:
    return typing.get_type_hints(cls)


def _is_time(name: str) -> bool:
    return name.endswith("_at") or name == "last_heartbeat"


def _to_plain(name: str, value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0  # JSON has no NaN and no infinity
    if not isinstance(value, str):
        return value
    # Messages quote file contents, which may hold NUL and unpaired surrogates; no database accepts those.
    return format_utc(value) if _is_time(name) else str(value).replace("\0", "").encode("utf-8", "replace").decode()


def _to_field(name: str, hint: object, value: object) -> object:
    if value is None:
        return None
    if _is_time(name) and isinstance(value, str | datetime):
        return format_utc(value)
    if isinstance(hint, EnumType):
        return hint(value)
    if typing.get_origin(hint) is dict:
        return json.loads(value) if isinstance(value, str) else value
    # SQLite has no booleans, and some servers send wide numbers as text.
    convert = CONVERTERS.get(hint)
    return convert(value) if convert else value
