"""The names, units and values of metrics as reports print them."""

from __future__ import annotations

from audiopipe.kernels import METRICS
from audiopipe.report.text import format_number, humanize

__all__ = ["digits", "format_metric", "metric_name", "metric_title", "unit_label", "with_unit"]

DIMENSIONLESS = "1"


def metric_name(metric: str) -> str:
    """Return `SNR` for `snr_db`, `clipping ratio` for `clipping_ratio`."""
    name = humanize(metric if METRICS[metric].unit == DIMENSIONLESS else metric.rsplit("_", 1)[0])
    return name.replace("snr", "SNR").replace("rms", "RMS").replace("dc ", "DC ")


def metric_title(metric: str) -> str:
    """Return `SNR (dB)` for `snr_db`, `clipping ratio` for `clipping_ratio`."""
    unit = METRICS[metric].unit
    return metric_name(metric) if unit == DIMENSIONLESS else f"{metric_name(metric)} ({unit})"


def unit_label(metric: str) -> str:
    """Return the label of an axis: the unit, or what a dimensionless number is."""
    unit = METRICS[metric].unit
    if unit != DIMENSIONLESS:
        return unit
    return "share, 0 to 1" if "ratio" in metric else "no unit"


def digits(metric: str) -> int:
    """Return the number of decimals that are worth printing."""
    unit = METRICS[metric].unit
    return 0 if unit == "Hz" else 3 if unit == DIMENSIONLESS else 1


def format_metric(metric: str, value: float) -> str:
    """Format a value without its unit."""
    return format_number(value, digits(metric))


def with_unit(metric: str, value: float) -> str:
    """Format a value with its unit: `12.3 dB`."""
    unit = METRICS[metric].unit
    return format_metric(metric, value) + ("" if unit == DIMENSIONLESS else f" {unit}")
