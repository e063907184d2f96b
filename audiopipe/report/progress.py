"""A run as its ledger tells it: what is done, how fast, where the time went, what went wrong.

`read` takes everything from the ledger once, and `headline` says it in short; `run_tables`, `timeline` and `forecast`
draw the rest. All of it works during a run and after it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from audiopipe.errors import ConfigError, LedgerError
from audiopipe.ledger import ErrorRow, RunRow, RunStatus, ShardRow, ShardStatus, open_ledger
from audiopipe.ledger import snapshot as monitor
from audiopipe.ledger.record import parse_utc
from audiopipe.report import page
from audiopipe.report.page import Html, esc
from audiopipe.report.stages import bottleneck
from audiopipe.report.text import format_bytes, format_clock, format_duration, number, percent, plural

__all__ = ["PARAMETERS", "RunReport", "headline", "read_run_report"]

PARAMETERS = ("output", "ledger", "run_id", "usd_per_hour")
MOST_ERRORS = 10_000


@dataclass(frozen=True)
class RunReport:
    """A run at one moment. `snapshot` is `monitor.snapshot`'s; `shards` are those that were tried."""

    at: datetime
    run: RunRow
    snapshot: dict[str, Any]
    shards: list[ShardRow]
    errors: list[ErrorRow]
    usd_per_hour: float | None = None

    @property
    def totals(self) -> dict[str, Any]:
        totals: dict[str, Any] = self.snapshot["totals"]
        return totals

    @property
    def done(self) -> list[ShardRow]:
        """Committed shards in the order of their ends."""
        done = [shard for shard in self.shards if shard.status is ShardStatus.DONE and shard.finished_at]
        return sorted(done, key=lambda shard: shard.finished_at or "")

    @property
    def start(self) -> datetime:
        return parse_utc(self.run.started_at or self.at)

    @property
    def end(self) -> datetime:
        return parse_utc(self.run.completed_at) if self.run.completed_at else self.at

    @property
    def sessions_s(self) -> float:
        """Seconds in which somebody worked, as far as shards tell: nights between two sessions do not count."""
        spans = sorted(
            (parse_utc(shard.started_at), parse_utc(shard.finished_at))
            for shard in self.done
            if shard.started_at and shard.finished_at
        )
        busy, until = timedelta(), self.start
        for start, end in spans:
            busy += max(end - max(start, until), timedelta())
            until = max(until, end)
        return busy.total_seconds()

    @property
    def stage_s(self) -> Counter[str]:
        seconds: Counter[str] = Counter()
        for shard in self.done:
            seconds.update(shard.stage_s)
        return seconds

    @property
    def silent_drivers(self) -> list[dict[str, Any]]:
        return [row for row in self.snapshot["drivers"] if row["stale"]]


def read_run_report(
    output: str | None, ledger: str | None = None, run_id: str | None = None, usd_per_hour: float | None = None
) -> RunReport:
    """A run of the ledger of an output, the newest by default.

    Args:
        usd_per_hour: what all machines of the run cost together; shows the cost so far.

    Raises:
        LedgerError: there is no ledger, or no such run in it.
    """
    if usd_per_hour is not None and not usd_per_hour >= 0:
        raise ConfigError(f"parameter 'usd_per_hour' {usd_per_hour!r}: must be a price of 0 or more")
    now = datetime.now(UTC)
    with open_ledger(ledger, output, create=False) as source:
        snapshot = monitor.take_snapshot(source, run_id, now)
        if snapshot["run"] is None:
            raise LedgerError(f"the ledger of {output} has no run yet: start one, or give 'ledger' another path")
        run = source.run(snapshot["run"]["run_id"])
        assert run is not None
        return RunReport(
            now, run, snapshot, source.shards(run.run_id), source.errors(run.run_id, MOST_ERRORS), usd_per_hour
        )


def headline(run_report: RunReport) -> Html:
    """The numbers, then in words whether all is well and what to do if not."""
    totals, done_s = run_report.totals, run_report.sessions_s
    items = [
        (
            "run " + run_report.run.run_id[:13] + ("…" if len(run_report.run.run_id) > 13 else ""),
            str(run_report.run.status),
        ),
        (f"of {totals['total_videos']:,} videos done", f"{totals['processed']:,}"),
        ("videos failed for good", f"{totals['failed']:,}"),
        (f"kept of {totals['segments']:,} segments", percent(totals["kept"], totals["segments"])),
        (f"real time, {_hours(totals['audio_s'])} of audio", _times(totals["audio_s"], done_s)),
        ("work took" if run_report.run.completed_at else "work so far", format_duration(done_s)),
        *_left(run_report),
        (f"written, {format_bytes(totals['bytes_in'])} read", format_bytes(totals["bytes_out"])),
    ]
    if run_report.usd_per_hour is not None:
        items.append(("cost so far", f"${number(run_report.usd_per_hour * done_s / 3600, 2)}"))
    shown = page.cards((value, what) for what, value in items)
    return page.styled(page.join(shown, _verdict(run_report), _when(run_report), page.facts(_facts(run_report))))


