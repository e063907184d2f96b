"""Two or more outputs compared: numbers, parameters, kept segments, distributions, and different decisions."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from audiopipe.dataset.totals import Totals
from audiopipe.report import page
from audiopipe.report.chart_data import Band, Bins
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.figure import SERIES, draw
from audiopipe.report.histogram import bin_edges, clipped_histogram, finite_values
from audiopipe.report.metric_labels import format_metric, metric_title, unit_label
from audiopipe.report.numbers import format_hours, medians
from audiopipe.report.page import Html, esc
from audiopipe.report.selection import before_and_after
from audiopipe.report.text import format_number, humanize, pluralize
from audiopipe.scorers.scorer import Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["charts", "comparison", "label_runs"]

THIS = "this output"

CHARTS = (
    "dnsmos_ovrl",
    "loudness_lufs",
    "snr_db",
    "bandwidth_hz",
    "silence_ratio",
    "true_peak_dbtp",
    "spectral_centroid_hz",
)
BINS = 60
MAX_CHANGES = 12
EXAMPLES = 3
KEY = ["language", "key"]


def comparison(tables: DatasetTables) -> Html:
    """Compare this output with the other ones. Returns an empty piece if there is none."""
    others = tables.others
    if not others:
        return Html("")
    title = others[0].dataset.url if len(others) == 1 else f"{len(others)} outputs"
    heading = Html(f"<h2>Compared with {esc(title)}</h2>")
    runs = label_runs(tables)
    counts = _totals(tables, others[0]) if len(others) == 1 else _hours(runs)
    numbers = (_overview(runs), _parameters(runs), before_and_after(tables.dataset), counts)
    decisions = [
        _decisions(tables, other, "the other" if len(others) == 1 else label) for label, other in list(runs.items())[1:]
    ]
    return page.join(heading, *numbers, charts(tables), *decisions)


def label_runs(tables: DatasetTables) -> dict[str, DatasetTables]:
    """Return the outputs by label: the last part of their address, or all of it where the last parts are the same."""
    short = [other.dataset.url.rstrip("/").rpartition("/")[2] for other in tables.others]
    urls = [other.dataset.url for other in tables.others]
    labels = short if len(set(short)) == len(short) and THIS not in short else urls
    return {THIS: tables, **dict(zip(labels, tables.others, strict=True))}


def charts(tables: DatasetTables) -> Html:
    """Draw the main metrics' distributions among the kept segments of all outputs."""
    runs = label_runs(tables)
    colors = dict(zip(runs, itertools.cycle(SERIES), strict=False))
    shared = tables.present(CHARTS)
    for other in tables.others:
        shared = other.present(shared)
    figures = (_distributions(runs, colors, tables.metrics[metric]) for metric in shared)
    return page.join(page.legend(colors), page.grid(figures))


def _overview(runs: Mapping[str, DatasetTables]) -> Html:
    """Show a row for each output: its numbers, and the medians of its kept segments."""
    metrics = [name for name in CHARTS if all(run.present([name]) for run in runs.values())]
    columns = [runs[THIS].metrics[name] for name in metrics]
    rows = []
    for label, run in runs.items():
        numbers, values = run.numbers, medians(run.segments, metrics)
        cells = [format_metric(column, values[column.name]) for column in columns]
        kept = f"{numbers.kept} ({numbers.kept_share})"
        rows.append([label, numbers.done, kept, numbers.hours_kept, *cells])
    head = ["output", "videos done", "segments kept", "hours kept", *map(metric_title, columns)]
    note = page.note("The columns on the right are medians of the kept segments.")
    return page.join(page.table(head, rows, "l"), note)


def _parameters(runs: Mapping[str, DatasetTables]) -> Html:
    configs = [run.config for run in runs.values()]
    names = sorted({name for config in configs for name in config})
    rows = [[name, *(str(config.get(name)) for config in configs)] for name in names]
    different = [row for row in rows if len(set(row[1:])) > 1]
    if not different:
        return page.note(f"{'Both' if len(runs) == 2 else 'All'} outputs have the same parameters.")
    labels = [THIS, "the other"] if len(runs) == 2 else list(runs)
    return page.table(["parameter", *labels], different, "l")


def _hours(runs: Mapping[str, DatasetTables]) -> Html:
    """Show the kept hours of each language in each output."""
    names = sorted({name for run in runs.values() for name in run.by_language})
    rows = [
        [
            name,
            *(format_hours(run.by_language[name].kept_s) if name in run.by_language else "–" for run in runs.values()),
        ]
        for name in names
    ]
    last = ["all", *(run.numbers.hours_kept for run in runs.values())]
    return page.join(Html("<h4>Hours kept</h4>"), page.table(["language", *runs], rows, "l", last))


