"""Dataclasses that convert to a database's rows and back, and the ledger's form of time.

Times are UTC as ISO 8601 text with milliseconds and a 'Z'; they sort as text.
"""

from __future__ import annotations

import functools
import json
import math
import typing
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from enum import EnumType
from typing import Any, Self

__all__ = ["Row", "format_utc", "parse_utc", "utc_now"]


def utc_now() -> str:
    """Now, as the ledger writes times."""
    return format_utc(datetime.now(UTC))


def format_utc(moment: str | datetime) -> str:
    """Any ISO time in the ledger's own form; a time without a zone is taken as UTC."""
    return parse_utc(moment).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def parse_utc(moment: str | datetime) -> datetime:
    """Text or datetime as an aware UTC datetime; raises `ValueError` on what is not a time."""
    parsed = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


class Row:
    """A dataclass that converts to a database's row and back."""

    def as_row(self) -> dict[str, Any]:
        """Plain values by column: enums as text, times in the ledger's form. None leaves a default to the database."""
        return {name: _to_plain(name, value) for name, value in asdict(typing.cast(Any, self)).items()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """The dataclass of a row; columns that it does not know are left out."""
        hints = _field_types(typing.cast(Any, cls))
        return cls(**{name: _to_field(name, hint, row[name]) for name, hint in hints.items() if name in row})


CONVERTERS: dict[Any, Any] = {bool | None: bool, int: int, float: float, float | None: float}


@functools.cache
def _field_types(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _is_time(name: str) -> bool:
    return name.endswith("_at") or name == "last_heartbeat"


def _to_plain(name: str, value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0  # JSON has no word for it
    if not isinstance(value, str):
        return value
    # Messages of strangers' files hold what no database takes: NUL, and halves of a surrogate pair.
    return format_utc(value) if _is_time(name) else str(value).replace("\0", "").encode("utf-8", "replace").decode()


def _to_field(name: str, hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if _is_time(name):
        return format_utc(value)
    if isinstance(hint, EnumType):
        return hint(value)
    if typing.get_origin(hint) is dict:
        return json.loads(value) if isinstance(value, str) else value
    # SQLite has no booleans, and some servers send wide numbers as text.
    convert = CONVERTERS.get(hint)
    return convert(value) if convert else value
