"""Charts of every metric: one histogram for each language, and what each threshold would keep elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from audiopipe.extras import require_extra
from audiopipe.report import page
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.figure import DROPPED, KEPT, LIMIT, NEUTRAL, draw
from audiopipe.report.histogram import Values, bin_edges, clipped_histogram, value_range
from audiopipe.report.metric_labels import column_of, format_metric, metric_title, unit_label
from audiopipe.report.numbers import medians
from audiopipe.report.page import Html, esc
from audiopipe.report.text import format_number, format_percent, humanize
from audiopipe.report.thresholds import Threshold
from audiopipe.scorers.scorer import Column

with require_extra("notebooks", "drawing a report"):
    from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["metrics", "threshold_curves"]

BINS = 48
STEPS = 60
WIDTH = 380
ROW_HEIGHT = 27
MAX_LANGUAGES = 14
MAX_VALUES = 6


def metrics(tables: DatasetTables) -> Html:
    """Draw the distribution of each metric. Every language gets the same height, whatever its number of segments."""
    thresholds = {threshold.metric: threshold for threshold in tables.thresholds}
    languages = sorted(tables.segments["language"].unique())
    shown = languages[:MAX_LANGUAGES]
    charts = [_panel(tables.segments, column, shown, thresholds.get(column.name)) for column in tables.metrics.values()]
    legend = page.legend({"kept": KEPT, "dropped": DROPPED, "limit of this run": LIMIT})
    hidden = len(languages) - len(shown)
    note = page.note(f"{hidden} more languages are not drawn. Choose some with the parameter <code>language</code>.")
    return page.join(legend, page.grid(charts), note if hidden else Html(""), _labels(tables))


def _labels(tables: DatasetTables) -> Html:
    """Show the most frequent values of the columns that are texts or flags."""
    rows: list[list[str | Html]] = []
    for name, column in tables.columns.items():
        if name in tables.metrics:
            continue
        values = tables.segments[name].dropna()
        counts = values.value_counts()
        shown = [f"{esc(value)} ({format_percent(int(count), len(values))})" for value, count in counts.items()]
        shown = [*shown[:MAX_VALUES], *([f"and {len(shown) - MAX_VALUES:,} more"] if len(shown) > MAX_VALUES else [])]
        missing = format_percent(len(tables.segments) - len(values), len(tables.segments))
        rows.append([humanize(name), column.description, f"{len(counts):,}", missing, Html(", ".join(shown) or "–")])
    if not rows:
        return Html("")
    head = ["column", "meaning", "values", "missing", "the most frequent"]
    return page.join(Html("<h4>Texts and flags</h4>"), page.table(head, rows, "lw  w"))


def _panel(segments: pd.DataFrame, metric: Column, languages: list[str], threshold: Threshold | None) -> Html:
    values = segments[metric.name].to_numpy(dtype=float)
    finite = np.isfinite(values)
    meaning = metric.description
    if not finite.any():
        return page.figure("", metric_title(metric), f"{meaning}; no value in any segment")
    edges = bin_edges(values[finite], BINS, threshold.limit if threshold else None)
    kept = segments["kept"].to_numpy(dtype=bool)

    def plot(axes: Axes) -> None:
        for row, language in enumerate(languages):
            rows = finite & (segments["language"] == language).to_numpy()
            _ridge(axes, row, values[rows & kept], values[rows & ~kept], edges)
        if threshold is not None:
            axes.axvline(threshold.limit, color=LIMIT, linewidth=1.4, linestyle="--")
        axes.set(xlim=(edges[0], edges[-1]), ylim=(len(languages) - 0.45, -0.6))
        axes.set_yticks(range(len(languages)), languages)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel(unit_label(metric))

    chart = draw(plot, WIDTH, 52 + ROW_HEIGHT * len(languages))
    return page.figure(chart, metric_title(metric), f"{meaning}; {_summary(metric, segments, finite)}")


def _ridge(axes: Axes, row: int, kept: Values, dropped: Values, edges: Values) -> None:
    """Draw one language's histogram on its base line, the dropped segments on top of the kept ones."""
    kept_counts = clipped_histogram(kept, edges)
    counts = kept_counts + clipped_histogram(dropped, edges)
    # The height is the square root of the count, so that a bin with ten stays visible next to one with a thousand.
    upper = np.sqrt(counts / max(counts.max(), 1.0)) * 0.86
    lower = upper * kept_counts / np.maximum(counts, 1.0)
    base = row + 0.35
    axes.stairs(base - upper, edges, baseline=base - lower, fill=True, color=DROPPED, linewidth=0)
    axes.stairs(base - lower, edges, baseline=base, fill=True, color=KEPT, linewidth=0)
    axes.axhline(base, color=NEUTRAL, linewidth=0.5, alpha=0.6)
    if len(kept):
        median = float(np.median(kept))
        axes.plot([median, median], [base, base + 0.13], color=KEPT, linewidth=2, solid_capstyle="butt")


def _summary(metric: Column, segments: pd.DataFrame, finite: npt.NDArray[np.bool_]) -> str:
    text = f"median of the kept {format_metric(metric, float(medians(segments, [metric.name]).iloc[0]))}"
    missing = len(segments) - int(finite.sum())
    return text + (f"; missing in {format_percent(missing, len(segments))}" if missing else "")


def threshold_curves(tables: DatasetTables) -> Html:
    """Draw for each threshold how much it would keep with other limits."""
    if not tables.thresholds:
        return page.note("Every threshold of this run is off.")
    languages = "all languages" if len(tables.by_language) > 1 else "the language"
    note = f"Share of the segments of {languages} that have the metric, for each limit alone."
    return page.join(page.note(note), page.grid(_curve(tables.segments, threshold) for threshold in tables.thresholds))


def _curve(segments: pd.DataFrame, threshold: Threshold) -> Html:
    values = np.sort(segments[threshold.metric].dropna().to_numpy(dtype=float))
    finite = values[np.isfinite(values)]
    if not len(finite):
        return page.figure("", threshold.parameter, "no value in any segment")
    limits = np.linspace(*value_range(finite, threshold.limit), STEPS)
    kept = 100 * _share_kept(values, limits, threshold.is_minimum)
    at_limit = float(100 * _share_kept(values, np.array([threshold.limit]), threshold.is_minimum)[0])

    def plot(axes: Axes) -> None:
        axes.plot(limits, kept, color=KEPT, linewidth=1.8)
        axes.axvline(threshold.limit, color=LIMIT, linewidth=1.4, linestyle="--")
        axes.plot([threshold.limit], [at_limit], "o", color=LIMIT, markersize=5)
        unit = column_of(threshold.metric).unit
        axes.set(xlabel=threshold.parameter + ("" if unit == "1" else f" ({unit})"), ylabel="kept (%)", ylim=(0, 104))
        axes.grid(axis="y")

    caption = f"a limit of {threshold.limit:g} keeps {format_number(at_limit, 1)} %".replace("-", "−")
    return page.figure(draw(plot, WIDTH, 170), threshold.parameter, caption)


def _share_kept(values: Values, limits: Values, is_minimum: bool) -> Values:
    """Return the share of sorted values that each limit keeps."""
    first = np.searchsorted(values, limits, side="left" if is_minimum else "right")
    share: Values = first / len(values)
    return 1 - share if is_minimum else share
