"""Draw the progress of a run in a terminal of any width."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from audiopipe.errors import LedgerError
from audiopipe.ledger import ErrorRow, Ledger, Role, RunStatus, WorkerStatus
from audiopipe.ledger.record import parse_utc
from audiopipe.ledger.snapshot import LanguageSnapshot, RunSnapshot, WorkerSnapshot, take_snapshot
from audiopipe.report.numbers import RunNumbers, format_times
from audiopipe.report.terminal_rows import fold_languages, list_reporters, share_rows
from audiopipe.report.text import format_duration

__all__ = ["render", "render_snapshot", "watch"]

FOLDED_ERRORS = 3
WIDE = 110  # characters from which the table of workers has room for CPU, GPU and memory
SPARKS = " ▁▂▃▄▅▆▇█"
STATUS_COLORS = {"done": "green", "running": "cyan", "failed": "red", "stale": "bold red", "incomplete": "yellow"}


def render(
    ledger: Ledger, run_id: str | None = None, now: datetime | None = None, fold: bool = False
) -> RenderableType:
    """Render totals, languages, workers and the last errors of a run, by default the newest.

    Args:
        fold: show as many languages and workers as the terminal has rows for, and sum up the others.

    Raises:
        LedgerError: the ledger cannot be read, or does not have the run.
    """
    return render_snapshot(take_snapshot(ledger, run_id, now), fold=fold)


def watch(ledger: Ledger, run_id: str | None = None, every_s: float = 2.0, console: Console | None = None) -> None:
    """Redraw until the run has ended; during an outage of the ledger the last snapshot stays on the screen.

    Raises:
        LedgerError: the first snapshot fails.
    """
    snapshot = take_snapshot(ledger, run_id)
    with Live(render_snapshot(snapshot, fold=True), console=console, auto_refresh=False) as live:
        live.refresh()
        while snapshot is None or snapshot.run.status is RunStatus.RUNNING:
            time.sleep(every_s)
            outage = None
            try:
                # Keep watching the same run, even if a newer one starts.
                snapshot = take_snapshot(ledger, run_id or (snapshot.run.run_id if snapshot else None))
            except LedgerError as error:
                outage = str(error)
            live.update(render_snapshot(snapshot, outage, fold=True), refresh=True)


def render_snapshot(snapshot: RunSnapshot | None, outage: str | None = None, fold: bool = False) -> RenderableType:
    """Render a snapshot; `outage` is the reason why it is not the current state, `fold` as in `render`."""
    if snapshot is None:
        return Group(Text("No run in this ledger yet."), *([_warning_line(outage)] if outage else []))
    return _RunView(snapshot, outage, fold)


class _RunView:
    """A snapshot, drawn with fewer columns on a narrow terminal and, if it is folded, with fewer rows on a low one."""

    def __init__(self, snapshot: RunSnapshot, outage: str | None, fold: bool) -> None:
        self.snapshot, self.outage, self.fold = snapshot, outage, fold

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = options.max_width >= WIDE
        warnings = _list_warnings(self.snapshot, self.outage)
        errors = self.snapshot.errors[: FOLDED_ERRORS if self.fold else None]
        reporters = list_reporters(self.snapshot)
        languages, workers = len(self.snapshot.languages), len(reporters)
        if self.fold:
            # The panel has seven rows, each of three tables a heading, and two lines say what is folded.
            rows = options.size.height - 12 - len(warnings) - len(errors)
            languages, workers = share_rows(rows, languages, workers)
        yield _header(self.snapshot)
        yield from map(_warning_line, warnings)
        yield _language_table(self.snapshot, fold_languages(self.snapshot.languages, languages), wide)
        if errors:
            yield _error_table(errors)
        if self.snapshot.drivers or self.snapshot.workers:
            yield from _worker_table(self.snapshot, reporters, workers, wide)


def _header(snapshot: RunSnapshot) -> RenderableType:
    run, totals = snapshot.run, snapshot.totals
    title = Table.grid(padding=(0, 2))
    elapsed = f"{_duration(snapshot.hours_elapsed * 3600)} since the start"
    title.add_row(_plain_text(run.run_id), _status(run.status), _plain_text(f"languages: {run.language}"), elapsed)
    counts = Table.grid(padding=(0, 2))
    numbers = RunNumbers.of_ledger(totals, totals.busy_s or 0.0)
    done = f"{numbers.done} videos done ({numbers.processed_share} processed)"
    counts.add_row(_bar(totals.processed, totals.total_videos), done, _failed_count(totals.failed))
    kept = f"{numbers.kept} segments kept ({numbers.kept_share}), {numbers.hours_kept} of {numbers.hours} h"
    lines = Text(f"{kept}\n{_speed(snapshot)}\n{_end(snapshot)}")
    return Panel(Group(title, counts, lines), title="audiopipe", expand=False)


def _speed(snapshot: RunSnapshot) -> str:
    """Format the rates and the time that they cover."""
    totals, length = snapshot.totals, _duration(snapshot.window_s)
    span = f"in the last {length}" if snapshot.run.status is RunStatus.RUNNING else f"in {length} of work"
    return (
        f"{totals.videos_per_minute:,.1f} videos/min · {totals.segments_per_second:,.1f} segments/s · "
        f"{format_times(totals.times_real_time, 1.0)} real time, {span}"
    )


def _end(snapshot: RunSnapshot) -> str:
    """Format the time of the end, or the ETA."""
    run, eta = snapshot.run, snapshot.eta
    if run.completed_at:
        missing = " with shards missing: run it again to resume" if run.status is RunStatus.INCOMPLETE else ""
        return f"ended {_clock(run.completed_at)}{missing}"
    if eta is None:
        return "ETA unknown: no shard has finished recently"
    text = f"ETA {_clock(snapshot.at, eta.seconds)}, in about {_duration(eta.seconds)}"
    if eta.low_s is None or eta.high_s is None:
        return f"{text} (rough: few shards have finished)"
    return f"{text} (80 % interval: {_duration(eta.low_s)} to {_duration(eta.high_s)})"


def _list_warnings(snapshot: RunSnapshot, outage: str | None) -> list[str]:
    """List what an operator should act on."""
    warnings = [f"State of {_clock(snapshot.at)}, because the ledger cannot be read: {outage}"] if outage else []
    warnings += [
        f"driver {driver.worker_id} has sent no heartbeat for {_duration(driver.age_s)}: "
        "if its process has died, run it again to resume"
        for driver in snapshot.drivers
        if driver.stale
    ]
    warnings += [
        f"worker {worker.worker_id} was retired: {worker.last_error}"
        for worker in snapshot.workers
        if worker.status is WorkerStatus.FAILED and worker.last_error
    ]
    stale = sum(worker.stale for worker in snapshot.workers)
    if stale:
        current = sum(not worker.past for worker in snapshot.workers)
        warnings.append(f"{stale} of {current} workers have stopped sending heartbeats")
    return warnings


def _warning_line(text: str) -> Text:
    return Text.assemble(("! ", "bold red"), _plain_text(text))


def _language_table(snapshot: RunSnapshot, languages: Sequence[LanguageSnapshot], wide: bool) -> Table:
    table = _table("language", *([""] if wide else []), "videos done", "failed", "segments kept", "videos/min", "to go")
    for language in languages:
        numbers = RunNumbers.of_ledger(language)
        table.add_row(
            _plain_text(language.language),
            *([_bar(language.processed, language.total_videos)] if wide else []),
            numbers.done,
            _failed_count(numbers.videos_failed, ""),
            numbers.kept,
            f"{language.rate:,.1f}",
            _language_end(language, snapshot.run.status),
        )
    return table


def _language_end(language: LanguageSnapshot, status: RunStatus) -> str:
    if language.processed >= language.total_videos:
        return "done"
    return "-" if language.eta_s is None or status is not RunStatus.RUNNING else _duration(language.eta_s)


def _worker_table(
    snapshot: RunSnapshot, reporters: Sequence[WorkerSnapshot], limit: int, wide: bool
) -> Iterator[RenderableType]:
    """List the drivers, each followed by its workers; if not all are shown, the stale ones come first."""
    machine = ("cpu", "gpu", "memory") if wide else ()
    window = f"last {_duration(snapshot.window_s)}"
    table = _table("worker", "status", "videos", "segments/s", *machine, "heartbeat", window)
    rows = reporters if len(reporters) <= limit else sorted(reporters, key=lambda row: not row.stale)
    for row in rows[:limit]:
        table.add_row(*_worker_cells(row, wide))
    yield table
    past = len(snapshot.drivers) + len(snapshot.workers) - len(reporters)
    hidden = [f"{len(reporters) - limit} more workers"] if len(reporters) > limit else []
    hidden += [f"{past} that have left"] if past else []
    if hidden:
        more = "; audiopipe monitor --once prints all rows" if len(reporters) > limit else ""
        yield Text(f" not shown: {', '.join(hidden)}{more}", style="dim")


def _worker_cells(worker: WorkerSnapshot, wide: bool) -> list[RenderableType]:
    is_driver = worker.role is Role.DRIVER
    name = worker.worker_id.removeprefix(f"{worker.driver}/")
    load = [f"{worker.cpu_utilization:.0f} %", f"{worker.gpu_utilization:.0f} %", f"{worker.memory_bytes / 1e9:.1f} GB"]
    return [
        _plain_text(f"{name} (driver)" if is_driver else f"  {name}"),
        _status("stale" if worker.stale else worker.status),
        f"{worker.videos_processed:,}",
        f"{worker.segments_per_second:,.1f}",
        *([] if not wide else [""] * 3 if is_driver else load),
        f"{_duration(worker.age_s)} ago",
        _sparkline(worker.history),
    ]


def _error_table(errors: Sequence[ErrorRow]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for name in ("last errors", "where", "error"):
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    table.add_column("message", overflow="fold")
    for error in errors:
        where = error.video_id or error.shard or error.worker_id or ""
        message = _plain_text(error.error_message or "")
        message.truncate(100, overflow="ellipsis")
        time_of_day = (error.created_at or "")[11:19]
        table.add_row(_plain_text(time_of_day), _plain_text(where), _plain_text(error.error_type or ""), message)
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="bold")
    for index, name in enumerate(columns):
        left = index == 0 or name in ("", "status") or name.startswith("last")
        table.add_column(name, justify="left" if left else "right", no_wrap=True, overflow="ellipsis")
    return table


def _bar(done: int, total: int, width: int = 24) -> ProgressBar:
    return ProgressBar(total=max(total, 1), completed=min(done, max(total, 1)), width=width)


def _failed_count(count: int, suffix: str = " failed") -> Text:
    return Text(f"{count:,}{suffix}", style="red" if count else "")


def _status(status: str) -> Text:
    return Text(status, style=STATUS_COLORS.get(status, ""))


def _sparkline(counts: Sequence[int]) -> str:
    top = max(counts, default=0)
    return "".join(SPARKS[-(-count * (len(SPARKS) - 1) // top)] for count in counts) if top else ""


def _clock(at: str, offset_s: float = 0.0) -> str:
    """Format the UTC time `offset_s` after `at`, with the date if it is on another day than `at`."""
    start = parse_utc(at)
    moment = start + timedelta(seconds=offset_s)
    return f"{moment:%H:%M} UTC" if moment.date() == start.date() else f"{moment:%Y-%m-%d %H:%M} UTC"


def _duration(seconds: float) -> str:
    """Format a duration, rounded to minutes from ten minutes on."""
    return format_duration(60 * round(seconds / 60) if seconds >= 600 else max(0.0, seconds))


def _plain_text(text: str) -> Text:
    """Return untrusted text without markup and without terminal escapes."""
    return Text("".join(letter if letter.isprintable() else " " for letter in text))
