"""Draw the ETAs of a run over time, compared with its end."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from audiopipe.ledger import ShardRow
from audiopipe.ledger.rates import RECENT_SHARDS, estimate_eta, select_window
from audiopipe.ledger.record import parse_utc
from audiopipe.report import page
from audiopipe.report.chart_data import Points
from audiopipe.report.figure import DROPPED, KEPT, draw
from audiopipe.report.page import Html
from audiopipe.report.progress import RunReport
from audiopipe.report.timeline import choose_time_unit
from audiopipe.types import Seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["forecasts"]

MIN_SHARDS = 3
MAX_POINTS = 40
MAX_RATIO = 4  # forecasts above this multiple of the median are cut off


class _Forecast(NamedTuple):
    """Total length of a session as forecast at one moment; all in seconds since the start of the session."""

    elapsed_s: Seconds
    low_s: Seconds
    expected_s: Seconds
    high_s: Seconds


def forecasts(run_report: RunReport) -> Html:
    """Draw the length of the session as forecast at each moment, with the actual length once it has ended."""
    shards = run_report.done
    if len(shards) < MIN_SHARDS:
        return page.note("Too few shards for a forecast: three must be committed.")
    session_start = parse_utc(run_report.run.resumed_at or run_report.run.started_at or run_report.at)
    finishes = [parse_utc(shard.finished_at or "") for shard in shards]
    finishes = [finish for finish in finishes if finish > session_start]
    moments = finishes[:: max(1, len(finishes) // MAX_POINTS)]
    ends = [parse_utc(shard.finished_at or "") for shard in shards]
    videos = list(accumulate(shard.videos for shard in shards))
    points = []
    for moment in moments:
        count = bisect_right(ends, moment)
        # The shards that a reader of the ledger got at that moment.
        recent = shards[max(0, count - RECENT_SHARDS) : count]
        points.append(_forecast(run_report, recent, videos[count - 1], moment, session_start))
    rows = [point for point in points if point is not None]
    if len(rows) < 2:
        return page.note("The last session has too few shards for a forecast.")
    unit, scale = choose_time_unit(max(row.expected_s for row in rows))
    at, low, expected, high = (np.array(column) / scale for column in zip(*rows, strict=True))
    actual = (run_report.end - session_start).total_seconds() / scale if run_report.run.completed_at else None
    # The first forecasts, from few shards, can be so far off that the scale would hide all others.
    top = 1.1 * max(actual or 0.0, min(float(high.max()), MAX_RATIO * float(np.median(expected))))

    def plot(axes: Axes) -> None:
        axes.fill_between(at, low, high, color=KEPT, alpha=0.22, linewidth=0)
        axes.plot(at, expected, color=KEPT, linewidth=1.6)
        if actual is not None:
            axes.axhline(actual, color=DROPPED, linewidth=1.4, linestyle="--")
            axes.annotate("actual", (at[-1], actual), (0, 3), textcoords="offset points", ha="right", color=DROPPED)
        axes.set(xlabel=f"time since the start of the session ({unit})", ylim=(0, top))
        axes.set(ylabel=f"forecast length ({unit})")
        axes.grid(axis="y")

    about = "total length of the session as forecast at each moment; the band is the 10th to 90th percentile"
    names = ("10th percentile", "forecast", "90th percentile")
    series = dict(zip(names, (low, expected, high), strict=True))
    data = Points(f"time since the start of the session ({unit})", at, series)
    return page.figure(draw(plot, 760, 210, data), "Forecast", about)


def _forecast(
    run_report: RunReport, finished: Sequence[ShardRow], videos: int, moment: datetime, session_start: datetime
) -> _Forecast | None:
    """Forecast the length of the session from the last shards, and all videos, that had finished at a moment."""
    remaining = run_report.run.total_videos - videos
    now = moment + timedelta(milliseconds=1)
    eta = estimate_eta(select_window(replace(run_report.run, completed_at=None), finished, now), remaining)
    if eta is None:
        return None
    elapsed_s = (now - session_start).total_seconds()
    low_s = eta.seconds if eta.low_s is None else eta.low_s
    high_s = eta.seconds if eta.high_s is None else eta.high_s
    return _Forecast(elapsed_s, elapsed_s + low_s, elapsed_s + eta.seconds, elapsed_s + high_s)
