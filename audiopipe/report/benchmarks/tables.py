"""Tables and bar charts of the benchmarks: kernels, whole pipelines, scheduler and ledger, and their history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from audiopipe.report import page
from audiopipe.report.benchmarks.results import ResultFile, ResultFiles
from audiopipe.report.benchmarks.rows import AUDIOPIPE, Case, KernelRow, PipelineRow, ScorerRow
from audiopipe.report.figure import KEPT, NEUTRAL, draw
from audiopipe.report.page import Html, esc
from audiopipe.report.text import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["history", "kernels", "pipeline", "scale", "scorers"]

ALL_VIDEOS, SEGMENTS_PER_VIDEO, SEGMENT_S = 500_000, 207, 5  # as the plan document counts
MISSING = "Not measured yet. Run <code>audiopipe bench {} --save</code>, or set the parameter <code>rerun</code>."


def kernels(results: ResultFiles) -> Html:
    """Show each machine's kernel benchmark: a chart of one case, and a table of all."""
    if not results.kernel_files:
        return page.note(MISSING.format("kernels"))
    return page.join(*map(_kernels, results.kernel_files))


def _kernels(file: ResultFile) -> Html:
    cases = list(dict.fromkeys(row.case for row in file.kernels))
    charted = next((case for case in cases if case.batch > 1 and case == Case(10, 48_000, case.batch, 1)), cases[0])
    head = ["task", "contender", "audio", "batch", "threads", "ms per item", "relative to audiopipe"]
    table = page.table(head, map(_kernel_row, file.kernels), "lll")
    gpu = page.table(["on the GPU", ""], [[row.label, row.value] for row in file.gpu], "l")
    pieces = [_heading(file), _charts(file.kernels, charted), gpu if file.gpu else Html("")]
    summary = f"<summary>All {len(file.kernels)} rows</summary>"
    return page.join(*pieces, Html(f"<details>{summary}{table.markup}</details>"))


def _kernel_row(row: KernelRow) -> list[str | Html]:
    return [
        row.task,
        _contender(row.contender),
        f"{row.case.seconds} s at {row.case.sample_rate / 1000:g} kHz",
        f"{row.case.batch}",
        f"{row.case.threads}",
        format_number(row.ms_per_item, 3),
        format_number(row.relative_time, 2),
    ]


def _contender(name: str) -> str | Html:
    return Html(f"<b>{esc(name)}</b>") if name == AUDIOPIPE else name


def _heading(file: ResultFile) -> Html:
    load = f", load average {file.machine['load']} before the run" if "load" in file.machine else ""
    return Html(f"<h4>{esc(f'{file.device}, {file.measured_at:%Y-%m-%d}{load}')}</h4>")


def _charts(rows: Sequence[KernelRow], case: Case) -> Html:
    """Draw the time of each contender in one case, one chart for each task."""
    rows = [row for row in rows if row.case == case]
    tasks = dict.fromkeys(row.task for row in rows)
    charts = [_chart([row for row in rows if row.task == task], task) for task in tasks]
    return page.join(page.note(str(case)), page.grid(charts, two=True))


def _chart(rows: Sequence[KernelRow], task: str) -> Html:
    rows = sorted(rows, key=lambda row: row.ms_per_item)
    names = [row.contender.replace(" + ", "\n+ ") for row in rows]
    times = [row.ms_per_item for row in rows]

    def plot(axes: Axes) -> None:
        axes.barh(names, times, color=[KEPT if row.contender == AUDIOPIPE else NEUTRAL for row in rows], height=0.65)
        for position, row in enumerate(rows):
            ratio = "" if row.contender == AUDIOPIPE else f", {format_number(row.relative_time, 1)} x"
            label = f"{format_number(row.ms_per_item, 2)} ms{ratio}"
            axes.annotate(label, (row.ms_per_item, position), (4, 0), textcoords="offset points", va="center")
        axes.invert_yaxis()
        axes.set(xlabel="ms per item", xlim=(0, 1.35 * max(times)))

    return page.figure(draw(plot, 470, 62 + 26 * sum(name.count("\n") + 1 for name in names)), task)


def pipeline(results: ResultFiles) -> Html:
    """Show the whole pipeline and its baselines, on the same number of cores."""
    if not results.pipeline_files:
        return page.note(MISSING.format("pipeline"))
    return page.join(*map(_pipeline, results.pipeline_files))


