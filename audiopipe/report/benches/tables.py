"""Benchmarks in tables and bars: kernels beside other libraries, the pipeline beside other ways, and their history."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes

from audiopipe.report import page
from audiopipe.report.benches.saved import OURS, ResultFile, Saved
from audiopipe.report.figure import KEPT, NEUTRAL, draw
from audiopipe.report.page import Html, esc
from audiopipe.report.text import number

__all__ = ["history", "kernels", "pipeline", "scale"]

VIDEO_SEGMENTS, SEGMENT_S = 207, 5  # of the plan
MISSING = "Not measured yet: <code>audiopipe bench {} --save</code>, or the parameter <code>rerun</code>."
Row = dict[str, Any]


def kernels(saved: Saved) -> Html:
    """Every case on every machine: milliseconds an item, and how many times as long it takes as ours."""
    if not saved.kernel_rows:
        return page.note(MISSING.format("kernels"))
    return page.join(*(_kernels(file) for file in {id(file): file for file, _ in saved.kernel_rows}.values()))


def _kernels(file: ResultFile) -> Html:
    rows: list[Row] = file.body["cpu"]
    cases = dict.fromkeys((row["seconds"], row["sample_rate"], row["batch"], row["threads"]) for row in rows)
    shown = next(
        (case for case in cases if case[:2] == (10, 48_000) and case[3] == 1 and case[2] > 1), next(iter(cases))
    )
    table = [
        [
            row["task"],
            Html(f"<b>{esc(row['contender'])}</b>") if row["contender"] == OURS else row["contender"],
            f"{row['seconds']} s at {row['sample_rate'] / 1000:g} kHz",
            f"{row['batch']}",
            f"{row['threads']}",
            number(row["ms_per_item"], 3),
            number(row["times_ours"], 2),
        ]
        for row in rows
    ]
    head = ["task", "contender", "audio", "batch", "threads", "ms per item", "times ours"]
    every = page.table(head, table, "lll")
    gpu = page.table(["on the GPU", ""], [[row["what"], row["value"]] for row in file.body.get("gpu", [])], "l")
    pieces = [Html(f"<h4>{esc(_told(file))}</h4>"), _chart(rows, shown), gpu if file.body.get("gpu") else Html("")]
    return page.join(*pieces, Html(f"<details><summary>All {len(rows)} rows</summary>{every.markup}</details>"))


def _told(file: ResultFile) -> str:
    load = f", load before {file.machine['load']}" if "load" in file.machine else ""
    return f"{file.device}, {file.at:%Y-%m-%d}{load}"


def _chart(rows: list[Row], case: tuple[int, int, int, int]) -> Html:
    """How many times as long as ours each contender takes, in one case, by task."""
    fields = ("seconds", "sample_rate", "batch", "threads")
    mine = [row for row in rows if tuple(row[name] for name in fields) == case]
    tasks = list(dict.fromkeys(row["task"] for row in mine))
    seconds, rate, batch, threads = case
    pictures = [_bars([row for row in mine if row["task"] == task], task) for task in tasks]
    about = f"{seconds} s at {rate / 1000:g} kHz, batches of {batch}, {threads} thread{'s' * (threads > 1)}"
    return page.join(page.note(about), page.grid(pictures, two=True))


def _bars(rows: list[Row], task: str) -> Html:
    ordered = sorted(rows, key=lambda row: float(row["ms_per_item"]))
    names = [row["contender"].replace(" + ", "\n+ ") for row in ordered]

    def onto(axes: Axes) -> None:
        values = [float(row["ms_per_item"]) for row in ordered]
        axes.barh(names, values, color=[KEPT if row["contender"] == OURS else NEUTRAL for row in ordered], height=0.65)
        for place, (row, value) in enumerate(zip(ordered, values, strict=True)):
            told = f"{number(value, 2)} ms" + (
                "" if row["contender"] == OURS else f", {number(row['times_ours'], 1)} x"
            )
            axes.annotate(told, (value, place), (4, 0), textcoords="offset points", va="center")
        axes.invert_yaxis()
        axes.set(xlabel="ms per item", xlim=(0, 1.35 * max(values)))

    return page.figure(draw(onto, 470, 62 + 26 * sum(name.count("\n") + 1 for name in names)), task)


def pipeline(saved: Saved) -> Html:
    """The whole way beside others on the same cores."""
    if not saved.readings:
        return page.note(MISSING.format("pipeline"))
    files = {id(file): file for file, _ in saved.readings}.values()
    return page.join(*(_pipeline(file, file.body["readings"]) for file in files))


def _pipeline(file: ResultFile, rows: list[Row]) -> Html:
    ordered = sorted(rows, key=lambda row: (row["material"], row["cores"], -row["audio_s"] / row["wall_s"]))
    fastest = max(row["audio_s"] / row["wall_s"] for row in rows)
    table = [_way(row, fastest) for row in ordered]
    head = [
        "material",
        "way",
        "cores",
        "",
        "x real time",
        "segments/s",
        "videos/min",
        "h for 500,000 videos",
        "peak MB",
    ]
    return page.join(Html(f"<h4>{esc(_told(file))}</h4>"), page.table(head, table, "ll l"))


def _way(row: Row, fastest: float) -> list[str | Html]:
    speed = row["audio_s"] / row["wall_s"]
    videos = speed / SEGMENT_S / VIDEO_SEGMENTS * 60
    ours = row["name"] == OURS
    return [
        row["material"],
        Html(f"<b>{esc(row['name'])}</b>") if ours else row["name"],
        f"{row['cores']}",
        page.bar([(speed / fastest, KEPT if ours else NEUTRAL)]),
        number(speed),
        number(speed / SEGMENT_S),
        number(videos, 1),
        number(500_000 / videos / 60),
        number(row.get("peak_mb")),
    ]


def scale(saved: Saved) -> Html:
    """The scheduler and the ledger alone, with all the videos and no audio."""
    files = saved.of("scale")
    if not files:
        return page.note(MISSING.format("scale"))
    rows = [
        [
            file.body["ledger"],
            f"{file.body['videos']:,}",
            f"{file.body['shards']:,}",
            f"{number(file.body['minutes'], 2)} min",
            f"{number(file.body['driver_mb'])} MB",
            f"{number(file.body['monitor_ms'])} ms",
            file.device,
            f"{file.at:%Y-%m-%d}",
        ]
        for file in files
    ]
    head = ["ledger", "videos", "shards", "plan, schedule, record", "driver", "a look", "on", "date"]
    return page.table(head, rows, "l     ll")


def history(saved: Saved) -> Html:
    """Every saved file, the newest first, with its chief number."""
    if not saved.files:
        return page.note("No benchmark is saved in this folder.")
    rows = [
        [f"{file.at:%Y-%m-%d %H:%M}", file.bench, file.device, file.machine.get("torch", "–"), _chief(file), file.name]
        for file in reversed(saved.files)
    ]
    return page.table(["date (UTC)", "bench", "machine", "torch", "chief number", "file"], rows, "llllll")


def _chief(file: ResultFile) -> str:
    one = Saved((file,))
    if file.bench == "kernels" and (times := one.loudness_times("pyloudnorm")):
        return f"LUFS {number(times[1], 1)} times as fast as pyloudnorm"
    if file.bench == "pipeline":
        ours = [row["audio_s"] / row["wall_s"] for row in file.body["readings"] if row["name"] == OURS]
        return f"{number(max(ours, default=float('nan')))} x real time at best"
    if file.bench == "scale":
        return f"{number(file.body['minutes'], 2)} min for {file.body['videos']:,} videos"
    return "–"
