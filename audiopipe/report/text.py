"""Format numbers, durations and dates for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime

__all__ = [
    "format_bytes",
    "format_counts",
    "format_duration",
    "format_names",
    "format_number",
    "format_percent",
    "format_time",
    "humanize",
    "pluralize",
]


def format_number(value: float | None, digits: int = 0) -> str:
    """Format as `12,345` or `0.3`; a missing value is a dash, a negative sign is a minus sign."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    return f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−")  # + 0.0: no minus before a zero


def format_percent(part: float, whole: float) -> str:
    """Format a share in percent; it is rounded to 0 % or 100 % only if it is exactly that."""
    if whole <= 0:
        return "–"
    share = 100 * part / whole
    if 0 < share < 0.1:
        return "< 0.1 %"
    if 99.9 < share < 100:
        return "> 99.9 %"
    return f"{share:.0f} %" if share in (0, 100) or 10 <= share <= 99 else f"{share:.1f} %"


def format_duration(seconds: float | None) -> str:
    """Format as `0.4 s`, `42 s`, `3 min 5 s`, `2 h 10 min` or `1 d 3 h`: two units at most."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s"
    total_s = round(seconds)
    for unit, length, next_unit, next_length in (
        ("d", 86_400, "h", 3_600),
        ("h", 3_600, "min", 60),
        ("min", 60, "s", 1),
    ):
        if total_s >= length:
            rest = total_s % length // next_length
            return f"{total_s // length} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{total_s} s"


def format_bytes(number_of_bytes: float) -> str:
    """Format bytes with a prefix in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number_of_bytes < 999.5 or unit == "TB":
            break
        number_of_bytes /= 1000
    return f"{number_of_bytes:.0f} {unit}" if number_of_bytes >= 100 or unit == "B" else f"{number_of_bytes:.1f} {unit}"


def format_names(names: Sequence[str], limit: int = 5) -> str:
    """Join names with commas: `a, b and 62 more` if there are more than the limit."""
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit:,} more" if len(names) > limit else shown


def pluralize(count: int, noun: str) -> str:
    """Format a count with a noun: `1 video`, `2 videos`."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def humanize(reason: str) -> str:
    """Replace underscores by spaces: `too_quiet` becomes `too quiet`; a part of `keep_if` stays as it is."""
    return reason.replace("_", " ") if reason.isidentifier() else reason


def format_counts(counts: Mapping[str, int]) -> str:
    """Format counts, the largest first: `3 too quiet, 1 clipped`."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {humanize(reason)}" for reason, count in ordered)


def format_time(moment: datetime) -> str:
    """Format a UTC time to the minute."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"
