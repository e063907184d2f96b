"""Check what a scorer returns against its columns, and convert it to values of Python."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from audiopipe.errors import ScorerError
from audiopipe.scorers.scorer import Column, Scorer
from audiopipe.types import Value

__all__ = ["check_values"]

SPEAKER = Column("speaker", "string", "", "label of the speaker within the video")  # that every dataset has
MAX_INT = 2**31


def check_values(scorer: Scorer, values: object, count: int, is_partial: bool = False) -> dict[str, list[Value]]:
    """Return the values of each column as Python's types; None where one does not exist.

    Args:
        values: what the scorer returned.
        count: number of segments.
        is_partial: columns may be missing, and `speaker` may be there.

    Raises:
        ScorerError: a column is unknown or missing, or its values are too few, too many or of another type.
    """
    if not isinstance(values, Mapping):
        raise _error(scorer, f"returned {type(values).__name__}, not a mapping of columns")
    columns = {column.name: column for column in scorer.columns}
    if is_partial:
        columns[SPEAKER.name] = SPEAKER
    if unknown := [name for name in values if name not in columns]:
        raise _error(scorer, f"returned an unknown column {unknown[0]!r}; its columns are {', '.join(columns)}")
    if not is_partial and (missing := [name for name in columns if name not in values]):
        raise _error(scorer, f"returned no column '{missing[0]}'")
    return {name: _check_column(scorer, columns[name], values[name], count) for name in columns if name in values}


def _check_column(scorer: Scorer, column: Column, values: object, count: int) -> list[Value]:
    items = _to_list(scorer, column, values)
    if len(items) != count:
        raise _error(scorer, f"returned {len(items)} values of column '{column.name}' for {count} segments")
    convert = CONVERSIONS[column.type]
    try:
        return [None if _is_missing(item) else convert(item) for item in items]
    except (TypeError, ValueError, OverflowError) as error:
        problem = f"returned a value of column '{column.name}' that is not of type {column.type}: {error}"
        raise _error(scorer, problem) from None


def _to_list(scorer: Scorer, column: Column, values: object) -> Sequence[object]:
    if isinstance(values, torch.Tensor):
        values = (values.float() if values.is_floating_point() else values).detach().cpu().numpy()
    if isinstance(values, np.ndarray):
        items: list[object] = list(values) if values.ndim > 1 else values.tolist() if values.ndim else []
        return items
    if isinstance(values, Sequence) and not isinstance(values, str | bytes):
        return values
    raise _error(scorer, f"returned {type(values).__name__} for column '{column.name}', not a value of each segment")


def _is_missing(item: object) -> bool:
    return item is None or (isinstance(item, float | np.floating) and not math.isfinite(item))


def _to_float(item: object) -> Value:
    item = _scalar(item)
    if not isinstance(item, numbers.Real) or isinstance(item, bool):
        raise TypeError(f"{item!r:.80}")
    with np.errstate(over="ignore"):
        value = float(np.float32(item))
    return value if math.isfinite(value) else None


def _to_int(item: object) -> Value:
    item = _scalar(item)
    if not isinstance(item, numbers.Integral) or isinstance(item, bool) or not -MAX_INT <= int(item) < MAX_INT:
        raise TypeError(f"{item!r:.80}")
    return int(item)


def _to_bool(item: object) -> Value:
    item = _scalar(item)
    if not isinstance(item, bool):
        raise TypeError(f"{item!r:.80}")
    return item


def _to_string(item: object) -> Value:
    if not isinstance(item, str):
        raise TypeError(f"{item!r:.80}")
    item.encode()  # Parquet takes no lone surrogates
    return str(item)


def _to_floats(item: object) -> Value:
    if isinstance(item, torch.Tensor):
        item = item.detach().cpu().float().numpy()
    if not isinstance(item, Sequence | np.ndarray) or isinstance(item, str | bytes):
        raise TypeError(f"{item!r:.80}")
    row = np.asarray(item, np.float32)
    if row.ndim != 1 or not np.isfinite(row).all():
        raise TypeError("it must be a row of finite numbers")
    values: list[float] = row.tolist()
    return values


def _scalar(item: object) -> object:
    """Return the Python value of a NumPy scalar or of a tensor with one element."""
    return item.item() if isinstance(item, np.generic | torch.Tensor) else item


CONVERSIONS: dict[str, Callable[[object], Value]] = {
    "float": _to_float,
    "int": _to_int,
    "bool": _to_bool,
    "string": _to_string,
    "floats": _to_floats,
}


def _error(scorer: Scorer, problem: str) -> ScorerError:
    return ScorerError(f"scorer '{scorer.name}' {problem}")
