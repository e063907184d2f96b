"""The values behind a figure: what a page shows under the pointer and exports as CSV.

A figure is drawn by matplotlib; its values travel with it as JSON, in one of four forms. `scripts/charts.js` finds the
value under the pointer from the place of the axes in the picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes

__all__ = ["Band", "Bins", "Cells", "ChartData", "Items", "Points", "chart_script"]

Numbers: TypeAlias = "Sequence[float] | npt.NDArray[np.float64]"
DIGITS = 6  # that values are rounded to


@dataclass(frozen=True)
class Band:
    """The place of one row of values: number of the axes, and two limits on its vertical axis."""

    axes: int
    top: float
    bottom: float


@dataclass(frozen=True)
class Bins:
    """Histograms with common bins, one in each band.

    Args:
        x: title of the horizontal axis.
        edges: of the bins.
        rows: name of each band.
        series: for each name of a count, the values of each band's bins.
        row: what the rows are, for the CSV.
    """

    kind: ClassVar[str] = "bins"
    x: str
    edges: Numbers
    rows: Sequence[str]
    series: Mapping[str, Sequence[Numbers]]
    bands: Sequence[Band]
    row: str = "language"


@dataclass(frozen=True)
class Points:
    """Curves over common points."""

    kind: ClassVar[str] = "points"
    x: str
    at: Numbers
    series: Mapping[str, Numbers]
    bands: Sequence[Band] = ()


@dataclass(frozen=True)
class Items:
    """Bars or boxes. Each item has the number of its band, its left and right end, and its values.

    Args:
        columns: names of the values; the first one is the item's title.
        rows: names of the bands, if they have any, and `row` what these are.
    """

    kind: ClassVar[str] = "items"
    columns: Sequence[str]
    items: Sequence[tuple[int, float, float, Sequence[str | float]]]
    bands: Sequence[Band]
    rows: Sequence[str] = ()
    row: str = ""


@dataclass(frozen=True)
class Cells:
    """A map of two quantities: counts for (column, row) of the cells that are not empty.

    Args:
        columns: the columns of segments on the two axes, so that a page can list the segments of a cell.
    """

    kind: ClassVar[str] = "cells"
    x: str
    y: str
    x_edges: Numbers
    y_edges: Numbers
    names: Sequence[str]
    cells: Sequence[Sequence[int]]
    columns: Sequence[str] = ()
    bands: Sequence[Band] = field(default=())


ChartData = Bins | Points | Items | Cells


def chart_script(data: ChartData, axes: Sequence[Axes], height: float) -> str:
    """Return the element with the values of a drawn figure and the place of its axes.

    Args:
        axes: after drawing, so that the layout is final.
        height: of the picture in pixels.
    """
    bands = data.bands or [Band(0, *axes[0].get_ylim())]
    first = axes[0]
    left, right = first.get_xlim()
    ends = first.transData.transform([(left, 0), (right, 0)])[:, 0]
    places = []
    for band in bands:
        ends_y = axes[band.axes].transData.transform([(0, band.top), (0, band.bottom)])[:, 1]
        places.append(sorted(round(height - float(y), 1) for y in ends_y))
    values = {name: _compact(value) for name, value in vars(data).items() if name != "bands"}
    frame = {"x": [round(float(end), 1) for end in ends], "from": _compact(left), "to": _compact(right)}
    body = {"kind": data.kind, **values, "frame": frame, "bands": places}
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" class="chart">{text}</script>'


def _compact(value: object) -> object:
    """Round numbers to what a page shows; values that JSON lacks become null."""
    if isinstance(value, Mapping):
        return {name: _compact(item) for name, item in value.items()}
    if isinstance(value, str | float | int) or not hasattr(value, "__iter__"):
        return _round(value)
    return [_compact(item) for item in value]


def _round(value: object) -> object:
    if isinstance(value, str | int) or value is None:
        return value
    number = float(value)  # type: ignore[arg-type]  # of Python or of numpy
    if not math.isfinite(number):
        return None
    rounded = float(f"{number:.{DIGITS}g}")
    return int(rounded) if rounded == int(rounded) else rounded