def _pipeline(file: ResultFile) -> Html:
    ordered = sorted(file.pipelines, key=lambda row: (row.input, row.cores, -row.speed))
    fastest = max(row.speed for row in file.pipelines)
    columns = ("x real time", "segments/s", "videos/min", f"h for {ALL_VIDEOS:,} videos", "peak MB")
    head = ["input", "pipeline", "cores", "", *columns]
    return page.join(_heading(file), page.table(head, [_pipeline_row(row, fastest) for row in ordered], "ll l"))


def _pipeline_row(row: PipelineRow, fastest: float) -> list[str | Html]:
    videos_per_min = row.speed / SEGMENT_S / SEGMENTS_PER_VIDEO * 60
    return [
        row.input,
        _contender(row.method),
        f"{row.cores}",
        page.bar([(row.speed / fastest, KEPT if row.method == AUDIOPIPE else NEUTRAL)]),
        format_number(row.speed),
        format_number(row.speed / SEGMENT_S),
        format_number(videos_per_min, 1),
        format_number(ALL_VIDEOS / videos_per_min / 60),
        format_number(row.peak_mb),
    ]


def scorers(results: ResultFiles) -> Html:
    """Show each machine's benchmark of the scorers: the contenders of each task and length."""
    if not results.scorer_files:
        return page.note(MISSING.format("scorers"))
    return page.join(*map(_scorers, results.scorer_files))


def _scorers(file: ResultFile) -> Html:
    head = ["task", "contender", "segment", "batch", "device", "ms per segment", "segments/s", "x real time", "ratio"]
    return page.join(_heading(file), page.table(head, map(_scorer_row, file.scorers), "ll  l"))


def _scorer_row(row: ScorerRow) -> list[str | Html]:
    return [
        row.task,
        _contender(row.contender),
        f"{row.seconds:g} s",
        f"{row.batch}",
        row.device,
        format_number(row.ms_per_segment, 2),
        format_number(row.segments_per_s, 1),
        format_number(row.seconds * row.segments_per_s),
        format_number(row.ratio, 2),
    ]


def scale(results: ResultFiles) -> Html:
    """Show scheduler and ledger with all videos and stubbed work."""
    if not results.scale_rows:
        return page.note(MISSING.format("scale"))
    rows = [
        [
            row.ledger,
            f"{row.videos:,}",
            f"{row.shards:,}",
            f"{format_number(row.minutes, 2)} min",
            f"{format_number(row.driver_mb)} MB",
            f"{format_number(row.monitor_ms)} ms",
            file.device,
            f"{file.measured_at:%Y-%m-%d}",
        ]
        for file, row in results.scale_rows
    ]
    head = ["ledger", "videos", "shards", "plan, schedule, record", "driver", "monitor refresh", "machine", "date"]
    return page.table(head, rows, "l     ll")


def history(results: ResultFiles) -> Html:
    """List every saved file, the newest first, with its main number."""
    if not results.files:
        return page.note("No benchmark is saved in this folder.")
    rows = [
        [
            f"{file.measured_at:%Y-%m-%d %H:%M}",
            file.benchmark,
            file.device,
            file.machine.get("torch", "–"),
            _main_number(file),
            file.name,
        ]
        for file in reversed(results.files)
    ]
    return page.table(["date (UTC)", "benchmark", "machine", "torch", "main number", "file"], rows, "llllll")


def _main_number(file: ResultFile) -> str:
    ratio = ResultFiles((file,)).loudness_ratio("pyloudnorm")
    if ratio is not None:
        return f"LUFS {format_number(ratio.value, 1)} times as fast as pyloudnorm"
    if file.scorers:
        fastest = max(row.seconds * row.segments_per_s for row in file.scorers if row.task == file.scorers[0].task)
        return f"{file.scorers[0].task} {format_number(fastest)} x real time at best"
    if speeds := [row.speed for row in file.pipelines if row.method == AUDIOPIPE]:
        return f"{format_number(max(speeds))} x real time at best"
    if file.scale is not None:
        return f"{format_number(file.scale.minutes, 2)} min for {file.scale.videos:,} videos"
    return "–"
