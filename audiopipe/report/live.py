"""Render the parts of `run.ipynb`: the plan before a run, its progress, and its result."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from audiopipe.config import RunConfig
from audiopipe.ledger import ErrorRow, RunStatus
from audiopipe.ledger.snapshot import LanguageSnapshot, RunSnapshot
from audiopipe.plan.plan import Plan
from audiopipe.report import page
from audiopipe.report.figure import BAD, DROPPED, KEPT
from audiopipe.report.numbers import RunNumbers, format_times
from audiopipe.report.page import Html, esc
from audiopipe.report.summary import describe_problem
from audiopipe.report.text import format_bytes, format_duration, format_number, humanize, pluralize

if TYPE_CHECKING:
    from audiopipe.driver.run import RunSummary

__all__ = ["render_plan", "render_progress", "render_result"]


def render_plan(plan: Plan, config: RunConfig, committed: Collection[str]) -> Html:
    """Render videos, shards, hours and bytes of each language, and the number of committed shards."""
    totals = plan.totals(config.partition_index)
    done = {name: sum(shard.startswith(f"{name}-") for shard in committed) for name in totals}
    rows = [
        [
            name,
            f"{total.videos:,}",
            f"{total.shards:,}",
            f"{done[name]:,}" if config.partition_count == 1 else "–",
            _lower_bound(format_number(total.hours, 2), total.videos_with_duration, total.videos),
            _lower_bound(format_bytes(total.size_bytes), total.videos_with_size, total.videos),
        ]
        for name, total in totals.items()
    ]
    head = ["language", "videos", "shards", "committed before", "hours of audio", "to read"]
    languages = list(totals.values())
    last = [
        "all",
        f"{sum(total.videos for total in languages):,}",
        f"{sum(total.shards for total in languages):,}",
        f"{sum(done.values()):,}" if config.partition_count == 1 else "–",
        format_number(sum(total.hours for total in languages), 2),
        format_bytes(sum(total.size_bytes for total in languages)),
    ]
    note = "≥: the catalog lacks the duration or size of some videos. Committed shards are not processed again."
    source = f"From <code>{esc(config.catalog)}</code> to <code>{esc(config.output)}</code>"
    if config.partition_count > 1:
        source += f", partition {config.partition_index} of {config.partition_count}"
    return page.join(Html(f"<p>{source}.</p>"), page.table(head, rows, "l", last), page.note(note))


def _lower_bound(text: str, known: int, total: int) -> str:
    """Mark a sum over `known` of `total` videos as a lower bound."""
    return text if known == total else f"≥ {text}" if known else "unknown"


def render_progress(snapshot: RunSnapshot | None) -> Html:
    """Render the progress of a run; None is a ledger without the run."""
    if snapshot is None:
        return Html("<p>The ledger has no run yet.</p>")
    totals, run = snapshot.totals, snapshot.run
    running = run.status is RunStatus.RUNNING
    to_go = format_duration(snapshot.eta.seconds) if snapshot.eta else "…"
    numbers = RunNumbers.of_ledger(totals, totals.busy_s or 0.0)
    speed = format_times(totals.times_real_time, 1.0) if running else numbers.times_real_time
    span = f"in the last {format_duration(snapshot.window_s)}" if running else "in all"
    cards = [
        (numbers.done, "videos done"),
        (numbers.processed_share, f"processed · run {run.status}"),
        (format_number(totals.videos_per_minute, 1), "videos per minute"),
        (format_number(totals.segments_per_second, 1), "segments per second"),
        (speed, f"real time, {span}"),
        (to_go if running else "–", "to go"),
        (f"{numbers.videos_failed:,}", "videos failed permanently"),
    ]
    tables = (_language_table(snapshot.languages, running), _error_table(snapshot.errors))
    return page.with_styles(page.join(page.cards(cards), *tables))


def _language_table(languages: Sequence[LanguageSnapshot], running: bool) -> Html:
    rows = [
        [
            language.language,
            _bar(language),
            numbers.processed_share,
            numbers.done,
            f"{numbers.videos_failed:,}",
            numbers.kept,
            format_number(language.rate, 1),
            format_duration(language.eta_s) if running and language.eta_s else "–",
        ]
        for language in languages
        for numbers in [RunNumbers.of_ledger(language)]
    ]
    head = ["language", "", "processed", "videos done", "failed", "segments kept", "videos/min", "to go"]
    return page.table(head, rows, "ll")


def _bar(language: LanguageSnapshot) -> Html:
    total = max(language.total_videos, 1)
    return page.bar([((language.processed - language.failed) / total, KEPT), (language.failed / total, BAD)])


def _error_table(errors: Sequence[ErrorRow]) -> Html:
    """Render the last few errors; the progress report has all."""
    if not errors:
        return page.note("No errors so far.")
    rows = [
        [
            (error.created_at or "")[11:19],
            error.error_type,
            error.video_id or error.shard or "",
            (error.error_message or "")[:160],
        ]
        for error in errors[:5]
    ]
    return page.table(["last errors (UTC)", "error", "video or shard", "message"], rows, "lllw")


def render_result(summary: RunSummary) -> Html:
    """Render the result of a run in words and in numbers."""
    total, new, problem = summary.total, summary.new, describe_problem(summary)
    numbers = RunNumbers.of_totals(total)
    if problem:
        verdict = page.verdict(
            "bad", ["Not finished." if summary.status is not RunStatus.DONE else "Failed.", esc(problem) + "."]
        )
    elif not new.shards:
        verdict = page.verdict(
            "good", [f"Nothing to do: all {pluralize(total.shards, 'shard')} were committed before."]
        )
    elif total.videos_failed:
        failed = (
            f"{pluralize(total.videos_failed, 'video')} failed permanently; see the progress report for the reasons."
        )
        verdict = page.verdict("good", ["Done: every planned shard is committed.", failed])
    else:
        verdict = page.verdict("good", ["Done: every planned shard is committed, and no video failed."])
    cards = [
        (numbers.done, "videos done"),
        (f"{numbers.videos_failed:,}", "videos failed permanently"),
        (numbers.kept_share, f"kept of {pluralize(numbers.segments, 'segment')}"),
        (f"{numbers.hours_kept} h", f"kept of {numbers.hours} h"),
        (format_bytes(total.bytes_out), "written"),
        (numbers.times_real_time, f"real time, in {format_duration(numbers.busy_s)} of work"),
        (format_duration(summary.wall_s), "duration of this session"),
    ]
    about = page.embed_metadata({"run_id": summary.run_id, "state": str(summary.status), **numbers.index_values()})
    return page.with_styles(page.join(verdict, page.cards(cards), _reasons(summary), about))


def _reasons(summary: RunSummary) -> Html:
    """Render the reasons why segments were dropped and videos failed."""
    total = summary.total
    drops = [
        [humanize(reason), page.bar([(count / max(total.drops.values()), DROPPED)]), f"{count:,}"]
        for reason, count in total.drops.most_common()
    ]
    failures = [
        [kind, page.bar([(count / max(total.errors.values()), BAD)]), f"{count:,}"]
        for kind, count in total.errors.most_common()
    ]
    pieces = []
    if drops:
        pieces.append(page.table(["segments dropped because", "", "segments"], drops, "ll"))
    if failures:
        pieces.append(page.table(["videos failed because", "", "videos"], failures, "ll"))
    return page.join(*pieces)
