"""Hours by language and the durations of the segments."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from audiopipe.dataset.totals import Totals
from audiopipe.report import page
from audiopipe.report.chart_data import Band, Items
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.figure import DROPPED, KEPT, draw
from audiopipe.report.groups import largest
from audiopipe.report.histogram import bin_edges
from audiopipe.report.numbers import RunNumbers
from audiopipe.report.page import Html
from audiopipe.report.ridges import MAX_ROWS, Sample, draw_histograms
from audiopipe.report.text import format_duration, pluralize

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["durations"]

MAX_BARS = 24
BINS = 60
QUANTILES = (0.05, 0.5, 0.95)


def durations(tables: DatasetTables) -> Html:
    """Draw the hours of each language and a histogram of the durations."""
    heading = Html("<h2>Hours and durations</h2>")
    legend = page.legend({"kept": KEPT, "dropped; of the hours also what is in no segment": DROPPED})
    return page.join(heading, _describe(tables), legend, page.grid([_hours(tables), _histogram(tables)], two=True))


def _describe(tables: DatasetTables) -> Html:
    kept = tables.kept["duration_s"]
    if not len(kept):
        return page.note("No segment was kept.")
    short, middle, long = (format_duration(float(kept.quantile(quantile))) for quantile in QUANTILES)
    sentence = f"A kept segment lasts {middle} in the median; 5 % are shorter than {short}, and 5 % longer than {long}."
    videos = tables.kept.groupby(["language", "video_id"])["duration_s"].sum()
    sentence += f" A video gives {format_duration(float(videos.median()))} of kept segments in the median."
    return page.note(sentence)


def _hours(tables: DatasetTables) -> Html:
    """Draw the hours of audio of each language in segments, kept and dropped."""
    groups = largest({name: total.audio_s for name, total in tables.by_language.items()}, MAX_BARS)
    totals = {name: Totals() for name in groups.names}
    for name, total in tables.by_language.items():
        sums = totals[groups.label(name)]
        sums.kept_s += total.kept_s
        sums.audio_s += total.audio_s
    kept = [total.kept_s / 3600 for total in totals.values()]
    rest = [max(0.0, (total.audio_s - total.kept_s) / 3600) for total in totals.values()]
    top = max(map(sum, zip(kept, rest, strict=True)))
    names = list(totals)

    def plot(axes: Axes) -> None:
        axes.barh(names, kept, color=KEPT, height=0.72)
        axes.barh(names, rest, left=kept, color=DROPPED, height=0.72)
        axes.invert_yaxis()
        axes.set(xlabel="hours of audio", xlim=(0, 1.02 * top or 1.0))
        axes.grid(axis="x")

    items = [(row, 0.0, 1.02 * top, (name, round(kept[row], 4), round(rest[row], 4))) for row, name in enumerate(names)]
    bands = [Band(0, row - 0.5, row + 0.5) for row in range(len(names))]
    data = Items(("language", "kept (h)", "dropped or not in a segment (h)"), items, bands)
    numbers = RunNumbers.of_totals(tables.total)
    about = f"{numbers.hours_kept} of {numbers.hours} h kept in {pluralize(len(tables.by_language), 'language')}"
    return page.figure(draw(plot, 470, 56 + 17 * len(names), data), "Hours", about)


def _histogram(tables: DatasetTables) -> Html:
    rows = tables.segments
    if not len(rows):
        return Html("")
    values = rows["duration_s"].to_numpy(dtype=float)
    edges = bin_edges(values, BINS)
    edges = np.linspace(max(0.0, float(edges[0])), float(edges[-1]), BINS + 1)
    sample = Sample(values, rows["language"], rows["kept"].to_numpy(dtype=bool))
    groups = largest(Counter(rows["language"]), MAX_ROWS)
    chart = draw_histograms(sample, groups, edges, "duration (s)", "duration (s)", None, 470)
    return page.figure(chart, "Durations", "of the segments")
