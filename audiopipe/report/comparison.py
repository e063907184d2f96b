"""Two outputs compared: parameters, kept segments, distributions, and the segments with different decisions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from audiopipe.dataset.totals import Totals
from audiopipe.report import page
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.figure import DROPPED, KEPT, draw
from audiopipe.report.histogram import bin_edges, clipped_histogram, finite_values
from audiopipe.report.metric_labels import format_metric, metric_title, unit_label
from audiopipe.report.numbers import medians
from audiopipe.report.page import Html, esc
from audiopipe.report.selection import before_and_after
from audiopipe.report.text import format_number, humanize, pluralize
from audiopipe.scorers.scorer import Column

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["charts", "comparison"]

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
    """Compare this output with the other one. Returns an empty piece if there is none."""
    other = tables.other
    if other is None:
        return Html("")
    heading = Html(f"<h2>Compared with {esc(other.dataset.url)}</h2>")
    numbers = (_parameters(tables, other), before_and_after(tables.dataset), _totals(tables, other))
    return page.join(heading, *numbers, charts(tables, other), _decisions(tables, other))


def charts(tables: DatasetTables, other: DatasetTables) -> Html:
    """Draw the main metrics' distributions among the kept segments of both outputs."""
    legend = page.legend({"this output": KEPT, other.dataset.url: DROPPED})
    shared = other.present(tables.present(CHARTS))
    return page.join(legend, page.grid(_distributions([tables, other], tables.metrics[metric]) for metric in shared))


def _parameters(tables: DatasetTables, other: DatasetTables) -> Html:
    left, right = tables.config, other.config
    different = [name for name in sorted(left.keys() | right.keys()) if left.get(name) != right.get(name)]
    if not different:
        return page.note("Both outputs have the same parameters.")
    rows = [[name, str(left.get(name)), str(right.get(name))] for name in different]
    return page.table(["parameter", "this output", "the other"], rows, "l")


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


def _distributions(sides: Sequence[DatasetTables], metric: Column) -> Html:
    """Draw a metric's distribution among the kept segments of both outputs, scaled to the same area."""
    left, right = (finite_values(side.kept[metric.name]) for side in sides)
    values = np.concatenate([left, right])
    if not len(values):
        return page.figure("", metric_title(metric), "no value in any kept segment")
    edges = bin_edges(values, BINS)

    def plot(axes: Axes) -> None:
        for side, color, opacity in ((right, DROPPED, 0.18), (left, KEPT, 0.0)):
            share = 100 * clipped_histogram(side, edges) / max(len(side), 1)
            axes.stairs(share, edges, fill=True, color=color, alpha=opacity, linewidth=0)
            axes.stairs(share, edges, color=color, linewidth=1.4)
        axes.set(xlabel=unit_label(metric), ylabel="of kept segments (%)", ylim=(0, None))

    middles = [format_metric(metric, float(medians(side.segments, [metric.name]).iloc[0])) for side in sides]
    return page.figure(draw(plot, 380, 165), metric_title(metric), f"medians {middles[0]} and {middles[1]}")


def _decisions(tables: DatasetTables, other: DatasetTables) -> Html:
    """Count the segments of both outputs that only one of them keeps, by reason, with examples."""
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
        return page.note(text)
    changes = changed.assign(left=_decision(changed, "x"), right=_decision(changed, "y"))
    counts = Counter(zip(changes["right"], changes["left"], strict=True)).most_common(MAX_CHANGES)
    rows = [[*decisions, f"{count:,}", _examples(changes, *decisions)] for decisions, count in counts]
    head = ["in the other", "in this output", "segments", "examples"]
    return page.join(Html("<h4>Changed decisions</h4>"), page.note(text), page.table(head, rows, "ll w"))


def _decision(rows: pd.DataFrame, side: str) -> pd.Series:
    return rows[f"drop_reason_{side}"].map(humanize, na_action="ignore").where(~rows[f"kept_{side}"], "kept")


def _examples(changes: pd.DataFrame, right: str, left: str) -> str:
    rows = changes[(changes["right"] == right) & (changes["left"] == left)].head(EXAMPLES)
    return "; ".join(f"{row.video_id} {row.start_s_x:.1f} to {row.end_s_x:.1f} s" for row in rows.itertuples())
