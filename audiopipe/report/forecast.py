"""How good the forecasts of a run's end were, as it went on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from audiopipe.ledger import ShardRow
from audiopipe.ledger.rates import estimate_eta, select_window
from audiopipe.ledger.record import parse_utc
from audiopipe.report import page
from audiopipe.report.figure import DROPPED, KEPT, draw
from audiopipe.report.page import Html
from audiopipe.report.progress import RunReport
from audiopipe.report.timeline import scaled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["forecasts"]

LOOKS_BACK = 40
MOST = 4  # times the median forecast: what is above that is not shown


def forecasts(run_report: RunReport) -> Html:
    """The end that was forecast at each moment, beside the end as it came (or as it is forecast now)."""
    shards = run_report.done
    if len(shards) < 3:
        return page.note("Too few shards for a forecast: three must be committed.")
    began = parse_utc(run_report.run.resumed_at or run_report.run.started_at or run_report.at)
    moments = [parse_utc(shard.finished_at or "") for shard in shards]
    moments = [moment for moment in moments if moment > began]
    chosen = moments[:: max(1, len(moments) // LOOKS_BACK)]
    rows = [row for moment in chosen if (row := _forecast(run_report, shards, moment, began)) is not None]
    if len(rows) < 2:
        return page.note("The last session has too few shards for a forecast.")
    unit, scale = scaled(max(row[2] for row in rows))
    at, low, expected, high = (np.array(column) / scale for column in zip(*rows, strict=True))
    actual = (run_report.end - began).total_seconds() / scale if run_report.run.completed_at else None
    # The first forecasts, of a few shards, can be off by so much that nothing else would be seen beside them.
    top = 1.1 * max(actual or 0.0, min(float(high.max()), MOST * float(np.median(expected))))

    def onto(axes: Axes) -> None:
        axes.fill_between(at, low, high, color=KEPT, alpha=0.22, linewidth=0)
        axes.plot(at, expected, color=KEPT, linewidth=1.6)
        if actual is not None:
            axes.axhline(actual, color=DROPPED, linewidth=1.4, linestyle="--")
            axes.annotate(
                "the end as it came", (at[-1], actual), (0, 3), textcoords="offset points", ha="right", color=DROPPED
            )
        axes.set(xlabel=f"time into the session ({unit})", ylabel=f"forecast length ({unit})", ylim=(0, top))
        axes.grid(axis="y")

    about = (
        "how long the session would take in all, as forecast at each moment; the band is its 10th to 90th percentile"
    )
    return page.figure(draw(onto, 760, 210), "Forecast", about)


def _forecast(
    run_report: RunReport, shards: Sequence[ShardRow], moment: datetime, began: datetime
) -> tuple[float, ...] | None:
    """Time into the session, and the low, expected and high length of it, in seconds."""
    known = [shard for shard in shards if parse_utc(shard.finished_at or "") <= moment]
    left = run_report.run.total_videos - sum(shard.videos for shard in known)
    now = moment + timedelta(milliseconds=1)
    expected = estimate_eta(select_window(replace(run_report.run, completed_at=None), known, now), left)
    if expected is None:
        return None
    into = (now - began).total_seconds()
    low, high = expected.low_s, expected.high_s
    return (
        into,
        into + (expected.seconds if low is None else low),
        into + expected.seconds,
        into + (expected.seconds if high is None else high),
    )
