"""Draw the progress of a run in a terminal of any width."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from audiopipe.errors import LedgerError
from audiopipe.ledger import Ledger, Role, RunStatus
from audiopipe.ledger.record import parse_utc
from audiopipe.ledger.snapshot import take_snapshot

__all__ = ["picture", "render", "watch"]

MOST_WORKERS = 24  # rows; more do not fit on a screen
WIDE = 110  # characters, from which on there is room for what a worker's machine does
SPARKS = " ▁▂▃▄▅▆▇█"
COLOURS = {"done": "green", "running": "cyan", "failed": "red", "stale": "bold red", "incomplete": "yellow"}


def render(ledger: Ledger, run_id: str | None = None, now: datetime | None = None) -> RenderableType:
    """Render totals, languages, workers and the last errors of a run, the newest by default."""
    return picture(take_snapshot(ledger, run_id, now))


def watch(ledger: Ledger, run_id: str | None = None, every_s: float = 2.0, console: Console | None = None) -> None:
    """Redraw until the run has ended. A ledger that goes away meanwhile is waited for, with the last picture kept.

    Raises `LedgerError` if it is not there at the start.
    """
    seen = take_snapshot(ledger, run_id)
    with Live(picture(seen), console=console, auto_refresh=False) as live:
        live.refresh()
        while seen["run"] is None or seen["run"]["status"] == RunStatus.RUNNING:
            time.sleep(every_s)
            trouble = None
            try:
                # A run that is watched from before its start stays the one that is watched.
                seen = take_snapshot(ledger, run_id or (seen["run"] or {}).get("run_id"))
            except LedgerError as error:
                trouble = str(error)
            live.update(picture(seen, trouble), refresh=True)


def picture(seen: dict[str, Any], trouble: str | None = None) -> RenderableType:
    """The numbers of a snapshot; with `trouble`, why they are not those of now."""
    if seen["run"] is None:
        return Group(Text("No run in this ledger yet."), *([_alarm(trouble)] if trouble else []))
    return _Picture(seen, trouble)


class _Picture:
    """Drawn for the width that there is: where it is narrow, with fewer columns."""

    def __init__(self, seen: dict[str, Any], trouble: str | None) -> None:
        self.seen, self.trouble = seen, trouble

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= WIDE
        yield _header(self.seen)
        yield from map(_alarm, _alarms(self.seen, self.trouble))
        yield _language_table(self.seen, wide)
        if self.seen["errors"]:
            yield _error_table(self.seen["errors"])
        if self.seen["drivers"] or self.seen["workers"]:
            yield from _workers(self.seen, wide)


def _header(seen: dict[str, Any]) -> RenderableType:
    run, totals = seen["run"], seen["totals"]
    title = Table.grid(padding=(0, 2))
    elapsed = f"{_span(run['hours_elapsed'] * 3600)} since the start"
    title.add_row(_safe(run["run_id"]), _state(run["status"]), _safe(f"languages: {run['language']}"), elapsed)
    counts = Table.grid(padding=(0, 2))
    share = totals["processed"] / max(totals["total_videos"], 1)
    done = f"{totals['processed']:,} of {totals['total_videos']:,} videos ({share:.1%})"
    counts.add_row(_bar(totals["processed"], totals["total_videos"]), done, _failed(totals["failed"]))
    kept = f"{totals['kept']:,} of {totals['segments']:,} segments kept, {totals['kept_s'] / 3600:,.1f} h of speech"
    return Panel(Group(title, counts, Text(f"{kept}\n{_speed(seen)}\n{_end(seen)}")), title="audiopipe", expand=False)


def _speed(seen: dict[str, Any]) -> str:
    """The rates, and of which time they are."""
    totals, running = seen["totals"], seen["run"]["status"] == RunStatus.RUNNING
    when = f"in the last {_span(seen['window_s'])}" if running else f"in its last session of {_span(seen['window_s'])}"
    return (
        f"{totals['videos_per_minute']:,.1f} videos/min · {totals['segments_per_second']:,.1f} segments/s · "
        f"{totals['times_real_time']:,.0f} x real time, {when}"
    )


def _end(seen: dict[str, Any]) -> str:
    """When it ended, or will, in words."""
    run, expected = seen["run"], seen["eta"]
    if run["completed_at"]:
        left = " with shards left: start it again to go on" if run["status"] == RunStatus.INCOMPLETE else ""
        return f"ended {_moment(run['completed_at'])}{left}"
    if expected is None:
        return "when it ends is not known yet: nothing has been finished lately"
    text = f"about {_span(expected['seconds'])} to go, until {_moment(seen['at'], expected['seconds'])}"
    if expected["low_s"] is None:
        return f"{text} (a guess, from few shards)"
    return f"{text} (80 % likely: {_span(expected['low_s'])} to {_span(expected['high_s'])})"


def _alarms(seen: dict[str, Any], trouble: str | None) -> list[str]:
    """What somebody should do something about."""
    told = [f"These are the numbers of {_moment(seen['at'])}: {trouble}"] if trouble else []
    for row in seen["drivers"]:
        if row["stale"]:
            silent = f"driver {row['worker_id']} has been silent for {_span(row['age_s'])}"
            told.append(f"{silent}: if its process is gone, start it again, and the run goes on")
    silent = sum(row["stale"] for row in seen["workers"])
    if silent:
        told.append(f"{silent} of {sum(not row['past'] for row in seen['workers'])} workers do not answer")
    return told


def _alarm(text: str) -> Text:
    return Text.assemble(("! ", "bold red"), _safe(text))


def _language_table(seen: dict[str, Any], wide: bool) -> Table:
    table = _table("language", *([""] if wide else []), "videos", "failed", "segments kept", "videos/min", "to go")
    for row in seen["languages"]:
        table.add_row(
            _safe(row["language"]),
            *([_bar(row["processed"], row["total_videos"])] if wide else []),
            f"{row['processed']:,}/{row['total_videos']:,}",
            _failed(row["failed"], ""),
            f"{row['kept']:,}/{row['segments']:,}",
            f"{row['rate']:,.1f}",
            _language_end(row, seen["run"]["status"]),
        )
    return table


def _language_end(row: dict[str, Any], status: str) -> str:
    if row["processed"] >= row["total_videos"]:
        return "done"
    return "-" if row["eta_s"] is None or status != RunStatus.RUNNING else _span(row["eta_s"])


def _workers(seen: dict[str, Any], wide: bool) -> Iterator[RenderableType]:
    """Drivers, and below each its workers, the silent ones first."""
    everybody = [*seen["drivers"], *seen["workers"]]
    rows = sorted((row for row in everybody if not row["past"]), key=_worker_order)
    machine = ("cpu", "gpu", "memory") if wide else ()
    table = _table("worker", "status", "videos", "segments/s", *machine, "heard", f"last {_span(seen['window_s'])}")
    for row in rows[:MOST_WORKERS]:
        table.add_row(*_worker_cells(row, wide))
    yield table
    hidden = [f"{len(rows) - MOST_WORKERS} more workers"] if len(rows) > MOST_WORKERS else []
    hidden += [f"{len(everybody) - len(rows)} that have left"] if len(everybody) > len(rows) else []
    if hidden:
        yield Text(f" not shown: {', '.join(hidden)}", style="dim")


def _worker_order(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["driver"], row["role"] != Role.DRIVER, not row["stale"], row["worker_id"]


def _worker_cells(row: dict[str, Any], wide: bool) -> list[RenderableType]:
    driver = row["role"] == Role.DRIVER
    own = row["worker_id"].removeprefix(f"{row['driver']}/")
    load = [f"{row['cpu_utilization']:.0f} %", f"{row['gpu_utilization']:.0f} %", f"{row['memory_bytes'] / 1e9:.1f} GB"]
    return [
        _safe(f"{own} (driver)" if driver else f"  {own}"),
        _state("stale" if row["stale"] else row["status"]),
        f"{row['videos_processed']:,}",
        f"{row['segments_per_second']:,.1f}",
        *([] if not wide else [""] * 3 if driver else load),
        f"{_span(row['age_s'])} ago",
        _spark(row["history"]),
    ]


def _error_table(errors: list[dict[str, Any]]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for name in ("last errors", "where", "what"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    table.add_column("message", overflow="fold")
    for row in errors:
        where = row["video_id"] or row["shard"] or row["worker_id"] or ""
        message = _safe(row["error_message"] or "")
        message.truncate(100, overflow="ellipsis")
        table.add_row(_safe((row["created_at"] or "")[11:19]), _safe(where), _safe(row["error_type"] or ""), message)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for index, name in enumerate(columns):
        left = index == 0 or name in ("", "status") or name.startswith("last")
        table.add_column(name, justify="left" if left else "right", no_wrap=True, overflow="ellipsis")
    return table


def _bar(done: int, total: int, width: int = 24) -> ProgressBar:
    return ProgressBar(total=max(total, 1), completed=min(done, max(total, 1)), width=width)


def _failed(count: int, word: str = " failed") -> Text:
    return Text(f"{count:,}{word}", style="red" if count else "")


def _state(status: str) -> Text:
    return Text(status, style=COLOURS.get(status, ""))


def _spark(counts: list[int]) -> str:
    top = max(counts, default=0)
    return "".join(SPARKS[-(-count * (len(SPARKS) - 1) // top)] for count in counts) if top else ""


def _moment(at: str, later_s: float = 0.0) -> str:
    """A time of day in UTC, with the date where that is another than `at`'s."""
    begin = parse_utc(at)
    moment = begin + timedelta(seconds=later_s)
    return f"{moment:%H:%M} UTC" if moment.date() == begin.date() else f"{moment:%Y-%m-%d %H:%M} UTC"


def _span(seconds: float) -> str:
    """A duration as one reads it: `40 s`, `5 min 10 s`, `48 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds >= 600:
        seconds = 60 * round(seconds / 60)
    left = max(0, round(seconds))
    amounts: list[tuple[int, str]] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, size)
        if amount or amounts or unit == "s":
            amounts.append((amount, unit))
    return " ".join(f"{amount} {unit}" for index, (amount, unit) in enumerate(amounts[:2]) if amount or index == 0)


def _safe(text: str) -> Text:
    """What others wrote, as it stands: no markup, no terminal escapes."""
    return Text("".join(letter if letter.isprintable() else " " for letter in text))
