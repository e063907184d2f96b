"""A run's progress, from any ledger: `snapshot` as numbers, `render` as a picture for a terminal or a notebook.

Both show the same numbers. They read the ledger alone, so they work on any machine that can read it, during a run and
after it.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from audiopipe.errors import LedgerError
from audiopipe.ledger import LanguageProgress, Ledger, Role, RunRow, RunStatus, WorkerRow
from audiopipe.ledger.rates import RECENT, Eta, Window, eta, window
from audiopipe.ledger.record import parse_utc, utc
from audiopipe.ledger.rows import no_such_run

__all__ = ["render", "snapshot", "watch"]

STALE_BEATS = 3
LAST_ERRORS = 8
SPARKS = " ▁▂▃▄▅▆▇█"
COLOURS = {"done": "green", "running": "cyan", "failed": "red", "stale": "red", "incomplete": "yellow"}


def render(ledger: Ledger, run_id: str | None = None, now: datetime | None = None) -> RenderableType:
    """Totals, languages, workers and the last errors of a run, the newest by default."""
    return _picture(snapshot(ledger, run_id, now))


def watch(ledger: Ledger, run_id: str | None = None, every_s: float = 2.0, console: Console | None = None) -> None:
    """Redraw until the run has ended. A ledger that goes away meanwhile is waited for, with the last picture kept.

    Raises `LedgerError` if it is not there at the start.
    """
    seen = snapshot(ledger, run_id)
    with Live(_picture(seen), console=console, auto_refresh=False) as live:
        live.refresh()
        while seen["run"] is None or seen["run"]["status"] == RunStatus.RUNNING:
            time.sleep(every_s)
            try:
                seen = snapshot(ledger, run_id)
            except LedgerError as error:
                live.update(Group(_picture(seen), _safe(f"As of {seen.get('at', 'the start')}: {error}")), refresh=True)
            else:
                live.update(_picture(seen), refresh=True)


def snapshot(ledger: Ledger, run_id: str | None = None, now: datetime | None = None) -> dict[str, Any]:
    """A run's numbers as plain values that JSON can hold; `{"run": None}` for a ledger without runs.

    Times are UTC, rates are over the sliding window of `ledger.rates`, and an ETA is None while nothing is known of it.
    Raises `LedgerError` for a run that is not there.
    """
    now = now or datetime.now(UTC)
    run = ledger.run(run_id)
    if run is None and run_id is not None:
        raise LedgerError(no_such_run("the ledger", run_id, ledger.runs()))
    if run is None:
        return {"run": None}
    seen = window(run, ledger.shards(run.run_id, RECENT), now)
    languages, workers = ledger.languages(run.run_id), ledger.workers(run.run_id)
    totals = _totals(languages, ledger.progress(run.run_id).processed, run, seen)
    return {
        "at": utc(now),
        "run": {**run.as_row(), "hours_elapsed": _hours(run, now)},
        "totals": totals,
        "eta": _eta(eta(seen, totals["total_videos"] - totals["processed"]), run),
        "languages": [_language(language, seen) for language in languages],
        "drivers": [_worker(row, run, seen, now) for row in workers if row.role is Role.DRIVER],
        "workers": [_worker(row, run, seen, now) for row in workers if row.role is Role.WORKER],
        "errors": [row.as_row() for row in ledger.errors(run.run_id, LAST_ERRORS)],
    }


def _totals(languages: list[LanguageProgress], processed: int, run: RunRow, seen: Window) -> dict[str, Any]:
    summed = ("total_shards", "shards_done", "failed", "segments", "kept", "audio_s", "kept_s", "bytes_in", "bytes_out")
    return {
        "total_videos": run.total_videos,
        "processed": processed,
        **{name: sum(getattr(language, name) for language in languages) for name in summed},
        "videos_per_minute": seen.videos_per_minute(),
        "segments_per_second": seen.segments_per_second(),
        "times_real_time": seen.audio_per_second(),
    }


def _hours(run: RunRow, now: datetime) -> float:
    end = parse_utc(run.completed_at) if run.completed_at else now
    return (end - parse_utc(run.started_at or now)).total_seconds() / 3600


def _eta(expected: Eta | None, run: RunRow) -> dict[str, Any] | None:
    if expected is None or run.status is not RunStatus.RUNNING:
        return None
    return {"seconds": expected.seconds, "low_s": expected.low_s, "high_s": expected.high_s}


def _language(language: LanguageProgress, seen: Window) -> dict[str, Any]:
    left, rate = language.total_videos - language.processed, seen.videos_per_minute(language.language)
    return {**language.as_row(), "rate": rate, "eta_s": 60 * max(left, 0) / rate if rate > 0 else None}


def _worker(worker: WorkerRow, run: RunRow, seen: Window, now: datetime) -> dict[str, Any]:
    age_s = (now - parse_utc(worker.last_heartbeat or now)).total_seconds()
    stale = worker.status.alive and run.status is RunStatus.RUNNING and age_s > STALE_BEATS * run.heartbeat_s
    return {**worker.as_row(), "age_s": age_s, "stale": stale, "history": _history(worker.worker_id, seen)}


def _history(worker_id: str, seen: Window, bins: int = 12) -> list[int]:
    """Segments that a worker finished in each twelfth of the window, oldest first."""
    counts = [0] * bins
    for shard in seen.shards:
        if shard.worker_id == worker_id and shard.finished_at and seen.length_s > 0:
            part = (parse_utc(shard.finished_at) - seen.start).total_seconds() / seen.length_s
            counts[min(int(part * bins), bins - 1)] += shard.segments
    return counts


def _picture(seen: dict[str, Any]) -> RenderableType:
    if seen["run"] is None:
        return Text("No run in this ledger yet.")
    parts = [_header(seen), _language_table(seen["languages"])]
    if seen["drivers"] or seen["workers"]:
        parts.append(_worker_table([*seen["drivers"], *seen["workers"]]))
    if seen["errors"]:
        parts.append(_error_table(seen["errors"]))
    return Group(*parts)


def _header(seen: dict[str, Any]) -> RenderableType:
    run, totals = seen["run"], seen["totals"]
    grid = Table.grid(padding=(0, 2))
    state = _state(run["status"])
    grid.add_row(_safe(run["run_id"]), state, _safe(run["language"]), f"{_span(run['hours_elapsed'] * 3600)} elapsed")
    counts = Table.grid(padding=(0, 2))
    counts.add_row(
        _bar(totals["processed"], totals["total_videos"]),
        f"{totals['processed']:,} of {totals['total_videos']:,} videos",
        f"{totals['failed']:,} failed",
        f"{totals['kept']:,} of {totals['segments']:,} segments kept",
    )
    speed = (
        f"{totals['videos_per_minute']:,.1f} videos/min · {totals['segments_per_second']:,.1f} segments/s · "
        f"{totals['times_real_time']:,.0f} x real time · {_eta_text(seen['eta'])}"
    )
    return Panel(Group(grid, counts, Text(speed)), title="audiopipe", expand=False)


def _eta_text(expected: dict[str, Any] | None) -> str:
    if expected is None:
        return "end unknown"
    text = f"{_span(expected['seconds'])} to go"
    return text if expected["low_s"] is None else f"{text} ({_span(expected['low_s'])} to {_span(expected['high_s'])})"


def _language_table(languages: list[dict[str, Any]]) -> Table:
    table = _table("language", "", "videos", "failed", "kept", "videos/min", "to go")
    for row in languages:
        table.add_row(
            _safe(row["language"]),
            _bar(row["processed"], row["total_videos"]),
            f"{row['processed']:,}/{row['total_videos']:,}",
            f"{row['failed']:,}",
            f"{row['kept']:,}/{row['segments']:,}",
            f"{row['rate']:,.1f}",
            "-" if row["eta_s"] is None else _span(row["eta_s"]),
        )
    return table


def _worker_table(workers: list[dict[str, Any]]) -> Table:
    table = _table("worker", "status", "videos", "videos/min", "segments/s", "cpu", "gpu", "memory", "heard", "")
    for row in workers:
        driver = row["role"] == Role.DRIVER
        table.add_row(
            _safe(f"{row['worker_id']} (driver)" if driver else row["worker_id"]),
            _state("stale" if row["stale"] else row["status"]),
            f"{row['videos_processed']:,}",
            f"{row['videos_per_minute']:,.1f}",
            f"{row['segments_per_second']:,.1f}",
            f"{row['cpu_utilization']:.0f} %",
            f"{row['gpu_utilization']:.0f} %",
            f"{row['memory_bytes'] / 1e9:.1f} GB",
            f"{_span(row['age_s'])} ago",
            _spark(row["history"]),
        )
    return table


def _error_table(errors: list[dict[str, Any]]) -> Table:
    table = _table("last errors", "where", "what", "message", right=False)
    for row in errors:
        where = row["video_id"] or row["shard"] or row["worker_id"] or ""
        message = _safe(row["error_message"] or "")
        message.truncate(100, overflow="ellipsis")
        table.add_row(_safe((row["created_at"] or "")[11:19]), _safe(where), _safe(row["error_type"] or ""), message)
    return table


def _table(*columns: str, right: bool = True) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if right and index > 1 else "left", no_wrap=index < 2)
    return table


def _bar(done: int, total: int) -> ProgressBar:
    return ProgressBar(total=max(total, 1), completed=min(done, max(total, 1)), width=24)


def _state(status: str) -> Text:
    return Text(status, style=COLOURS.get(status, ""))


def _spark(counts: list[int]) -> str:
    top = max(counts, default=0)
    return "".join(SPARKS[-(-count * (len(SPARKS) - 1) // top)] for count in counts) if top else ""


def _span(seconds: float) -> str:
    """A duration as `1:02:03`, or `2 days, 3:04:05`."""
    return str(timedelta(seconds=max(0, round(seconds))))


def _safe(text: str) -> Text:
    """What others wrote, as it stands: no markup, no terminal escapes."""
    return Text("".join(letter if letter.isprintable() else " " for letter in text))
