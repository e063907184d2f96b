"""Parse the parameters that name columns of a catalog: `columns` and `keep_columns`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping

__all__ = ["ALL_COLUMNS", "NO_COLUMN", "ROLES", "join_columns", "normalize_columns", "normalize_kept", "parse_pairs"]

# What a column of a catalog can be used for.
ROLES = (
    *("youtube_id", "language", "status", "r2_tar_key", "size_bytes", "duration_s"),
    *("text", "speaker", "start_s", "end_s"),
)
ALIASES = {"id": "youtube_id", "video_id": "youtube_id", "path": "r2_tar_key", "start": "start_s", "end": "end_s"}
ALL_COLUMNS = "all"  # for keep_columns: every column that has no other use
NO_COLUMN = "none"  # for columns: a column of that name is not used


def normalize_columns(value: object) -> str | None:
    """Return a mapping such as `youtube_id=path,text=sentence` in one spelling: in the order of `ROLES`.

    Args:
        value: such text, or a mapping as in YAML; None or nothing for no mapping.

    Raises:
        ValueError: it is not a mapping, or a name on the left is unknown or occurs twice.
    """
    pairs = parse_pairs(value)
    roles: dict[str, str] = {}
    for name, column in pairs:
        role = ALIASES.get(name, name)
        if role not in ROLES:
            raise ValueError(f"has {name!r} on the left; write youtube_id=path,text=sentence with {', '.join(ROLES)}")
        if role in roles:
            raise ValueError(f"names {role} twice")
        roles[role] = column
    return join_columns((role, roles[role]) for role in ROLES if role in roles) or None


def normalize_kept(value: object) -> str | None:
    """Return a list of columns such as `channel,license` in one spelling; `name=column` renames one.

    Args:
        value: such text, 'all', or a list or mapping as in YAML; None or nothing for no column.

    Raises:
        ValueError: a name is empty or occurs twice.
    """
    pairs = parse_pairs(value)
    names = [name.casefold() for name, _ in pairs]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"names {repeated!r} twice")
    return join_columns(pairs, shorten=True) or None


def parse_pairs(value: object) -> list[tuple[str, str]]:
    """Parse `name=column,column` or a mapping; a column without a name has its own. Quotes protect commas as in CSV.

    >>> parse_pairs('text=sentence,"note=remarks, if any",title')
    [('text', 'sentence'), ('note', 'remarks, if any'), ('title', 'title')]

    Raises:
        ValueError: it is neither text nor a list or mapping of texts, or a name is empty.
    """
    if value is None:
        return []
    items: list[tuple[object, object]]
    if isinstance(value, Mapping):
        items = list(value.items())
    elif isinstance(value, str):
        items = [_split(item) for item in next(csv.reader([value.strip()], skipinitialspace=True), [])]
    elif isinstance(value, list | tuple):
        items = [_split(str(item)) for item in value]
    else:
        raise ValueError("must be text such as name=column,name=column, or a mapping")
    pairs = [(str(name).strip(), str(column).strip()) for name, column in items if column is not None]
    if any(not name or not column or not (name + column).isprintable() for name, column in pairs):
        raise ValueError("has an empty or unprintable name; write name=column,name=column")
    return pairs


def _split(item: str) -> tuple[str, str]:
    name, separator, column = item.partition("=")
    return (name, column) if separator else (item, item)


def join_columns(pairs: Iterable[tuple[str, str]], shorten: bool = False) -> str:
    """Write pairs as `parse_pairs` reads them.

    Args:
        shorten: write a column with the same name once.
    """
    items = [column if shorten and name == column else f"{name}={column}" for name, column in pairs]
    text = io.StringIO()
    if items:
        csv.writer(text, lineterminator="").writerow(items)
    return text.getvalue()
