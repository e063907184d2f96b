"""Draw a soak as one HTML page: verdict, pace, memory, load of the machine, faults, checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from audiopipe.bench.soak.result import MIN_JUDGED_S, SERVERS, SoakResult
from audiopipe.report import page
from audiopipe.report.figure import BAD, DROPPED, KEPT, LIMIT, NEUTRAL, draw, series_colors
from audiopipe.report.frame import provenance, render_page
from audiopipe.report.page import Html, esc
from audiopipe.report.text import format_duration, format_number
from audiopipe.report.timeline import choose_time_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["render_soak"]

BINS = 40
WIDE = 1_000  # pixels


def render_soak(result: SoakResult) -> str:
    """Return the page."""
    pieces = page.join(
        _verdict(result),
        _cards(result),
        Html("<h2>Pace</h2>"),
        _pace(result),
        _quarters(result),
        Html("<h2>Memory</h2>"),
        _memory(result),
        _growths(result),
        Html("<h2>Faults</h2>"),
        _faults(result),
        Html("<h2>Load of the machine</h2>"),
        _load(result),
        Html("<h2>Checks</h2>"),
        page.table(
            ("check", "", "found"),
            [(check.name, page.SIGNS["good" if check.is_met else "bad"], check.detail) for check in result.verdicts()],
            "wlw",
        ),
    )
    body = f'<h1>Soak test</h1><div class="ap">{pieces.markup}</div>'
    return render_page("Soak test", body, provenance("audiopipe bench soak"))


def _verdict(result: SoakResult) -> Html:
    failed = [check for check in result.verdicts() if not check.is_met]
    length = format_duration(result.minutes * 60)
    if failed:
        sentences = [f"{esc(check.name)}: no. {esc(check.detail)}" for check in failed]
        return page.verdict("bad", [f"The soak of {length} failed {len(failed)} checks.", *sentences])
    count = len(result.events) + sum(result.s3_faults.values())
    sentences = [f"{result.videos:,} videos in {length} through {count:,} faults: nothing lost, same bytes."]
    if not result.is_judged:
        sentences.append(f"It was too short to judge pace and memory, which takes {format_duration(MIN_JUDGED_S)}.")
    sentences += [f"Left out: {esc(reason)}." for reason in result.omitted]
    return page.verdict("good" if result.is_judged and not result.omitted else "warn", sentences)


def _cards(result: SoakResult) -> Html:
    quarters = result.quarters()
    mean = sum(quarter["videos"] for quarter in quarters) / max(result.window[1] - result.window[0], 1e-9) * 60
    return page.cards(
        [
            (format_number(result.videos), "videos"),
            (f"{mean:.0f}", "videos per minute"),
            (f"{result.pace('videos_per_cpu_s'):.3f}", "last quarter to first, by CPU time"),
            (f"{result.pace('videos_per_minute'):.3f}", "last quarter to first, by the clock"),
            (format_number(sum(result.s3_faults.values())), f"failed of {result.s3_requests:,} requests to S3"),
            (format_number(len(result.events)), "other faults and repairs"),
            (format_number(len(result.retired)), "broken workers retired"),
        ]
    )


def _unit(result: SoakResult) -> tuple[str, float]:
    return choose_time_unit(result.samples[-1].at_s)


def _mark_quarters(axes: Axes, result: SoakResult, scale: float) -> None:
    for edge in np.linspace(*result.window, 5):
        axes.axvline(edge / scale, color=LIMIT, linewidth=0.8, linestyle=":")


def _pace(result: SoakResult) -> Html:
    unit, scale = _unit(result)
    at_s = [sample.at_s for sample in result.samples]
    edges = np.linspace(*result.window, BINS + 1)
    videos = np.diff(np.interp(edges, at_s, [sample.videos for sample in result.samples]))
    cpu_s = np.diff(np.interp(edges, at_s, [sample.worker_cpu_s for sample in result.samples]))
    stops = [event.at_s / scale for event in result.events if event.kind in ("Supabase stops", "S3 server restarts")]

    def plot(values: Sequence[float], label: str, color: str) -> str:
        def plot_axes(axes: Axes) -> None:
            axes.stairs(values, edges / scale, fill=True, color=color, alpha=0.35)
            axes.stairs(values, edges / scale, color=color, linewidth=1.4)
            axes.plot(stops, [0.0] * len(stops), "|", color=BAD, markersize=7, clip_on=False)
            _mark_quarters(axes, result, scale)
            axes.set(xlabel=f"time ({unit})", ylabel=label, ylim=(0, None))
            axes.grid(axis="y")

        return draw(plot_axes, 560, 210)

    by_cpu = videos / np.maximum(cpu_s, 1e-9)
    by_clock = 60 * videos / np.diff(edges)
    return page.grid(
        [
            page.figure(
                plot(by_cpu.tolist(), "videos per CPU second", KEPT), "By CPU time", "of workers and their decoders"
            ),
            page.figure(
                plot(by_clock.tolist(), "videos per minute", DROPPED),
                "By the clock",
                "which other programs on this machine change",
            ),
        ],
        two=True,
    )


def _quarters(result: SoakResult) -> Html:
    head = ("quarter", "videos", "videos/min", "videos per CPU second", "cores of the soak", "cores of other programs")
    rows = [
        (
            number,
            f"{quarter['videos']:,.0f}",
            f"{quarter['videos_per_minute']:.1f}",
            f"{quarter['videos_per_cpu_s']:.3f}",
            f"{quarter['soak_cores']:.2f}",
            f"{quarter['other_cores']:.2f}",
        )
        for number, quarter in enumerate(result.quarters(), 1)
    ]
    note = page.note(
        f"Dotted lines are the quarters; red marks are outages. Without faults two workers had "
        f"{result.reference_rate:.0f} videos per minute."
    )
    return page.join(page.table(head, rows), note)


def _memory(result: SoakResult) -> Html:
    unit, scale = _unit(result)
    judged = {growth.name for growth in result.growths()}
    colors = series_colors(judged)

    def plot(names: Sequence[str], palette: Mapping[str, str]) -> str:
        def plot_axes(axes: Axes) -> None:
            for name in names:
                series = result.memory[name]
                at = np.array(series.at_s) / scale
                axes.plot(at, series.rss_mb, color=palette.get(name, NEUTRAL), linewidth=1.2)
            _mark_quarters(axes, result, scale)
            axes.set(xlabel=f"time ({unit})", ylabel="resident memory (MB)", ylim=(0, None))
            axes.grid(axis="y")

        return draw(plot_axes, 560, 300)

    others = [name for name in result.memory if name not in judged]
    palette = {name: DROPPED for name in others if name.partition(" #")[0] in SERVERS}
    return page.join(
        page.legend(colors),
        page.grid(
            [
                page.figure(plot(sorted(judged), colors), "Judged", "processes that lived for most of the soak"),
                page.figure(plot(others, palette), "Others", "replaced workers (gray) and servers (orange)"),
            ],
            two=True,
        ),
    )


def _growths(result: SoakResult) -> Html:
    head = ("process", "median MB", "trend MB/h", "growth MB", "limit MB", "")
    rows = [
        (
            item.name,
            f"{item.median_mb:.0f}",
            f"{item.mb_per_hour:+.1f}",
            f"{item.growth_mb:+.1f}",
            f"{item.limit_mb:.0f}",
            page.SIGNS["good" if item.is_flat else "bad"],
        )
        for item in sorted(result.growths(), key=lambda growth: growth.name)
    ]
    note = page.note(
        "The trend is the median of the slopes between all pairs of samples after the first quarter; the growth is the "
        "trend over the rest."
    )
    return page.join(page.table(head, rows, "l    l"), note)


def _faults(result: SoakResult) -> Html:
    unit, scale = _unit(result)
    kinds = list(dict.fromkeys(event.kind for event in result.events))

    def plot_axes(axes: Axes) -> None:
        for row, kind in enumerate(kinds):
            at = [event.at_s / scale for event in result.events if event.kind == kind]
            axes.plot(at, [row] * len(at), "|", color=BAD, markersize=10)
        axes.set_yticks(range(len(kinds)), kinds)
        axes.set(xlabel=f"time ({unit})", ylim=(len(kinds) - 0.4, -0.6), xlim=(0, result.samples[-1].at_s / scale))

    requests = ", ".join(f"{kind} {count:,}" for kind, count in result.s3_faults.items())
    note = page.note(f"Failed requests to S3 by kind: {esc(requests)}.")
    figure = page.figure(draw(plot_axes, WIDE, 60 + 20 * len(kinds)), "Faults and repairs", "over time")
    return page.join(figure, note)


def _load(result: SoakResult) -> Html:
    unit, scale = _unit(result)
    at_s = np.array([sample.at_s for sample in result.samples])
    edges = np.linspace(at_s[0], at_s[-1], BINS + 1)

    def cores(values: Sequence[float]) -> list[float]:
        return list(np.diff(np.interp(edges, at_s, values)) / np.diff(edges))

    used = cores([sample.soak_cpu_s for sample in result.samples])
    busy = cores([sample.busy_cpu_s for sample in result.samples])

    def plot_axes(axes: Axes) -> None:
        axes.stairs(np.maximum(busy, used), edges / scale, fill=True, color=NEUTRAL, alpha=0.5, label="other programs")
        axes.stairs(used, edges / scale, fill=True, color=KEPT, alpha=0.8, label="the soak")
        axes.set(xlabel=f"time ({unit})", ylabel="cores", ylim=(0, None))
        axes.grid(axis="y")

    legend = page.legend({"the soak": KEPT, "other programs": NEUTRAL})
    machine = page.note(esc(", ".join(f"{name}: {value}" for name, value in result.machine.items())))
    return page.join(legend, page.figure(draw(plot_axes, WIDE, 190), "CPU", "in cores"), machine)
