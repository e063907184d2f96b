"""Pictures of a run: throughput, which worker had what when, and where the time went."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from audiopipe.extras import require_extra
from audiopipe.ledger import ShardRow
from audiopipe.ledger.record import parse_utc
from audiopipe.report import page
from audiopipe.report.figure import DROPPED, KEPT, NEUTRAL, draw, series_colors
from audiopipe.report.page import Html, esc
from audiopipe.report.progress import RunReport
from audiopipe.report.stages import STAGES, bottleneck, ordered
from audiopipe.report.text import format_duration, number, percent

with require_extra("notebooks", "drawing a report"):
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["NOTHING", "lanes", "scaled", "stages", "throughput"]

BINS = 60
MOST_BARS = 20_000
MOST_HEIGHT = 1_240  # of the lanes, so that they fit on a printed page
LABEL = 13  # pixels that a worker's name needs
NOTHING = "Nothing to draw yet: no shard is committed."
Series = npt.NDArray[np.float64]


def throughput(run_report: RunReport) -> Html:
    """Segments and audio a second over time: what each shard brought, spread over the time that it took."""
    shards = run_report.done
    if not shards:
        return page.note(NOTHING)
    spans = [_span(shard, run_report.start) for shard in shards]
    edges = np.linspace(min(start for start, _ in spans), max(end for _, end in spans), BINS + 1)
    unit, scale = scaled(float(edges[-1] - edges[0]))
    at = (edges - edges[0]) / scale

    def plot(amounts: Sequence[float], label: str, colour: str) -> str:
        rate = _spread(spans, amounts, edges) / np.diff(edges)

        def onto(axes: Axes) -> None:
            axes.stairs(rate, at, fill=True, color=colour, alpha=0.35)
            axes.stairs(rate, at, color=colour, linewidth=1.4)
            axes.set(
                xlabel=f"time since the first shard began ({unit})", ylabel=label, ylim=(0, None), xlim=(at[0], at[-1])
            )
            axes.grid(axis="y")

        return draw(onto, 560, 190)

    segments, audio = [float(shard.segments) for shard in shards], [shard.audio_s for shard in shards]
    return page.grid(
        [
            page.figure(plot(segments, "segments per second", KEPT), "Segments", "scored per second"),
            page.figure(plot(audio, "x real time", DROPPED), "Audio", "seconds of audio per second: times real time"),
        ],
        two=True,
    )


def lanes(run_report: RunReport) -> Html:
    """Which worker had which shard when. Shards that a worker has under way at once are drawn one above the other."""
    shards = [shard for shard in run_report.done if shard.worker_id]
    if not shards:
        return page.note(NOTHING)
    shown = shards[-MOST_BARS:]
    rows, heights = _lanes(shown, run_report.start)
    first = min(_span(shard, run_report.start)[0] for shard in shards)
    left, right = min(start for start, *_ in rows) - first, max(end for _, end, *_ in rows) - first
    unit, scale = scaled(right)
    palette = series_colors({shard.language for shard in shown})
    names = list(heights)
    tops = dict(zip(names, np.cumsum([0, *heights.values()]), strict=False))

    def onto(axes: Axes) -> None:
        for language, colour in palette.items():
            bars = [
                ((start - first) / scale, (end - first) / scale, tops[worker] + lane)
                for start, end, worker, lane, shard in rows
                if shard.language == language
            ]
            axes.add_patch(PathPatch(_boxes(bars), color=colour, linewidth=0))
        centres = [tops[name] + (heights[name] - 1) / 2 for name in names]
        every = -(-len(names) * LABEL // height)
        axes.set_yticks(centres[::every], _short(names)[::every])
        for name in names[1:]:
            axes.axhline(tops[name] - 0.5, color=NEUTRAL, linewidth=0.5, alpha=0.6)
        axes.set(xlabel=f"time since the first shard began ({unit})", xlim=(left / scale, right / scale))
        axes.set(ylabel="worker", ylim=(sum(heights.values()) - 0.4, -0.6))

    height = 60 + min(MOST_HEIGHT, 22 * sum(heights.values()))
    left_out = len(shards) - len(shown)
    about = "one bar a shard, coloured by language; a gap is a worker that waits"
    more = (
        page.note(f"The last {len(shown):,} shards are drawn; {left_out:,} earlier ones are not.")
        if left_out
        else Html("")
    )
    return page.join(page.legend(palette), page.figure(draw(onto, 1000, height), "Workers", about), more)


def _boxes(bars: Sequence[tuple[float, float, float]]) -> Path:
    """Boxes from the left to the right of each bar around its row, as one path: thousands of them stay small."""
    left, right, row = np.array(bars).T
    low, high = row - 0.41, row + 0.41
    corners = [left, low, right, low, right, high, left, high, left, low]
    return Path.make_compound_path_from_polys(np.stack(corners, axis=-1).reshape(len(bars), 5, 2))


def _short(names: Sequence[str]) -> list[str]:
    """Names of workers by their last part, with their host's where that does not tell them apart."""
    parts = [name.split("/") for name in names]
    for short in ([part[-1] for part in parts], [f"{part[0]}/{part[-1]}" for part in parts]):
        if len(set(short)) == len(names):
            return short
    return list(names)


