"""What `run.ipynb` shows: the plan before, progress during, the summary after."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from audiopipe.config import RunConfig
from audiopipe.plan.plan import Plan
from audiopipe.report import page
from audiopipe.report.figure import BAD, DROPPED, KEPT
from audiopipe.report.page import Html, esc
from audiopipe.report.quality import counts
from audiopipe.report.summary import unfinished
from audiopipe.report.text import format_bytes, format_duration, humanize, number, percent, plural

if TYPE_CHECKING:
    from audiopipe.driver.run import RunSummary

__all__ = ["area", "ending", "plan_table"]


def plan_table(plan: Plan, config: RunConfig, committed: Collection[str]) -> Html:
    """Videos, shards, hours and bytes of each language, and what of it is done already."""
    totals = plan.totals(config.partition_index)
    done = {name: sum(shard.startswith(f"{name}-") for shard in committed) for name in totals}
    rows = [
        [
            name,
            f"{total.videos:,}",
            f"{total.shards:,}",
            f"{done[name]:,}" if config.partition_count == 1 else "–",
            _known(number(total.hours, 2), total.timed, total.videos),
            _known(format_bytes(total.size_bytes), total.sized, total.videos),
        ]
        for name, total in totals.items()
    ]
    head = ["language", "videos", "shards", "committed before", "hours of audio", "to read"]
    everything = list(totals.values())
    last = [
        "all",
        f"{sum(total.videos for total in everything):,}",
        f"{sum(total.shards for total in everything):,}",
        f"{sum(done.values()):,}" if config.partition_count == 1 else "–",
        number(sum(total.hours for total in everything), 2),
        format_bytes(sum(total.size_bytes for total in everything)),
    ]
    note = "≥: not every video's length or size is in the catalogue. Committed shards are not done again."
    where = f"From <code>{esc(config.catalog)}</code> to <code>{esc(config.output)}</code>"
    if config.partition_count > 1:
        where += f", partition {config.partition_index} of {config.partition_count}"
    return page.join(Html(f"<p>{where}.</p>"), page.table(head, rows, "l", last), page.note(note))


def _known(text: str, known: int, of: int) -> str:
    return text if known == of else f"≥ {text}" if known else "unknown"


def area(snapshot: dict[str, Any]) -> Html:
    """Progress, from `monitor.snapshot`."""
    if snapshot["run"] is None:
        return Html("<p>The ledger does not know the run yet.</p>")
    totals, run = snapshot["totals"], snapshot["run"]
    running = run["status"] == "running"
    left = snapshot["eta"]
    cards = [
        (f"{totals['processed']:,} / {totals['total_videos']:,}", f"videos · {run['status']}"),
        (f"{number(totals['videos_per_minute'], 1)}", "videos per minute"),
        (f"{number(totals['segments_per_second'], 1)}", "segments per second"),
        (f"{number(totals['times_real_time'])} x", "real time"),
        (_left(left) if running else "–", "to go"),
        (f"{totals['failed']:,}", "videos failed for good"),
    ]
    return page.styled(
        page.join(page.cards(cards), _languages(snapshot["languages"], running), _errors(snapshot["errors"]))
    )


def _left(expected: dict[str, Any] | None) -> str:
    return format_duration(expected["seconds"]) if expected else "…"


def _languages(rows: list[dict[str, Any]], running: bool) -> Html:
    cells = [
        [
            row["language"],
            _bar(row),
            percent(row["processed"], row["total_videos"]),
            f"{row['processed']:,} / {row['total_videos']:,}",
            f"{row['failed']:,}",
            f"{row['kept']:,} / {row['segments']:,}",
            number(row["rate"], 1),
            format_duration(row["eta_s"]) if running and row["eta_s"] else "–",
        ]
        for row in rows
    ]
    head = ["language", "", "", "videos", "failed", "segments kept", "videos/min", "to go"]
    return page.table(head, cells, "ll")


def _bar(row: dict[str, Any]) -> Html:
    total = max(row["total_videos"], 1)
    return page.bar([((row["processed"] - row["failed"]) / total, KEPT), (row["failed"] / total, BAD)])


def _errors(rows: list[dict[str, Any]]) -> Html:
    """The last few errors; the progress report has all."""
    if not rows:
        return page.note("No errors so far.")
    cells = [
        [
            (row["created_at"] or "")[11:19],
            row["error_type"],
            row["video_id"] or row["shard"] or "",
            (row["error_message"] or "")[:160],
        ]
        for row in rows[:5]
    ]
    return page.table(["last errors (UTC)", "kind", "video or shard", "message"], cells, "lllw")


def ending(summary: RunSummary) -> Html:
    """How a run ended: in words and in numbers."""
    total, new, problem = summary.total, summary.new, unfinished(summary)
    if problem:
        words = page.verdict("bad", ["Not finished.", esc(problem) + "."])
    elif not new.shards:
        words = page.verdict("good", [f"Nothing to do: all {plural(total.shards, 'shard')} were committed before."])
    elif total.videos_failed:
        told = f"{plural(total.videos_failed, 'video')} cannot be processed as they are; the progress report says why."
        words = page.verdict("good", ["Done: every planned shard is committed.", told])
    else:
        words = page.verdict("good", ["Done: every planned shard is committed, and no video failed."])
    cards = [
        (f"{total.videos - total.videos_failed:,} / {total.videos:,}", "videos done"),
        (percent(total.segments_kept, total.segments), f"kept of {total.segments:,} segments"),
        (f"{number(total.kept_s / 3600, 2)} h", f"kept of {number(total.audio_s / 3600, 2)} h"),
        (format_bytes(total.bytes_out), "written"),
        (f"{number(new.audio_s / summary.wall_s)} x" if new.shards else "–", "real time, this session"),
        (format_duration(summary.wall_s), "this session took"),
    ]
    about = page.facts({"run_id": summary.run_id, "state": str(summary.status), **counts(total)})
    return page.styled(page.join(words, page.cards(cards), _reasons(summary), about))


def _reasons(summary: RunSummary) -> Html:
    """Why segments were dropped and videos failed."""
    total = summary.total
    drops = [
        [humanize(reason), page.bar([(count / max(total.drops.values()), DROPPED)]), f"{count:,}"]
        for reason, count in total.drops.most_common()
    ]
    fails = [
        [kind, page.bar([(count / max(total.errors.values()), BAD)]), f"{count:,}"]
        for kind, count in total.errors.most_common()
    ]
    pieces = []
    if drops:
        pieces.append(page.table(["segments dropped because", "", "segments"], drops, "ll"))
    if fails:
        pieces.append(page.table(["videos failed because", "", "videos"], fails, "ll"))
    return page.join(*pieces)
