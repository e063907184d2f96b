"""Summarize the result of a run in a few lines of text, as the command and `make demo` print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audiopipe.ledger import RunStatus, default_path
from audiopipe.pipeline.drop_rules import RULES
from audiopipe.report.numbers import RunNumbers, format_hours, format_times
from audiopipe.report.stages import find_bottleneck, sort_stages
from audiopipe.report.text import (
    format_bytes,
    format_counts,
    format_duration,
    format_percent,
    pluralize,
)
from audiopipe.segment.drop_reasons import TOO_LONG, TOO_SHORT

if TYPE_CHECKING:
    from audiopipe.dataset.totals import Totals
    from audiopipe.driver.run import RunSummary

__all__ = ["describe_nothing_kept", "describe_problem", "summary_lines"]


def summary_lines(summary: RunSummary) -> list[str]:
    """Return five lines (videos, segments, speed, stages, places), and more for reads of a parent, retired workers and
    for a problem.
    """
    total, numbers = summary.total, RunNumbers.of_totals(summary.total)
    lines = [
        f"videos    {numbers.videos_done:,} done" + _format_reasons(total.videos_failed, "failed", total.errors),
        f"segments  {numbers.segments_kept:,} kept ({numbers.kept_share})"
        + _format_reasons(total.segments - total.segments_kept, "dropped", total.drops),
        f"speed     {_speed(summary)}",
        f"stages    {_stages(summary.new if summary.new.shards else total)}",
        f"where     shards {summary.output} · ledger {default_path(summary.output)}",
    ]
    if requests := summary.new.stage_items.get("copy"):
        lines.append(f"copied    {format_bytes(summary.new.bytes_in)} by {pluralize(requests, 'read')} of the parent")
    lines += [f"retired   worker {worker}: {reason}" for worker, reason in summary.workers_retired.items()]
    label = "NOT DONE" if summary.status is not RunStatus.DONE else "FAILED  "
    if warning := describe_nothing_kept(total):
        lines.append(f"WARNING   {warning}")
    problem = describe_problem(summary)
    return [*lines, f"{label}  {problem}"] if problem else lines


def describe_nothing_kept(total: Totals) -> str | None:
    """Return why no segment was kept, and what to change; None if some were, or if no video could be processed."""
    if total.segments_kept or not total.videos_done:
        return None
    if not total.segments:
        return "no segment was found: check the times in the JSON or captions, or choose other --segments"
    reason, count = total.drops.most_common(1)[0] if total.drops else ("unknown", total.segments)
    field = {rule.reason: rule.field for rule in RULES} | {TOO_SHORT: "min_segment_s", TOO_LONG: "max_segment_s"}
    text = f"no segment was kept. The most frequent reason is {reason} ({count:,} of {total.segments:,}): "
    if reason in field:
        switch = " ('none' switches it off)" if reason not in (TOO_SHORT, TOO_LONG) else ""
        return f"{text}run into another output with another --{field[reason].replace('_', '-')}{switch}"
    if reason.isidentifier():
        return f"{text}`audiopipe explain {reason}` says what to do"
    return f"{text}run into another output with another --keep-if"


def describe_problem(summary: RunSummary) -> str | None:
    """Return what is missing, or that too many videos failed, and what to do about it; None if the run is done."""
    if summary.status is RunStatus.DONE:
        return _describe_failed_videos(summary) if summary.has_too_many_failed else None
    missing = summary.shards_planned - summary.total.shards
    text = f"{missing:,} of {pluralize(summary.shards_planned, 'shard')} not committed"
    if summary.shards_failed:
        shard, reason = next(iter(summary.shards_failed.items()))
        text += f"; {len(summary.shards_failed):,} failed, the first is {shard}"
        text += "" if summary.stopped and reason in summary.stopped else f": {reason}"
    if summary.stopped:
        text += f"; the run stopped early: {summary.stopped}"
    action = "correct this, then run the same" if summary.needs_person else "run the same again"
    return f"{text}. Committed shards stay: {action} to resume"


def _describe_failed_videos(summary: RunSummary) -> str:
    """Name the most frequent reason of the dead letters."""
    total = summary.total
    text = (
        f"{total.videos_failed:,} of {pluralize(total.videos, 'video')} failed, more than max_failed_share "
        f"({summary.max_failed_share:g})"
    )
    if total.errors:
        reason, count = total.errors.most_common(1)[0]
        text += f"; the most frequent reason is {reason} ({count:,}): `audiopipe explain {reason}` says what to do"
    return text


def _format_reasons(count: int, outcome: str, reasons: dict[str, int]) -> str:
    if not count:
        return f", none {outcome}"
    return f", {count:,} {outcome}: {format_counts(reasons)}" if reasons else f", {count:,} {outcome}"


def _speed(summary: RunSummary) -> str:
    total, new = summary.total, summary.new
    if not new.shards:
        if summary.status is not RunStatus.DONE:
            return f"no shard was committed in {format_duration(summary.wall_s)}"
        return (
            f"nothing to do: all {pluralize(total.shards, 'shard')} were committed before "
            f"({format_hours(total.audio_s)} h of audio, {format_bytes(total.bytes_out)})"
        )
    earlier = total.shards - new.shards
    text = f"{format_hours(new.audio_s)} h of audio in {format_duration(new.busy_s)} of work: "
    text += f"{format_times(new.audio_s, new.busy_s)} real time; the session took {format_duration(summary.wall_s)}"
    return f"{text} ({pluralize(earlier, 'shard')} of {total.shards:,} committed before)" if earlier else text


def _stages(totals: Totals) -> str:
    seconds = sort_stages(totals.stage_s)
    slowest = find_bottleneck(seconds)
    if slowest is None:
        return "no time was recorded"
    parts = [f"{stage} {format_duration(spent_s)}" for stage, spent_s in seconds.items()]
    share = format_percent(seconds[slowest], sum(seconds.values()))
    return ", ".join(parts) + f"; bottleneck: {slowest} ({share} of the work)"
