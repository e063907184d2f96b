"""Density maps of two metrics: the segments, the share that was dropped, and the limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from audiopipe.extras import require_extra
from audiopipe.report import page
from audiopipe.report.chart_data import Cells
from audiopipe.report.dataset_tables import DatasetTables
from audiopipe.report.figure import DROPPED, KEPT, LIMIT, draw
from audiopipe.report.histogram import Values, bin_edges
from audiopipe.report.metric_labels import metric_name, unit_label
from audiopipe.report.page import Html
from audiopipe.report.text import format_percent
from audiopipe.scorers.scorer import Column

with require_extra("notebooks", "drawing a report"):
    from matplotlib.colors import to_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["maps"]

PAIRS = (
    ("snr_db", "dnsmos_ovrl"),
    ("snr_db", "loudness_lufs"),
    ("bandwidth_hz", "snr_db"),
    ("silence_ratio", "loudness_lufs"),
    ("true_peak_dbtp", "loudness_lufs"),
)
BINS = (72, 44)
MIN_OPACITY = 0.28  # of a cell with one segment, relative to the densest cell


def maps(tables: DatasetTables) -> Html:
    """Draw a density map for each pair of metrics that the dataset has."""
    limits = {threshold.metric: threshold.limit for threshold in tables.thresholds}
    legend = page.legend({"kept": KEPT, "dropped": DROPPED, "limit of this run": LIMIT})
    note = page.note(
        "A stronger color means more segments, on a logarithmic scale. Mixed colors mean both kinds. Click a cell to "
        "hear its segments."
    )
    pairs = [(tables.metrics[x], tables.metrics[y]) for x, y in PAIRS if len(tables.present((x, y))) == 2]
    if not pairs:
        return page.note("This dataset has none of the pairs of metrics.")
    return page.join(legend, note, page.grid((_map(tables.segments, x, y, limits) for x, y in pairs), two=True))


def _map(segments: pd.DataFrame, x: Column, y: Column, limits: dict[str, float]) -> Html:
    points = segments[[x.name, y.name]].to_numpy(dtype=float)
    finite = np.isfinite(points).all(axis=1)
    name = f"{metric_name(x)} and {metric_name(y)}"
    if not finite.any():
        return page.figure("", name, "no segment has both metrics")
    points, kept = points[finite], segments["kept"].to_numpy(dtype=bool)[finite]
    edges = [bin_edges(points[:, axis], BINS[axis], limits.get(metric.name)) for axis, metric in enumerate((x, y))]
    counts = _count(points, kept, edges)
    image = _image(*counts)

    def plot(axes: Axes) -> None:
        extent = (edges[0][0], edges[0][-1], edges[1][0], edges[1][-1])
        axes.imshow(image, origin="lower", aspect="auto", extent=extent)
        if x.name in limits:
            axes.axvline(limits[x.name], color=LIMIT, linewidth=1.4, linestyle="--")
        if y.name in limits:
            axes.axhline(limits[y.name], color=LIMIT, linewidth=1.4, linestyle="--")
        axes.set(xlabel=_label(x), ylabel=_label(y))

    missing = len(segments) - len(points)
    caption = f"{format_percent(missing, len(segments))} of the segments lack one of them" if missing else ""
    data = Cells(_label(x), _label(y), edges[0], edges[1], ("kept", "dropped"), _cells(*counts), (x.name, y.name))
    return page.figure(draw(plot, 470, 250, data), name[0].upper() + name[1:], caption)


def _label(metric: Column) -> str:
    return f"{metric_name(metric)} ({unit_label(metric)})"


def _count(points: Values, kept: npt.NDArray[np.bool_], edges: list[Values]) -> tuple[Values, Values]:
    """Return the numbers of segments and of kept segments in each cell [rows, columns]."""
    inside = np.column_stack([np.clip(points[:, axis], edges[axis][0], edges[axis][-1]) for axis in (0, 1)])
    counts, kept_counts = (np.histogramdd(rows, edges)[0].T for rows in (inside, inside[kept]))
    return counts, kept_counts


def _cells(counts: Values, kept_counts: Values) -> list[list[int]]:
    """List column, row, kept and dropped segments of the cells that have any."""
    return [
        [int(column), int(row), int(kept_counts[row, column]), int(counts[row, column] - kept_counts[row, column])]
        for row, column in np.argwhere(counts > 0)
    ]


def _image(counts: Values, kept_counts: Values) -> Values:
    """Return [rows, columns, RGBA]: the color is the share of kept segments, the opacity their number."""
    share = np.divide(kept_counts, counts, out=np.zeros_like(counts), where=counts > 0)[..., None]
    color = share * np.array(to_rgb(KEPT)) + (1 - share) * np.array(to_rgb(DROPPED))
    strength = np.log1p(counts) / max(np.log1p(counts.max()), 1e-9)
    opacity = np.where(counts > 0, MIN_OPACITY + (1 - MIN_OPACITY) * strength, 0.0)
    return np.concatenate([color, opacity[..., None]], axis=-1)
