"""Histogram bins that show most values of a metric and its limit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["Values", "bin_edges", "clipped_histogram", "finite_values", "value_range"]

Values = npt.NDArray[np.float64]


def finite_values(column: pd.Series) -> Values:
    """Return a column's values without NaN and infinity."""
    values = column.to_numpy(dtype=float)
    finite: Values = values[np.isfinite(values)]
    return finite


def value_range(values: Values, limit: float | None = None) -> tuple[float, float]:
    """Return the range of the values without the lowest and highest half percent, extended to the limit."""
    low, high = np.percentile(values, [0.5, 99.5])
    return (low, high) if limit is None else (min(low, limit), max(high, limit))


def bin_edges(values: Values, bins: int, limit: float | None = None) -> Values:
    """Return the edges of equal bins over `value_range`, with a small margin."""
    low, high = value_range(values, limit)
    margin = 0.03 * (high - low) or max(abs(high), 1.0) * 0.05
    return np.linspace(low - margin, high + margin, bins + 1)


def clipped_histogram(values: Values, edges: Values) -> Values:
    """Count the values in each bin. Values outside the edges count in the outermost bins."""
    return np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0].astype(float)
