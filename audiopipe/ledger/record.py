"""Convert dataclasses to database rows and back, and times to the text form of the ledger.

A time in the ledger is UTC as ISO 8601 text with milliseconds and a 'Z', so that times sort as text.
"""

from __future__ import annotations

import functools
import json
import math
import re
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
        converters = _field_converters(typing.cast("type", cls))
        return cls(
            **{
                name: None if (value := row[name]) is None else convert(value) if convert else value
                for name, convert in converters
                if name in row
            }
        )


CANONICAL_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
CONVERTERS: dict[object, Callable[[Any], object]] = {
    bool | None: bool,
    int: int,
    float: float,
    float | None: float,
}


@functools.cache
def _field_converters(cls: type) -> tuple[tuple[str, Callable[[Any], object] | None], ...]:
    """Return each field with the function that converts its column; a report reads tens of thousands of rows."""
    return tuple((name, _converter(name, hint)) for name, hint in typing.get_type_hints(cls).items())


def _converter(name: str, hint: object) -> Callable[[Any], object] | None:
    if _is_time(name):
        return _to_time
    if isinstance(hint, EnumType):
        return hint
    if typing.get_origin(hint) is dict:
        return _to_dict
    # SQLite has no booleans, and some servers send wide numbers as text.
    return CONVERTERS.get(hint)


def _to_time(value: object) -> object:
    if not isinstance(value, str | datetime):
        return value
    return value if isinstance(value, str) and CANONICAL_TIME.fullmatch(value) else format_utc(value)


def _to_dict(value: object) -> object:
    return json.loads(value) if isinstance(value, str) else value


def _is_time(name: str) -> bool:
    return name.endswith("_at") or name == "last_heartbeat"


def _to_plain(name: str, value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0  # JSON has no NaN and no infinity
    if not isinstance(value, str):
        return value
    # Messages quote file contents, which may hold NUL and unpaired surrogates; no database accepts those.
    return format_utc(value) if _is_time(name) else str(value).replace("\0", "").encode("utf-8", "replace").decode()
