"""Check the names, versions and columns of scorers, which other packages define."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import get_args

from audiopipe.errors import ConfigError
from audiopipe.scorers.scorer import Column, ColumnType, Scorer

__all__ = ["check_columns", "check_identity", "check_unique"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")
COLUMN = re.compile(r"[a-z][a-z0-9_]{0,62}")
# A scorer's time is recorded under its name, next to that of these stages.
STAGES = frozenset({"fetch", "decode", "fingerprint", "voice", "score", "encode", "write", "upload"})


def check_identity(entry: str, scorer: object) -> Scorer:
    """Return a scorer that is one and has a valid name and version.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(scorer, Scorer):
        raise ConfigError(f"scorer '{entry}': {type(scorer)!r} is not a subclass of audiopipe.scorers.scorer.Scorer")
    for attribute, pattern in (("name", NAME), ("version", VERSION)):
        value = getattr(scorer, attribute, None)
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise ConfigError(
                f"scorer '{entry}': its {attribute} {value!r} must be 1 to 64 letters, digits, '-' and '_'"
                + (", '.' or '+'" if attribute == "version" else "")
            )
    if scorer.name in STAGES:
        raise ConfigError(f"scorer '{entry}': the name '{scorer.name}' is that of a stage of the pipeline")
    return scorer


def check_columns(scorer: Scorer) -> tuple[Column, ...]:
    """Return the columns of a scorer.

    Raises:
        ConfigError: it has none, or one has an invalid name, type or text.
    """
    columns = getattr(scorer, "columns", None)
    if not isinstance(columns, tuple | list) or not columns:
        raise ConfigError(f"scorer '{scorer.name}' has no columns")
    for column in columns:
        if not isinstance(column, Column):
            raise ConfigError(f"scorer '{scorer.name}': {column!r} is not a Column")
        if not isinstance(column.name, str) or not COLUMN.fullmatch(column.name):
            raise ConfigError(f"scorer '{scorer.name}': the column {column.name!r} must have a name like 'snr_db'")
        if column.type not in get_args(ColumnType):
            allowed = ", ".join(get_args(ColumnType))
            raise ConfigError(f"scorer '{scorer.name}': column '{column.name}' has type {column.type!r}, not {allowed}")
        if not isinstance(column.unit, str) or not isinstance(column.description, str):
            raise ConfigError(f"scorer '{scorer.name}': column '{column.name}' needs texts as unit and description")
    return tuple(columns)


def check_unique(kind: str, names: Iterable[str]) -> None:
    """Raise ConfigError if a scorer or column occurs twice."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ConfigError(f"the scorers have {kind} '{repeated[0]}' twice: leave one of them out")
