"""Two metrics at a time: where the segments are, which part of them was dropped, and where the limits run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from audiopipe.extras import require_extra
from audiopipe.report import page
from audiopipe.report.dataset import DatasetTables, Rule
from audiopipe.report.figure import DROPPED, KEPT, LIMIT, draw
from audiopipe.report.page import Html
from audiopipe.report.quality import title
from audiopipe.report.text import percent

with require_extra("notebooks", "drawing a report"):
    from matplotlib.colors import to_rgb

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["maps"]

PAIRS = (
    ("snr_db", "loudness_lufs"),
    ("bandwidth_hz", "snr_db"),
    ("silence_ratio", "loudness_lufs"),
    ("true_peak_dbtp", "loudness_lufs"),
)
BINS = (72, 44)
FAINTEST = 0.28  # how visible a single segment is beside the densest cell
Values = npt.NDArray[np.float64]


def maps(data: DatasetTables) -> Html:
    """A density map of each pair of metrics that are judged together."""
    limits = {rule.metric: rule for rule in data.rules}
    key = page.legend({"kept": KEPT, "dropped": DROPPED, "limit of this run": LIMIT})
    note = page.note("Stronger colour: more segments in the cell, on a logarithmic scale. Mixed colour: some of each.")
    return page.join(key, note, page.grid((_map(data.segments, x, y, limits) for x, y in PAIRS), two=True))


def _map(segments: pd.DataFrame, x: str, y: str, limits: dict[str, Rule]) -> Html:
    both = segments[[x, y]].to_numpy(dtype=float)
    finite = np.isfinite(both).all(axis=1)
    name = f"{title(x).partition(' (')[0]} and {title(y).partition(' (')[0]}"
    if not finite.any():
        return page.figure("", name, "no segment has both")
    both, kept = both[finite], segments["kept"].to_numpy(dtype=bool)[finite]
    edges = [_edges(both[:, 0], limits.get(x), BINS[0]), _edges(both[:, 1], limits.get(y), BINS[1])]
    image = _image(both, kept, edges)

    def onto(axes: Axes) -> None:
        extent = (edges[0][0], edges[0][-1], edges[1][0], edges[1][-1])
        axes.imshow(image, origin="lower", aspect="auto", extent=extent)
        if x in limits:
            axes.axvline(limits[x].limit, color=LIMIT, linewidth=1.4, linestyle="--")
        if y in limits:
            axes.axhline(limits[y].limit, color=LIMIT, linewidth=1.4, linestyle="--")
        axes.set(xlabel=_label(x), ylabel=_label(y))

    missing = len(segments) - len(both)
    about = f"{percent(missing, len(segments))} of the segments have not both" if missing else ""
    return page.figure(draw(onto, 470, 250), name[0].upper() + name[1:], about)


def _label(metric: str) -> str:
    named = title(metric)
    return named if "(" in named else f"{named} (share, 0 to 1)"


def _edges(values: Values, rule: Rule | None, bins: int) -> Values:
    """Cells over the values without their last half percent on each side, and over the limit."""
    low, high = np.percentile(values, [0.5, 99.5])
    if rule is not None:
        low, high = min(low, rule.limit), max(high, rule.limit)
    margin = 0.03 * (high - low) or max(abs(high), 1.0) * 0.05
    return np.linspace(low - margin, high + margin, bins + 1)


def _image(both: Values, kept: npt.NDArray[np.bool_], edges: list[Values]) -> Values:
    """[rows, columns, RGBA]: the colour tells the share kept, the opacity the number."""
    inside = np.column_stack([np.clip(both[:, axis], edges[axis][0], edges[axis][-1]) for axis in (0, 1)])
    every, passed = (np.histogramdd(some, edges)[0].T for some in (inside, inside[kept]))
    share = np.divide(passed, every, out=np.zeros_like(every), where=every > 0)[..., None]
    colour = share * np.array(to_rgb(KEPT)) + (1 - share) * np.array(to_rgb(DROPPED))
    strength = np.log1p(every) / max(np.log1p(every.max()), 1e-9)
    opacity = np.where(every > 0, FAINTEST + (1 - FAINTEST) * strength, 0.0)
    return np.concatenate([colour, opacity[..., None]], axis=-1)