def _totals(tables: DatasetTables, other: DatasetTables) -> Html:
    names = sorted(tables.by_language.keys() | other.by_language.keys())
    rows = [_total(name, tables.by_language.get(name), other.by_language.get(name)) for name in names]
    head = ["language", "segments", "the other", "kept", "the other", "Δ kept", "hours kept", "Δ hours", "Δ failed"]
    return page.table(head, rows, "l")


def _total(language: str, left: Totals | None, right: Totals | None) -> list[str]:
    left, right = left or Totals(), right or Totals()
    hours = left.kept_s / 3600, right.kept_s / 3600
    return [
        language,
        f"{left.segments:,}",
        f"{right.segments:,}",
        f"{left.segments_kept:,}",
        f"{right.segments_kept:,}",
        _difference(left.segments_kept - right.segments_kept),
        format_number(hours[0], 2),
        _difference(hours[0] - hours[1], 2),
        _difference(left.videos_failed - right.videos_failed),
    ]


def _difference(value: float, digits: int = 0) -> str:
    return "·" if not round(value, digits) else ("+" if value > 0 else "") + format_number(value, digits)


def _distributions(runs: Mapping[str, DatasetTables], colors: Mapping[str, str], metric: Column) -> Html:
    """Draw a metric's distribution among the kept segments of all outputs, scaled to the same area."""
    values = {label: finite_values(run.kept[metric.name]) for label, run in runs.items()}
    together = np.concatenate(list(values.values()))
    if not len(together):
        return page.figure("", metric_title(metric), "no value in any kept segment")
    edges = bin_edges(together, BINS)
    shares = {label: 100 * clipped_histogram(part, edges) / max(len(part), 1) for label, part in values.items()}
    top = 1.05 * max(float(share.max()) for share in shares.values())

    def plot(axes: Axes) -> None:
        for label in reversed(shares):
            axes.stairs(shares[label], edges, color=colors[label], linewidth=1.4)
        axes.set(xlabel=unit_label(metric), ylabel="of kept segments (%)", ylim=(0, top))

    middles = [format_metric(metric, float(medians(run.segments, [metric.name]).iloc[0])) for run in runs.values()]
    series = {f"{label} (%)": [share] for label, share in shares.items()}
    data = Bins(metric_title(metric), edges, ["kept segments"], series, [Band(0, top, 0)], "segments")
    text = f"medians {', '.join(middles[:-1])} and {middles[-1]}"
    return page.figure(draw(plot, 380, 165, data), metric_title(metric), text)


def _decisions(tables: DatasetTables, other: DatasetTables, label: str) -> Html:
    """Count the segments of both outputs that only one of them keeps, by reason, with examples."""
    title = "Changed decisions" + ("" if label == "the other" else f", compared with {label}")
    columns = [*KEY, "kept", "drop_reason", "start_s", "end_s"]
    shared = tables.segments[[*columns, "video_id"]].merge(other.segments[columns], on=KEY)
    # Keys number the segments of a video: with other cuts the same key is another segment.
    same_cut = np.isclose(shared["start_s_x"], shared["start_s_y"]) & np.isclose(shared["end_s_x"], shared["end_s_y"])
    shared = shared[same_cut]
    changed = shared[shared["kept_x"] != shared["kept_y"]]
    text = f"{pluralize(len(shared), 'segment')} are in both; {len(changed):,} have another decision."
    if tables.is_sample or other.is_sample:
        text += " Only samples were read, so there may be more."
    if not len(changed):
        return page.note(f"{label[0].upper()}{label[1:]}: {text}" if label != "the other" else text)
    changes = changed.assign(left=_decision(changed, "x"), right=_decision(changed, "y"))
    counts = Counter(zip(changes["right"], changes["left"], strict=True)).most_common(MAX_CHANGES)
    rows = [[*decisions, f"{count:,}", _examples(changes, *decisions)] for decisions, count in counts]
    head = [f"in {label}", "in this output", "segments", "examples"]
    return page.join(Html(f"<h4>{esc(title)}</h4>"), page.note(text), page.table(head, rows, "ll w"))


def _decision(rows: pd.DataFrame, side: str) -> pd.Series:
    return rows[f"drop_reason_{side}"].map(humanize, na_action="ignore").where(~rows[f"kept_{side}"], "kept")


def _examples(changes: pd.DataFrame, right: str, left: str) -> str:
    rows = changes[(changes["right"] == right) & (changes["left"] == left)].head(EXAMPLES)
    return "; ".join(f"{row.video_id} {row.start_s_x:.1f} to {row.end_s_x:.1f} s" for row in rows.itertuples())
