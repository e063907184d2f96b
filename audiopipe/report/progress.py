"""Read a run from its ledger and render its headline: progress, speed, problems and remedies.

`read_run_report` reads the ledger once; `run_tables`, `timeline` and `forecast` render the other parts of the report.
All of it works during a run and after it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from audiopipe.errors import ConfigError, LedgerError
from audiopipe.ledger import ErrorRow, RunRow, RunStatus, ShardRow, ShardStatus, open_ledger
from audiopipe.ledger.rates import measure_busy_time
from audiopipe.ledger.record import parse_utc
from audiopipe.ledger.snapshot import RunSnapshot, RunTotals, WorkerSnapshot, take_snapshot
from audiopipe.report import page
from audiopipe.report.numbers import RunNumbers
from audiopipe.report.page import Html, esc
from audiopipe.report.stages import find_bottleneck
from audiopipe.report.text import (
    format_bytes,
    format_duration,
    format_names,
    format_number,
    format_percent,
    format_time,
    pluralize,
)

__all__ = ["PARAMETERS", "RunReport", "headline", "read_run_report"]

PARAMETERS = ("output", "ledger", "run_id", "usd_per_hour")
MAX_ERRORS = 10_000


@dataclass(frozen=True)
class RunReport:
    """A run at one moment. `shards` are all shards that were attempted."""

    at: datetime
    run: RunRow
    snapshot: RunSnapshot
    shards: list[ShardRow]
    errors: list[ErrorRow]
    usd_per_hour: float | None = None

    @property
    def totals(self) -> RunTotals:
        """Return the sums and rates of the snapshot."""
        return self.snapshot.totals

    @cached_property
    def done(self) -> list[ShardRow]:
        """Return the committed shards in the order in which they finished."""
        done = [shard for shard in self.shards if shard.status is ShardStatus.DONE and shard.finished_at]
        return sorted(done, key=lambda shard: shard.finished_at or "")

    @property
    def start(self) -> datetime:
        """Return the first start of the run."""
        return parse_utc(self.run.started_at or self.at)

    @property
    def end(self) -> datetime:
        """Return the end of the run, or the time of the report."""
        return parse_utc(self.run.completed_at) if self.run.completed_at else self.at

    @cached_property
    def busy_s(self) -> float:
        """Return the seconds in which at least one shard was being processed; pauses between sessions do not count."""
        return measure_busy_time((shard.started_at, shard.finished_at) for shard in self.done)

    @cached_property
    def numbers(self) -> RunNumbers:
        """Return the numbers that all pages share."""
        return RunNumbers.of_ledger(self.totals, self.busy_s)

    @cached_property
    def stage_s(self) -> Counter[str]:
        """Return the seconds of work in each stage, summed over the committed shards."""
        seconds: Counter[str] = Counter()
        for shard in self.done:
            seconds.update(shard.stage_s)
        return seconds

    @property
    def stale_drivers(self) -> list[WorkerSnapshot]:
        """Return the drivers whose heartbeats are overdue."""
        return [driver for driver in self.snapshot.drivers if driver.stale]


def read_run_report(
    output: str | None, ledger: str | None = None, run_id: str | None = None, usd_per_hour: float | None = None
) -> RunReport:
    """Read a run, by default the newest that made videos and not columns, from the ledger of an output.

    Args:
        usd_per_hour: price of all machines of the run together, to show the cost so far.

    Raises:
        ConfigError: the price is negative.
        LedgerError: the ledger does not exist, or it does not have the run.
    """
    if usd_per_hour is not None and not usd_per_hour >= 0:
        raise ConfigError(f"parameter 'usd_per_hour' {usd_per_hour!r}: must be a price of 0 or more")
    now = datetime.now(UTC)
    with open_ledger(ledger, output, create=False) as source:
        # Annotations are runs of the same ledger; a page about the output is about the run that made it.
        run_id = run_id or next((run.run_id for run in source.runs() if not run.is_annotation), None)
        snapshot = take_snapshot(source, run_id, now)
        if snapshot is None:
            raise LedgerError(f"the ledger of {output} has no run yet: start one, or give 'ledger' another path")
        run_id = snapshot.run.run_id
        return RunReport(
            now, snapshot.run, snapshot, source.shards(run_id), source.errors(run_id, MAX_ERRORS), usd_per_hour
        )


def headline(run_report: RunReport) -> Html:
    """Render the numbers, a verdict, and what to do if something is wrong."""
    totals, numbers = run_report.totals, run_report.numbers
    items = [
        (
            "run " + run_report.run.run_id[:13] + ("…" if len(run_report.run.run_id) > 13 else ""),
            str(run_report.run.status),
        ),
        ("videos done", numbers.done),
        ("videos failed permanently", f"{numbers.videos_failed:,}"),
        (f"kept of {pluralize(numbers.segments, 'segment')}", numbers.kept_share),
        (f"kept of {numbers.hours} h", f"{numbers.hours_kept} h"),
        ("real time", numbers.times_real_time),
        ("working time" if run_report.run.completed_at else "working time so far", format_duration(numbers.busy_s)),
        *_to_go(run_report),
        (f"written, {format_bytes(totals.bytes_in)} read", format_bytes(totals.bytes_out)),
    ]
    if run_report.usd_per_hour is not None:
        items.append(("cost so far", f"${format_number(run_report.usd_per_hour * numbers.busy_s / 3600, 2)}"))
    cards = page.cards((value, label) for label, value in items)
    return page.with_styles(
        page.join(cards, _verdict(run_report), _dates(run_report), page.embed_metadata(_index_values(run_report)))
    )


def _index_values(run_report: RunReport) -> dict[str, str | float | None]:
    """Return the values that the index page shows."""
    run = run_report.run
    dates = {"started": run.started_at, "ended": run.completed_at, "at": run_report.at.isoformat()}
    return {"run_id": run.run_id, "state": str(run.status), **dates, **run_report.numbers.index_values()}


def _to_go(run_report: RunReport) -> list[tuple[str, str]]:
    if run_report.run.completed_at:
        return []
    eta = run_report.snapshot.eta
    return [("to go", format_duration(eta.seconds) if eta else "–")]


def _dates(run_report: RunReport) -> Html:
    run, start, end = run_report.run, run_report.start, run_report.end
    duration = format_duration((end - start).total_seconds())
    ended = f"ended {format_time(end)} after {duration}" if run.completed_at else "has not ended"
    sentence = f"Started {format_time(start)}, {ended}; as of {format_time(run_report.at)}."
    sentence += f" Output <code>{esc(run.output or '–')}</code>, run <code>{esc(run.run_id)}</code>"
    versions = [f"audiopipe {esc(run.version)}"] if run.version else []
    versions += [f"parameters <code>{esc(run.config_digest)}</code>"] if run.config_digest else []
    return page.note(", ".join([sentence, *versions]) + ".")


def _verdict(run_report: RunReport) -> Html:
    totals, status = run_report.totals, run_report.run.status
    sentences: list[str] = []
    level: page.Level = "good"
    if status is RunStatus.RUNNING and run_report.stale_drivers:
        level = "bad"
        age = format_duration(max(driver.age_s for driver in run_report.stale_drivers))
        sentences.append(f"The driver has sent no heartbeat for {age}: its process has probably died.")
        sentences.append("Start the same run again; committed shards are not processed twice.")
    elif status is RunStatus.RUNNING:
        sentences.append(f"Running: {run_report.numbers.processed_share} of the videos are processed.")
    elif status is RunStatus.DONE:
        sentences.append("Done: every planned shard is committed.")
    else:
        level = "bad"
        missing = pluralize(totals.total_shards - totals.shards_done, "shard")
        sentences.append(f"Not finished ({status}): {missing} of {totals.total_shards:,} missing.")
        sentences.append("See the errors below, then start the same run again: it continues with the missing shards.")
    if run_report.run.is_annotation:
        sentences.append(
            "This run adds columns to the segments of another run: leave out <code>run_id</code> to see that."
        )
    sentences += _list_problems(run_report)
    if level == "good" and totals.failed > 0.1 * max(totals.processed, 1):
        level = "warn"
    return page.verdict(level, sentences)


def _list_problems(run_report: RunReport) -> list[str]:
    totals = run_report.totals
    problems: list[str] = []
    if totals.failed:
        kinds = Counter(error.error_type for error in run_report.errors if error.video_id)
        kind, count = kinds.most_common(1)[0] if kinds else ("unknown", 0)
        problems.append(
            f"{pluralize(totals.failed, 'video')} ({run_report.numbers.failed_share}) failed "
            f"permanently; the most frequent error is {esc(kind)} ({count:,}): see “Errors”."
        )
    repeated = sum(shard.attempts - 1 for shard in run_report.shards if shard.attempts > 1)
    if repeated:
        problems.append(f"{pluralize(repeated, 'attempt')} at shards had to be repeated; the results are not affected.")
    stale = [worker.worker_id for worker in run_report.snapshot.workers if worker.stale]
    if stale:
        problems.append(f"{pluralize(len(stale), 'worker')} stopped sending heartbeats: {esc(format_names(stale))}.")
    slowest = find_bottleneck(run_report.stage_s)
    if slowest:
        share = format_percent(run_report.stage_s[slowest], sum(run_report.stage_s.values()))
        problems.append(f"The stage <b>{esc(slowest)}</b> takes the largest part of the working time ({share}).")
    return problems
