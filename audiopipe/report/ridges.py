"""Draw the histogram of a quantity: all segments with an axis of counts, and a row for each language below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from audiopipe.extras import require_extra
from audiopipe.report.chart_data import Band, Bins
from audiopipe.report.figure import DROPPED, KEPT, LIMIT, NEUTRAL, draw
from audiopipe.report.groups import Groups
from audiopipe.report.histogram import Values, clipped_histogram

with require_extra("notebooks", "drawing a report"):
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ALL", "MAX_ROWS", "Sample", "draw_histograms"]

ALL = "all"
MAX_ROWS = 12  # languages with a row
ROW_HEIGHT, TOP_HEIGHT = 25, 96
BASE = 0.35  # of a row, below its center


@dataclass(frozen=True)
class Sample:
    """One value of each segment, with its language and decision.

    Args:
        kept: None if there are kept segments only.
        counted: what the values are of.
    """

    values: Values
    language: pd.Series
    kept: npt.NDArray[np.bool_] | None = None
    counted: str = "segments"

    def counts(self, edges: Values, rows: npt.NDArray[np.bool_] | None = None) -> dict[str, Values]:
        """Return the kept and the dropped segments in each bin, of all or of some rows."""
        finite = np.isfinite(self.values)
        chosen = finite if rows is None else finite & rows
        if self.kept is None:
            return {self.counted: clipped_histogram(self.values[chosen], edges)}
        kept = chosen & self.kept
        return {
            name: clipped_histogram(self.values[part], edges)
            for name, part in (("kept", kept), ("dropped", chosen & ~self.kept))
        }

    def median(self, rows: npt.NDArray[np.bool_]) -> float:
        """Return the median of the kept segments of some rows; NaN without any."""
        part = np.isfinite(self.values) & rows & (True if self.kept is None else self.kept)
        return float(np.median(self.values[part])) if part.any() else float("nan")


def draw_histograms(
    sample: Sample, groups: Groups, edges: Values, title: str, label: str, limit: float | None = None, width: int = 380
) -> str:
    """Return the SVG: counts of all segments on top, and below each group in the same height.

    The height in a group's row is the square root of the count, so that a bin with ten stays visible next to one with a
    thousand; the number at the right is the count of its tallest bin.

    Args:
        title: name of the quantity with its unit.
        label: of the horizontal axis.
    """
    labels = groups.labels(sample.language)
    names = groups.names if len(groups.names) > 1 else []
    rows = [(labels == name).to_numpy() for name in names]
    counts = [sample.counts(edges), *(sample.counts(edges, chosen) for chosen in rows)]
    middles = [sample.median(chosen) for chosen in rows]

    def plot(top: Axes, below: Axes | None = None) -> None:
        _stack(top, counts[0], edges)
        top.set(ylabel=sample.counted)
        top.yaxis.set_major_locator(MaxNLocator(3, integer=True))
        top.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        top.grid(axis="y")
        if below is not None:
            _draw_rows(below, names, counts[1:], middles, edges)
        for axes in (top, below):
            if axes is not None and limit is not None:
                axes.axvline(limit, color=LIMIT, linewidth=1.4, linestyle="--")
        last = top if below is None else below
        last.set(xlim=(edges[0], edges[-1]), xlabel=label)
        last.xaxis.set_major_locator(MaxNLocator(6))

    bands = [Band(0, max(1.0, float(np.sum(list(counts[0].values()), axis=0).max())), 0)]
    bands += [Band(1, row - 0.5 - 0.15, row + 0.5 - 0.15) for row in range(len(names))]
    series = {name: [row[name] for row in counts] for name in counts[0]}
    data = Bins(title, edges, [ALL, *names], series, bands)
    if not names:
        return draw(plot, width, TOP_HEIGHT + 30, data)
    height = ROW_HEIGHT * len(names) + 30
    return draw(plot, width, TOP_HEIGHT + height, data, (TOP_HEIGHT, height))


def _stack(axes: Axes, counts: Mapping[str, Values], edges: Values) -> None:
    """Draw the counts on top of each other, the dropped segments above the kept ones."""
    base = np.zeros(len(edges) - 1)
    for values, color in zip(counts.values(), (KEPT, DROPPED), strict=False):
        if values.any():
            axes.add_artist(
                PathPatch(Path.make_compound_path(_outline(edges, base + values, base)), color=color, linewidth=0)
            )
        base = base + values
    axes.set(ylim=(0, 1.05 * max(float(base.max()), 1.0)))


def _draw_rows(
    axes: Axes, names: Sequence[str], counts: Sequence[Mapping[str, Values]], middles: Sequence[float], edges: Values
) -> None:
    """Draw all rows in a few paths, because each artist costs time and space."""
    areas: dict[str, list[Path]] = {KEPT: [], DROPPED: []}
    ticks: list[Path] = []
    for row, (parts, middle) in enumerate(zip(counts, middles, strict=True)):
        first, *others = parts.values()
        total = first + sum(others)
        base = row + BASE
        upper = np.sqrt(total / max(float(total.max()), 1.0)) * 0.86
        lower = upper * first / np.maximum(total, 1.0)
        if first.any():
            areas[KEPT].append(_outline(edges, base - lower, np.full_like(lower, base)))
        if any(part.any() for part in others):
            areas[DROPPED].append(_outline(edges, base - upper, base - lower))
        if np.isfinite(middle):
            ticks.append(Path([(middle, base), (middle, base + 0.13)]))
        axes.text(1.01, row + 0.1, f"{int(total.max()):,}", transform=axes.get_yaxis_transform(), fontsize=7)
    for color, paths in areas.items():
        if paths:
            axes.add_artist(PathPatch(Path.make_compound_path(*paths), color=color, linewidth=0))
    if ticks:
        axes.add_artist(PathPatch(Path.make_compound_path(*ticks), edgecolor=KEPT, linewidth=2, fill=False))
    axes.hlines(np.arange(len(names)) + BASE, edges[0], edges[-1], color=NEUTRAL, linewidth=0.5, alpha=0.6)
    axes.set(ylim=(len(names) - 0.45, -0.6))
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _outline(edges: Values, upper: Values, lower: Values) -> Path:
    """Return the outline of steps between two lines, without the empty bins at both ends."""
    filled = np.flatnonzero(upper != lower)
    first, end = filled[0], filled[-1] + 1
    x = np.repeat(edges[first : end + 1], 2)[1:-1]
    top, bottom = (np.repeat(line[first:end], 2) for line in (upper, lower))
    return Path(np.column_stack([np.concatenate([x, x[::-1]]), np.concatenate([top, bottom[::-1]])]), closed=False)
