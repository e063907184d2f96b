"""Two runs side by side: what differs in their parameters, in what they kept, and which segments they disagree on."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from audiopipe.kernels import METRICS
from audiopipe.report import page
from audiopipe.report.dataset import DatasetTables
from audiopipe.report.figure import DROPPED, KEPT, draw
from audiopipe.report.page import Html, esc
from audiopipe.report.quality import title
from audiopipe.report.text import humanize, number, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["comparison"]

SHOWN = ("loudness_lufs", "snr_db", "bandwidth_hz", "silence_ratio", "true_peak_dbtp", "spectral_centroid_hz")
BINS = 60
MOST = 12
KEY = ["language", "key"]
Values = npt.NDArray[np.float64]


def comparison(data: DatasetTables) -> Html:
    """This output beside another; nothing if there is none to compare with."""
    other = data.other
    if other is None:
        return Html("")
    name = other.store.url
    key = page.legend({"this output": KEPT, name: DROPPED})
    pictures = page.grid(_overlaid(data, other, metric) for metric in SHOWN)
    head = Html(f"<h2>Beside {esc(name)}</h2>")
    return page.join(head, _parameters(data, other), _totals(data, other), key, pictures, _decisions(data, other))


def _parameters(data: DatasetTables, other: DatasetTables) -> Html:
    mine, theirs = data.run.config, other.run.config
    different = [name for name in sorted(mine.keys() | theirs.keys()) if mine.get(name) != theirs.get(name)]
    if not different:
        return page.note("Both were made with the same parameters.")
    rows = [[name, str(mine.get(name)), str(theirs.get(name))] for name in different]
    return page.table(["parameter", "this output", "the other"], rows, "l")


def _totals(data: DatasetTables, other: DatasetTables) -> Html:
    rows = []
    for name in sorted(data.by_language.keys() | other.by_language.keys()):
        mine, theirs = data.by_language.get(name), other.by_language.get(name)
        sides = [
            (some.segments, some.segments_kept, some.kept_s / 3600, some.videos_failed) if some else (0, 0, 0.0, 0)
            for some in (mine, theirs)
        ]
        (_, kept, hours, failed), (_, kept_then, hours_then, failed_then) = sides
        counts = [f"{sides[0][0]:,}", f"{sides[1][0]:,}", f"{kept:,}", f"{kept_then:,}", _delta(kept - kept_then)]
        rows.append([name, *counts, number(hours, 2), _delta(hours - hours_then, 2), _delta(failed - failed_then)])
    head = ["language", "segments", "the other", "kept", "the other", "Δ kept", "hours kept", "Δ hours", "Δ failed"]
    return page.table(head, rows, "l")


def _delta(value: float, shown: int = 0) -> str:
    return "·" if not round(value, shown) else ("+" if value > 0 else "") + number(value, shown)


def _overlaid(data: DatasetTables, other: DatasetTables, metric: str) -> Html:
    """The distribution of a metric among the kept segments of both, each drawn to the same area."""
    sides = [_finite(some.kept[metric]) for some in (data, other)]
    unit, name = METRICS[metric].unit, title(metric)
    both = np.concatenate(sides)
    if not len(both):
        return page.figure("", name, "no value in any kept segment")
    low, high = np.percentile(both, [0.5, 99.5])
    margin = 0.03 * (high - low) or 1.0
    edges = np.linspace(low - margin, high + margin, BINS + 1)

    def onto(axes: Axes) -> None:
        for values, colour, fill in ((sides[1], DROPPED, 0.18), (sides[0], KEPT, 0.0)):
            share = 100 * np.histogram(np.clip(values, edges[0], edges[-1]), edges)[0] / max(len(values), 1)
            axes.stairs(share, edges, fill=True, color=colour, alpha=fill, linewidth=0)
            axes.stairs(share, edges, color=colour, linewidth=1.4)
        axes.set(xlabel=unit if unit != "1" else "share, 0 to 1", ylabel="of kept segments (%)", ylim=(0, None))

    medians = [number(float(np.median(side)), 3 if unit == "1" else 1) if len(side) else "–" for side in sides]
    return page.figure(draw(onto, 380, 165), name, f"medians {medians[0]} and {medians[1]}")


def _finite(values: pd.Series[Any]) -> Values:
    array: Values = values[np.isfinite(values)].to_numpy(dtype=float)
    return array


def _decisions(data: DatasetTables, other: DatasetTables) -> Html:
    """Segments that both have and only one keeps, by reason, with examples."""
    columns = [*KEY, "kept", "drop_reason"]
    times = ["start_s", "end_s", "video_id"]
    both = data.segments[[*columns, *times]].merge(other.segments[[*columns, "start_s", "end_s"]], on=KEY)
    # The key counts a video's segments; cut at other times, the same number is another segment.
    same = np.isclose(both["start_s_x"], both["start_s_y"]) & np.isclose(both["end_s_x"], both["end_s_y"])
    both = both[same]
    changed = both[both["kept_x"] != both["kept_y"]]
    told = f"{plural(len(both), 'segment')} are in both; {len(changed):,} changed their decision."
    if data.sampled or other.sampled:
        told += " Only samples were read, so there may be more."
    if not len(changed):
        return page.note(told)
    kinds = changed.assign(now=_decision(changed, "x"), then=_decision(changed, "y"))
    counts = Counter(zip(kinds["then"], kinds["now"], strict=True)).most_common(MOST)
    rows = [[*kind, f"{count:,}", _examples(kinds, *kind)] for kind, count in counts]
    head = ["in the other", "in this output", "segments", "examples"]
    return page.join(Html("<h4>Changed decisions</h4>"), page.note(told), page.table(head, rows, "ll w"))


def _decision(rows: pd.DataFrame, side: str) -> pd.Series[Any]:
    return rows[f"drop_reason_{side}"].map(humanize, na_action="ignore").where(~rows[f"kept_{side}"], "kept")


def _examples(kinds: pd.DataFrame, then: str, now: str) -> str:
    some = kinds[(kinds["then"] == then) & (kinds["now"] == now)].head(3)
    return "; ".join(f"{row.video_id} {row.start_s_x:.1f} to {row.end_s_x:.1f} s" for row in some.itertuples())
