"""Charts of every metric: one histogram for each language, and what each threshold would keep elsewhere."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from audiopipe.report import page
from audiopipe.report.chart_data import Points
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.figure import DROPPED, KEPT, LIMIT, draw
from audiopipe.report.groups import Groups, largest
from audiopipe.report.histogram import Values, bin_edges, value_range
from audiopipe.report.metric_labels import column_of, format_metric, metric_title, unit_label
from audiopipe.report.numbers import medians
from audiopipe.report.page import Html, esc
from audiopipe.report.ridges import MAX_ROWS, Sample, draw_histograms
from audiopipe.report.sample_rates import SampleRates
from audiopipe.report.text import format_number, format_percent, humanize, pluralize
from audiopipe.report.thresholds import Threshold
from audiopipe.scorers.scorer import Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["metrics", "threshold_curves"]

BINS = 48
STEPS = 60
WIDTH = 380
MAX_VALUES = 6


def metrics(tables: DatasetTables) -> Html:
    """Draw the distribution of each metric: its counts, and the largest languages in rows of the same height."""
    thresholds = {threshold.metric: threshold for threshold in tables.thresholds}
    groups = largest(Counter(tables.segments["language"]), MAX_ROWS)
    rates = SampleRates(tables)
    charts = [
        _panel(tables.segments, column, groups, thresholds.get(column.name), rates.describe(column.name))
        for column in tables.metrics.values()
    ]
    legend = page.legend({"kept": KEPT, "dropped": DROPPED, "limit of this run": LIMIT})
    note = page.note(
        f"The {len(groups.names) - 1} languages with most segments have a row, the others share one. The parameter "
        "<code>language</code> of the report chooses others."
    )
    sources = page.note(esc(rates.describe_sources()))
    pieces = [legend, sources, note if groups.hidden else Html(""), page.grid(charts), _all_medians(tables)]
    return page.join(*pieces, _labels(tables))


def _all_medians(tables: DatasetTables) -> Html:
    """Show, folded, the medians of all metrics for every language."""
    metrics = list(tables.metrics.values())
    names = [metric.name for metric in metrics]
    rows = [
        [str(language), *(format_metric(metric, values[metric.name]) for metric in metrics)]
        for language, group in tables.kept.groupby("language")
        for values in [medians(group, names)]
    ]
    overall = medians(tables.kept, names)
    last = ["all", *(format_metric(metric, overall[metric.name]) for metric in metrics)]
    table = page.table(["language", *map(metric_title, metrics)], rows, "l", last)
    summary = f"Medians of the kept segments by language, all {pluralize(len(rows), 'language')}"
    return Html(f"<details><summary>{esc(summary)}</summary>{table.markup}</details>")


def _labels(tables: DatasetTables) -> Html:
    """Show the most frequent values of the columns that are texts or flags."""
    rows: list[list[str | Html]] = []
    for name, column in tables.columns.items():
        if name in tables.metrics:
            continue
        values = tables.segments[name].dropna()
        counts = values.value_counts()
        shown = [
            f"{page.bdi(_flag(value))} ({format_percent(int(count), len(values))})" for value, count in counts.items()
        ]
        shown = [*shown[:MAX_VALUES], *([f"and {len(shown) - MAX_VALUES:,} more"] if len(shown) > MAX_VALUES else [])]
        missing = format_percent(len(tables.segments) - len(values), len(tables.segments))
        rows.append([humanize(name), column.description, f"{len(counts):,}", missing, Html(", ".join(shown) or "–")])
    if not rows:
        return Html("")
    head = ["column", "meaning", "values", "missing", "the most frequent"]
    return page.join(Html("<h4>Texts and flags</h4>"), page.table(head, rows, "lw  w"))


def _flag(value: object) -> object:
    """Write a flag as the segment table does."""
    return ("no", "yes")[int(value)] if isinstance(value, bool | np.bool_) else value


def _panel(segments: pd.DataFrame, metric: Column, groups: Groups, threshold: Threshold | None, measured: str) -> Html:
    values = segments[metric.name].to_numpy(dtype=float)
    finite = np.isfinite(values)
    meaning = metric.description
    if not finite.any():
        return page.figure("", metric_title(metric), f"{meaning}; no value in any segment")
    limit = threshold.limit if threshold else None
    edges = bin_edges(values[finite], BINS, limit)
    sample = Sample(values, segments["language"], segments["kept"].to_numpy(dtype=bool))
    chart = draw_histograms(sample, groups, edges, metric_title(metric), unit_label(metric), limit, WIDTH)
    return page.figure(chart, metric_title(metric), f"{meaning}; {measured}{_summary(metric, segments, finite)}")


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
    data = Points(threshold.parameter, limits, {"kept (%)": kept})
    return page.figure(draw(plot, WIDTH, 170, data), threshold.parameter, caption)


def _share_kept(values: Values, limits: Values, is_minimum: bool) -> Values:
    """Return the share of sorted values that each limit keeps."""
    first = np.searchsorted(values, limits, side="left" if is_minimum else "right")
    share: Values = first / len(values)
    return 1 - share if is_minimum else share
