"""Small pictures of every metric: a row a language, kept and dropped segments, and the limit where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd

from audiopipe.extras import require_extra
from audiopipe.kernels import METRICS
from audiopipe.report import page
from audiopipe.report.dataset import DatasetTables, Rule
from audiopipe.report.figure import DROPPED, KEPT, LIMIT, NEUTRAL, draw
from audiopipe.report.page import Html
from audiopipe.report.quality import digits, title
from audiopipe.report.text import number, percent

with require_extra("notebooks", "drawing a report"):
    from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["metrics", "thresholds"]

BINS = 48
STEPS = 60
WIDTH = 380
ROW = 27
MOST_LANGUAGES = 14
Values = npt.NDArray[np.float64]


def metrics(data: DatasetTables) -> Html:
    """The distribution of each metric. Every language is drawn as high as the others, however many segments it has."""
    limits = {rule.metric: rule for rule in data.rules}
    shown = sorted(data.segments["language"].unique())[:MOST_LANGUAGES]
    pieces = [_panel(data.segments, name, shown, limits.get(name)) for name in METRICS]
    left_out = data.segments["language"].nunique() - len(shown)
    more = page.note(f"{left_out} more languages are not drawn; choose with the parameter <code>language</code>.")
    key = page.legend({"kept": KEPT, "dropped": DROPPED, "limit of this run": LIMIT})
    return page.join(key, page.grid(pieces), more if left_out else Html(""))


def _panel(segments: pd.DataFrame, metric: str, shown: list[str], rule: Rule | None) -> Html:
    values = segments[metric].to_numpy(dtype=float)
    finite = np.isfinite(values)
    unit, about = METRICS[metric]
    if not finite.any():
        return page.figure("", title(metric), f"{about}; no value in any segment")
    edges = _edges(values[finite], rule)
    kept = segments["kept"].to_numpy(dtype=bool)

    def onto(axes: Axes) -> None:
        for row, language in enumerate(shown):
            mine = finite & (segments["language"] == language).to_numpy()
            _ridge(axes, row, values[mine & kept], values[mine & ~kept], edges)
        if rule is not None:
            axes.axvline(rule.limit, color=LIMIT, linewidth=1.4, linestyle="--")
        axes.set(xlim=(edges[0], edges[-1]), ylim=(len(shown) - 0.45, -0.6))
        axes.set_yticks(range(len(shown)), shown)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel("share, 0 to 1" if unit == "1" and "ratio" in metric else unit if unit != "1" else "no unit")

    picture = draw(onto, WIDTH, 52 + ROW * len(shown))
    return page.figure(picture, title(metric), f"{about}{_aside(metric, values, finite)}")


def _edges(values: Values, rule: Rule | None) -> Values:
    """Bins over the values without their last half percent on each side; what lies beyond is in the outermost ones."""
    low, high = np.percentile(values, [0.5, 99.5])
    if rule is not None:
        low, high = min(low, rule.limit), max(high, rule.limit)
    margin = 0.03 * (high - low) or max(abs(high), 1.0) * 0.05
    return np.linspace(low - margin, high + margin, BINS + 1)


def _ridge(axes: Axes, row: int, kept: Values, dropped: Values, edges: Values) -> None:
    """One language's histogram, standing on its line, dropped segments on top of the kept."""
    passed = np.histogram(np.clip(kept, edges[0], edges[-1]), edges)[0].astype(float)
    both = passed + np.histogram(np.clip(dropped, edges[0], edges[-1]), edges)[0]
    # Square roots: next to a bin with a thousand segments one with ten is still seen.
    upper = np.sqrt(both / max(both.max(), 1.0)) * 0.86
    lower = upper * passed / np.maximum(both, 1.0)
    base = row + 0.35
    axes.stairs(base - upper, edges, baseline=base - lower, fill=True, color=DROPPED, linewidth=0)
    axes.stairs(base - lower, edges, baseline=base, fill=True, color=KEPT, linewidth=0)
    axes.axhline(base, color=NEUTRAL, linewidth=0.5, alpha=0.6)
    if len(kept):
        middle = float(np.median(kept))
        axes.plot([middle, middle], [base, base + 0.13], color=KEPT, linewidth=2, solid_capstyle="butt")


def _aside(metric: str, values: Values, finite: npt.NDArray[np.bool_]) -> str:
    """Median, and how many segments have no such value."""
    told = f"; median {number(float(np.median(values[finite])), digits(metric))}"
    missing = len(values) - int(finite.sum())
    return told + (f"; {percent(missing, len(values))} have none" if missing else "")


def thresholds(data: DatasetTables) -> Html:
    """How much each limit alone would keep if it stood elsewhere."""
    rules = data.rules
    if not rules:
        return page.note("Every threshold of this run is switched off.")
    languages = len(data.by_language)
    about = f"Of the segments that have the metric, over {'all languages' if languages > 1 else 'the language'}; "
    about += "each limit by itself, the others are left aside."
    return page.join(page.note(about), page.grid(_curve(data.segments, rule) for rule in rules))


def _curve(segments: pd.DataFrame, rule: Rule) -> Html:
    values = np.sort(segments[rule.metric].dropna().to_numpy(dtype=float))
    finite = values[np.isfinite(values)]
    if not len(finite):
        return page.figure("", rule.field, "no value in any segment")
    low, high = np.percentile(finite, [0.5, 99.5])
    low, high = min(low, rule.limit), max(high, rule.limit)
    limits = np.linspace(low, high, STEPS)
    kept = 100 * _passing(values, limits, rule.below)
    now = float(100 * _passing(values, np.array([rule.limit]), rule.below)[0])

    def onto(axes: Axes) -> None:
        axes.plot(limits, kept, color=KEPT, linewidth=1.8)
        axes.axvline(rule.limit, color=LIMIT, linewidth=1.4, linestyle="--")
        axes.plot([rule.limit], [now], "o", color=LIMIT, markersize=5)
        unit = METRICS[rule.metric].unit
        axes.set(xlabel=f"{rule.field}{'' if unit == '1' else f' ({unit})'}", ylabel="kept (%)", ylim=(0, 104))
        axes.grid(axis="y")

    return page.figure(
        draw(onto, WIDTH, 170), rule.field, f"at {rule.limit:g} it keeps {number(now, 1)} %".replace("-", "−")
    )


def _passing(values: Values, limits: Values, below: bool) -> Values:
    """The share of sorted values that is not on the dropped side of each limit."""
    first = np.searchsorted(values, limits, side="left" if below else "right")
    share: Values = first / len(values)
    return 1 - share if below else share
