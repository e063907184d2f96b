"""A run's end in a few lines of text: what the command and `make demo` print."""

from __future__ import annotations

from typing import TYPE_CHECKING

from audiopipe.ledger import RunStatus, default_path
from audiopipe.report.stages import bottleneck, ordered
from audiopipe.report.text import format_bytes, format_counts, format_duration, number, percent, plural, speed

if TYPE_CHECKING:
    from audiopipe.dataset.totals import Totals
    from audiopipe.driver.run import RunSummary

__all__ = ["summary_lines", "unfinished"]


def summary_lines(summary: RunSummary) -> list[str]:
    """Videos, segments, speed, stages, places: five lines, and a sixth if the run is not finished."""
    total = summary.total
    lines = [
        f"videos    {total.videos - total.videos_failed:,} done{_because(total.videos_failed, 'failed', total.errors)}",
        f"segments  {total.segments_kept:,} kept ({percent(total.segments_kept, total.segments)})"
        + _because(total.segments - total.segments_kept, "dropped", total.drops),
        f"speed     {_speed(summary)}",
        f"stages    {_stages(summary.new if summary.new.shards else total)}",
        f"where     shards {summary.output} · ledger {default_path(summary.output)}",
    ]
    problem = unfinished(summary)
    return [*lines, f"NOT DONE  {problem}"] if problem else lines


def unfinished(summary: RunSummary) -> str | None:
    """What is missing and what to do about it; None if nothing is."""
    if summary.status is RunStatus.DONE:
        return None
    missing = summary.shards_planned - summary.total.shards
    text = f"{missing:,} of {plural(summary.shards_planned, 'shard')} not committed"
    if summary.shards_failed:
        shard, why = next(iter(summary.shards_failed.items()))
        text += f"; {len(summary.shards_failed):,} failed after all retries, the first: {shard}: {why}"
    return f"{text}. What is committed stays: run the same again to go on"


def _because(count: int, what: str, reasons: dict[str, int]) -> str:
    if not count:
        return f", none {what}"
    return f", {count:,} {what}: {format_counts(reasons)}" if reasons else f", {count:,} {what}"


def _speed(summary: RunSummary) -> str:
    total, new = summary.total, summary.new
    if not new.shards:
        if summary.status is not RunStatus.DONE:
            return f"nothing was committed in {format_duration(summary.wall_s)}"
        return (
            f"nothing to do: all {plural(total.shards, 'shard')} were committed before "
            f"({number(total.audio_s / 3600, 2)} h of audio, {format_bytes(total.bytes_out)})"
        )
    before = total.shards - new.shards
    text = f"{number(new.audio_s / 3600, 2)} h of audio in {format_duration(summary.wall_s)}: {speed(new.audio_s, summary.wall_s)}"
    return f"{text} ({plural(before, 'shard')} of {total.shards:,} committed before)" if before else text


def _stages(totals: Totals) -> str:
    seconds = ordered(totals.stage_s)
    most = bottleneck(seconds)
    if most is None:
        return "no time was recorded"
    told = [f"{stage} {format_duration(spent)}" for stage, spent in seconds.items()]
    return ", ".join(told) + f"; bottleneck: {most} ({percent(seconds[most], sum(seconds.values()))} of the work)"