def _lanes(
    shards: Sequence[ShardRow], start: datetime
) -> tuple[list[tuple[float, float, str, int, ShardRow]], dict[str, int]]:
    """Start, end, worker, lane and row of each shard, and how many lanes a worker needs."""
    rows: list[tuple[float, float, str, int, ShardRow]] = []
    free: dict[str, list[float]] = {worker: [] for worker in sorted({shard.worker_id or "" for shard in shards})}
    for shard in sorted(shards, key=lambda shard: shard.started_at or shard.finished_at or ""):
        began, ended = _span(shard, start)
        ends = free[shard.worker_id or ""]
        lane = next((number for number, until in enumerate(ends) if until <= began + 0.05), len(ends))
        ends[lane : lane + 1] = [ended]
        rows.append((began, ended, shard.worker_id or "", lane, shard))
    return rows, {worker: len(ends) for worker, ends in free.items()}


def stages(run_report: RunReport) -> Html:
    """Where the work's time went, with the bottleneck named and what can be done about it."""
    seconds = ordered(run_report.stage_s)
    most = bottleneck(seconds)
    if most is None:
        return page.note(NOTHING)
    total, wall = sum(seconds.values()), sum(shard.wall_s for shard in run_report.done)
    names = list(seconds)
    unit, scale = scaled(max(seconds.values()))

    def onto(axes: Axes) -> None:
        values = [seconds[name] / scale for name in names]
        axes.barh(names, values, color=[DROPPED if name == most else KEPT for name in names], height=0.7)
        for row, value in enumerate(values):
            told = f"{format_duration(value * scale)} · {percent(value * scale, total)}"
            axes.annotate(told, (value, row), (4, 0), textcoords="offset points", va="center")
        axes.invert_yaxis()
        axes.set(xlabel=f"work, added up over all threads and shards ({unit})", xlim=(0, 1.22 * max(values)))

    stage = STAGES.get(most)
    sentence = f"<b>{esc(most)}</b> is the bottleneck: {percent(seconds[most], total)} of the work's seconds"
    sentence += f" go into {stage.what}; {stage.advice}." if stage else "."
    at_once = number(total / wall, 1) if wall else "–"
    overlap = f"Stages overlap: {format_duration(total)} of work were done in {format_duration(wall)} of shards' time ({at_once} at once)."
    return page.join(
        Html(f"<p>{sentence}</p>"),
        page.figure(draw(onto, 760, 40 + 30 * len(names)), "Stages", "in the order of the data's way"),
        page.note(overlap),
    )


def _span(shard: ShardRow, start: datetime) -> tuple[float, float]:
    """When a shard began and ended, in seconds since `start`."""
    end = (parse_utc(shard.finished_at or start) - start).total_seconds()
    began = (parse_utc(shard.started_at) - start).total_seconds() if shard.started_at else end - shard.wall_s
    return min(began, end), end


def _spread(spans: Sequence[tuple[float, float]], amounts: Sequence[float], edges: Series) -> Series:
    """The amounts in each bin when every one comes evenly over its span."""
    sums = np.zeros(len(edges) - 1)
    for (start, end), amount in zip(spans, amounts, strict=True):
        overlap = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
        sums += amount * np.maximum(overlap, 0) / max(end - start, 1e-9)
    return sums


def scaled(seconds: float) -> tuple[str, float]:
    """The unit for an axis that is so long, and its length in seconds."""
    for name, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return name, length
    return "s", 1.0
