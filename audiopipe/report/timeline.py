"""Draw a run over time: its throughput, the shards of each worker, and the time in each stage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from audiopipe.extras import require_extra
from audiopipe.ledger import ShardRow
from audiopipe.ledger.record import parse_utc
from audiopipe.report import page
from audiopipe.report.chart_data import Band, Bins, Items
from audiopipe.report.figure import DROPPED, KEPT, NEUTRAL, SERIES, draw, series_colors
from audiopipe.report.groups import largest
from audiopipe.report.page import Html, esc
from audiopipe.report.progress import RunReport
from audiopipe.report.stages import describe_stage, find_bottleneck, sort_stages
from audiopipe.report.text import format_duration, format_number, format_percent

with require_extra("notebooks", "drawing a report"):
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["NO_SHARDS_TEXT", "choose_time_unit", "lanes", "stages", "throughput"]

BINS = 60
MAX_BARS = 10_000
MAX_HEIGHT = 1_240  # pixels of the lanes, so that they fit on a printed page
LABEL_HEIGHT = 13  # pixels that the name of a worker needs
NO_SHARDS_TEXT = "Nothing to draw yet: no shard is committed."
Series = npt.NDArray[np.float64]


def throughput(run_report: RunReport) -> Html:
    """Draw segments and audio per second over time; the amounts of a shard are spread over its duration."""
    shards = run_report.done
    if not shards:
        return page.note(NO_SHARDS_TEXT)
    spans = [_span(shard, run_report.start) for shard in shards]
    edges = np.linspace(min(start for start, _ in spans), max(end for _, end in spans), BINS + 1)
    unit, scale = choose_time_unit(float(edges[-1] - edges[0]))
    at = (edges - edges[0]) / scale

    def _full(rate: Series) -> Band:
        return Band(0, 1.05 * max(float(rate.max()), 1e-9), 0)

    def plot(amounts: Sequence[float], label: str, color: str) -> str:
        rate = _spread(spans, amounts, edges) / np.diff(edges)

        def plot_axes(axes: Axes) -> None:
            axes.stairs(rate, at, fill=True, color=color, alpha=0.35)
            axes.stairs(rate, at, color=color, linewidth=1.4)
            axes.set(xlabel=f"time since the start of the first shard ({unit})", xlim=(at[0], at[-1]))
            axes.set(ylabel=label, ylim=(0, _full(rate).top))
            axes.grid(axis="y")

        title = f"time since the start of the first shard ({unit})"
        return draw(plot_axes, 560, 190, Bins(title, at, ["run"], {label: [rate]}, [_full(rate)], "part"))

    segments, audio = [float(shard.segments) for shard in shards], [shard.audio_s for shard in shards]
    return page.grid(
        [
            page.figure(plot(segments, "segments per second", KEPT), "Segments", "scored per second"),
            page.figure(plot(audio, "x real time", DROPPED), "Audio", "seconds of audio per second (times real time)"),
        ],
        two=True,
    )


def lanes(run_report: RunReport) -> Html:
    """Draw the shards of each worker over time; shards that a worker processes at once are drawn in several lanes."""
    shards = [shard for shard in run_report.done if shard.worker_id]
    if not shards:
        return page.note(NO_SHARDS_TEXT)
    shown = shards[-MAX_BARS:]
    bars, heights = _assign_lanes(shown, run_report.start)
    first = min(_span(shard, run_report.start)[0] for shard in shards)
    left, right = min(bar.start_s for bar in bars) - first, max(bar.end_s for bar in bars) - first
    unit, scale = choose_time_unit(right)
    groups = largest(Counter(shard.language for shard in shown), len(SERIES))
    palette = series_colors([name for name in groups.names if name != groups.others])
    palette |= {groups.others: NEUTRAL} if groups.hidden else {}
    names = list(heights)
    tops = dict(zip(names, np.cumsum([0, *heights.values()]), strict=False))

    boxes_of: dict[str, list[tuple[float, float, float]]] = {}
    for bar in bars:
        box = (bar.start_s - first) / scale, (bar.end_s - first) / scale, float(tops[bar.worker_id] + bar.lane)
        boxes_of.setdefault(groups.label(bar.language), []).append(box)

    def plot_axes(axes: Axes) -> None:
        for label, boxes in boxes_of.items():
            axes.add_artist(PathPatch(_box_path(boxes), color=palette[label], linewidth=0))
        centers = [tops[name] + (heights[name] - 1) / 2 for name in names]
        step = -(-len(names) * LABEL_HEIGHT // height)
        axes.set_yticks(centers[::step], _shorten(names)[::step])
        for name in names[1:]:
            axes.axhline(tops[name] - 0.5, color=NEUTRAL, linewidth=0.5, alpha=0.6)
        axes.set(xlabel=f"time since the start of the first shard ({unit})", xlim=(left / scale, right / scale))
        axes.set(ylabel="worker", ylim=(sum(heights.values()) - 0.4, -0.6))

    height = 60 + min(MAX_HEIGHT, 22 * sum(heights.values()))
    omitted = len(shards) - len(shown)
    short = dict(zip(names, _shorten(names), strict=True))
    items = [
        (
            int(tops[bar.worker_id]) + bar.lane,
            (bar.start_s - first) / scale,
            (bar.end_s - first) / scale,
            (bar.shard, round(bar.end_s - bar.start_s, 1)),
        )
        for bar in bars
    ]
    bands = [Band(0, row - 0.5, row + 0.5) for row in range(sum(heights.values()))]
    rows = [short[name] for name in names for _ in range(heights[name])]
    data = Items(("shard", "duration (s)"), items, bands, rows, "worker")
    about = "one bar for each shard, colored by language; in a gap the worker is idle"
    note = page.note(f"The last {len(shown):,} shards are drawn; {omitted:,} earlier ones are not.")
    figure = page.figure(draw(plot_axes, 1000, height, data), "Workers", about)
    return page.join(page.legend(palette), figure, note if omitted else Html(""))


def _box_path(boxes: Sequence[tuple[float, float, float]]) -> Path:
    """Build one path of (left, right, row) boxes, because thousands of separate boxes would make a large SVG."""
    left, right, row = np.array(boxes).T
    low, high = row - 0.41, row + 0.41
    corners = [left, low, right, low, right, high, left, high, left, low]
    return Path.make_compound_path_from_polys(np.stack(corners, axis=-1).reshape(len(boxes), 5, 2))


def _shorten(names: Sequence[str]) -> list[str]:
    """Shorten worker ids to their last part, with the host if the last parts are not unique."""
    parts = [name.split("/") for name in names]
    for short in ([part[-1] for part in parts], [f"{part[0]}/{part[-1]}" for part in parts]):
        if len(set(short)) == len(names):
            return short
    return list(names)


class _Bar(NamedTuple):
    """A shard in the lanes of its worker; times are seconds since the start of the run."""

    start_s: float
    end_s: float
    worker_id: str
    lane: int
    language: str
    shard: str


def _assign_lanes(shards: Sequence[ShardRow], start: datetime) -> tuple[list[_Bar], dict[str, int]]:
    """Assign each shard to a lane of its worker; return the bars, and the number of lanes of each worker."""
    bars: list[_Bar] = []
    lane_ends: dict[str, list[float]] = {worker: [] for worker in sorted({shard.worker_id or "" for shard in shards})}
    for shard in sorted(shards, key=lambda shard: shard.started_at or shard.finished_at or ""):
        start_s, end_s = _span(shard, start)
        ends = lane_ends[shard.worker_id or ""]
        lane = next((index for index, end in enumerate(ends) if end <= start_s + 0.05), len(ends))
        ends[lane : lane + 1] = [end_s]
        bars.append(_Bar(start_s, end_s, shard.worker_id or "", lane, shard.language, shard.shard))
    return bars, {worker: len(ends) for worker, ends in lane_ends.items()}


def stages(run_report: RunReport) -> Html:
    """Draw the working time of each stage; name the bottleneck and what to do about it."""
    seconds = sort_stages(run_report.stage_s)
    slowest = find_bottleneck(seconds)
    if slowest is None:
        return page.note(NO_SHARDS_TEXT)
    total, wall = sum(seconds.values()), sum(shard.wall_s for shard in run_report.done)
    names = list(seconds)
    unit, scale = choose_time_unit(max(seconds.values()))

    def plot_axes(axes: Axes) -> None:
        values = [seconds[name] / scale for name in names]
        axes.barh(names, values, color=[DROPPED if name == slowest else KEPT for name in names], height=0.7)
        for row, value in enumerate(values):
            label = f"{format_duration(value * scale)} · {format_percent(value * scale, total)}"
            axes.annotate(label, (value, row), (4, 0), textcoords="offset points", va="center")
        axes.invert_yaxis()
        axes.set(xlabel=f"working time, summed over all threads and shards ({unit})", xlim=(0, 1.22 * max(values)))

    shares = [format_percent(seconds[name], total) for name in names]
    items = [
        (row, 0.0, 1.3 * max(seconds.values()) / scale, (name, round(seconds[name], 3), share))
        for row, (name, share) in enumerate(zip(names, shares, strict=True))
    ]
    bands = [Band(0, row - 0.5, row + 0.5) for row in range(len(names))]
    data = Items(("stage", "working time (s)", "share"), items, bands)
    stage = describe_stage(slowest)
    sentence = f"<b>{esc(slowest)}</b> is the bottleneck: {format_percent(seconds[slowest], total)} of the working time"
    sentence += f" is spent {stage.activity}; {stage.advice}."
    concurrency = format_number(total / wall, 1) if wall else "–"
    overlap = f"Stages overlap: {format_duration(total)} of work took {format_duration(wall)} of shard time, "
    overlap += f"so {concurrency} stages ran at once on average."
    return page.join(
        Html(f"<p>{sentence}</p>"),
        page.figure(draw(plot_axes, 760, 40 + 30 * len(names), data), "Stages", "in processing order"),
        page.note(overlap),
    )


def _span(shard: ShardRow, start: datetime) -> tuple[float, float]:
    """Return start and end of a shard in seconds since `start`."""
    end_s = (parse_utc(shard.finished_at or start) - start).total_seconds()
    start_s = (parse_utc(shard.started_at) - start).total_seconds() if shard.started_at else end_s - shard.wall_s
    return min(start_s, end_s), end_s


def _spread(spans: Sequence[tuple[float, float]], amounts: Sequence[float], edges: Series) -> Series:
    """Sum the amounts in each bin, with each amount spread evenly over its span."""
    sums = np.zeros(len(edges) - 1)
    for (start, end), amount in zip(spans, amounts, strict=True):
        overlap = np.minimum(edges[1:], end) - np.maximum(edges[:-1], start)
        sums += amount * np.maximum(overlap, 0) / max(end - start, 1e-9)
    return sums


def choose_time_unit(seconds: float) -> tuple[str, float]:
    """Return the unit for an axis of this length, and the unit's length in seconds."""
    for name, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return name, length
    return "s", 1.0
