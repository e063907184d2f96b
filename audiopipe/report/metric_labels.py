"""The names, units and values of metrics as reports print them.

A metric is a column of a scorer; those of the scorer `signal` can be given by name.
"""

from __future__ import annotations

from audiopipe.report.text import format_number, humanize
from audiopipe.scorers.scorer import Column
from audiopipe.scorers.signal import Signal

__all__ = [
    "SIGNAL",
    "Metric",
    "column_of",
    "digits",
    "format_metric",
    "metric_name",
    "metric_title",
    "unit_label",
    "with_unit",
]

DIMENSIONLESS = ("1", "")
PER_SECOND = "1/s"
SIGNAL = {column.name: column for column in Signal().columns}
WORDS = {word.lower(): word for word in ("SNR", "RMS", "DC", "DNSMOS", "OVRL", "SIG", "BAK", "MOS")}
WORDS |= {"p808": "P.808", "ngram": "n-gram"}
Metric = str | Column


def column_of(metric: Metric) -> Column:
    """Return the column of a metric."""
    return SIGNAL[metric] if isinstance(metric, str) else metric


def metric_name(metric: Metric) -> str:
    """Return `SNR` for `snr_db`, `clipping ratio` for `clipping_ratio`, `words per second` for `words_per_s`."""
    column = column_of(metric)
    name = column.name
    if column.unit == PER_SECOND and name.endswith("_per_s"):
        name = name.removesuffix("_s") + "_second"
    elif column.unit not in DIMENSIONLESS:
        name = name.removesuffix(f"_{column.unit.lower()}")
    return " ".join(WORDS.get(word, word) for word in humanize(name).split())


def metric_title(metric: Metric) -> str:
    """Return `SNR (dB)` for `snr_db`, `clipping ratio` for `clipping_ratio`."""
    column = column_of(metric)
    has_unit = column.unit not in (*DIMENSIONLESS, PER_SECOND)
    return f"{metric_name(column)} ({column.unit})" if has_unit else metric_name(column)


def unit_label(metric: Metric) -> str:
    """Return the label of an axis: the unit, or what a dimensionless number is."""
    column = column_of(metric)
    if column.unit not in DIMENSIONLESS:
        return "per second" if column.unit == PER_SECOND else column.unit
    if "ratio" in column.name or column.description.startswith("share"):
        return "share, 0 to 1"
    return "number" if column.type == "int" else "no unit"


def digits(metric: Metric) -> int:
    """Return the number of decimals that are worth printing."""
    column = column_of(metric)
    if column.unit == "Hz" or column.type == "int":
        return 0
    return 3 if column.unit in DIMENSIONLESS else 2 if column.unit == "MOS" else 1


def format_metric(metric: Metric, value: float) -> str:
    """Format a value without its unit."""
    return format_number(value, digits(metric))


def with_unit(metric: Metric, value: float) -> str:
    """Format a value with its unit: `12.3 dB`."""
    column = column_of(metric)
    units = dict.fromkeys(DIMENSIONLESS, "") | {PER_SECOND: "/s"}
    return format_metric(column, value) + units.get(column.unit, f" {column.unit}")