def _facts(seen: RunReport) -> dict[str, Any]:
    """For the index page."""
    totals, run = seen.totals, seen.run
    counts = {"videos": totals["processed"], "failed": totals["failed"], "segments": totals["segments"]}
    dates = {"started": run.started_at, "ended": run.completed_at, "at": seen.at.isoformat()}
    kept = {"kept": totals["kept"], "hours_kept": totals["kept_s"] / 3600}
    return {"run_id": run.run_id, "state": str(run.status), **dates, **counts, **kept}


def _times(audio_s: float, wall_s: float) -> str:
    return f"{number(audio_s / wall_s)} x" if wall_s else "–"


def _hours(seconds: float) -> str:
    return f"{number(seconds / 3600, 2 if seconds < 360_000 else 0)} h"


def _left(seen: RunReport) -> list[tuple[str, str]]:
    if seen.run.completed_at:
        return []
    expected = seen.snapshot["eta"]
    return [("to go", format_duration(expected["seconds"]) if expected else "–")]


def _when(seen: RunReport) -> Html:
    took = format_duration((seen.end - seen.start).total_seconds())
    ended = f"ended {format_clock(seen.end)} after {took}" if seen.run.completed_at else "has not ended"
    told = f"Started {format_clock(seen.start)}, {ended}, looked at {format_clock(seen.at)}."
    told += f" Output <code>{esc(seen.run.output or '–')}</code>, run <code>{esc(seen.run.run_id)}</code>"
    made = [f"audiopipe {esc(seen.run.version)}"] if seen.run.version else []
    made += [f"parameters <code>{esc(seen.run.config_digest)}</code>"] if seen.run.config_digest else []
    return page.note(", ".join([told, *made]) + ".")


def _verdict(seen: RunReport) -> Html:
    totals = seen.totals
    sentences: list[str] = []
    level: page.Level = "good"
    if seen.run.status is RunStatus.RUNNING and seen.silent_drivers:
        level = "bad"
        silent = max(row["age_s"] for row in seen.silent_drivers)
        sentences.append(f"The driver has not been heard of for {format_duration(silent)}: it is probably dead.")
        sentences.append("Start the same run again; committed shards are not done twice.")
    elif seen.run.status is RunStatus.RUNNING:
        sentences.append(f"Running: {percent(totals['processed'], totals['total_videos'])} of the videos are done.")
    elif seen.run.status is RunStatus.DONE:
        sentences.append("Done: every planned shard is committed.")
    else:
        level = "bad"
        left = totals["total_shards"] - totals["shards_done"]
        sentences.append(
            f"Not finished ({seen.run.status}): {plural(left, 'shard')} of {totals['total_shards']:,} missing."
        )
        sentences.append("Look at the errors below, then start the same run again: it goes on with what is missing.")
    sentences += _concerns(seen)
    if level == "good" and totals["failed"] > 0.1 * max(totals["processed"], 1):
        level = "warn"
    return page.verdict(level, sentences)


def _concerns(seen: RunReport) -> list[str]:
    totals, found = seen.totals, []
    if totals["failed"]:
        kinds = Counter(error.error_type for error in seen.errors if error.video_id)
        most, count = kinds.most_common(1)[0] if kinds else ("unknown", 0)
        found.append(
            f"{plural(totals['failed'], 'video')} ({percent(totals['failed'], totals['processed'])}) cannot be "
            f"processed as they are; the most frequent reason is {esc(most)} ({count:,}): see “What went wrong”."
        )
    tries = sum(shard.attempts - 1 for shard in seen.shards if shard.attempts > 1)
    if tries:
        found.append(f"{plural(tries, 'attempt')} at shards had to be repeated; the results are not affected.")
    lost = [row for row in seen.snapshot["workers"] if row["stale"]]
    if lost:
        found.append(
            f"{plural(len(lost), 'worker')} stopped reporting: {esc(', '.join(row['worker_id'] for row in lost))}."
        )
    most_stage = bottleneck(seen.stage_s)
    if most_stage:
        share = percent(seen.stage_s[most_stage], sum(seen.stage_s.values()))
        found.append(f"Most of the work's time goes into <b>{esc(most_stage)}</b> ({share}).")
    return found
