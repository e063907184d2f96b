"""A run in tables: its languages, its workers, its errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from audiopipe.ledger import ErrorRow
from audiopipe.report import page
from audiopipe.report.figure import BAD, DROPPED, KEPT
from audiopipe.report.page import Html, esc
from audiopipe.report.progress import RunReport
from audiopipe.report.quality import remedy
from audiopipe.report.text import format_bytes, format_duration, number

__all__ = ["languages", "troubles", "workers"]

EXAMPLES = 3


def languages(run_report: RunReport) -> Html:
    """What is done in each language."""
    rows = [
        [
            row["language"],
            page.bar(
                [
                    (_share(row["processed"] - row["failed"], row["total_videos"]), KEPT),
                    (_share(row["failed"], row["total_videos"]), BAD),
                ]
            ),
            f"{row['processed']:,} / {row['total_videos']:,}",
            f"{row['failed']:,}",
            page.bar(
                [(_share(row["kept"], row["segments"]), KEPT), (1 - _share(row["kept"], row["segments"], 1), DROPPED)]
            ),
            f"{row['kept']:,} / {row['segments']:,}",
            number(row["kept_s"] / 3600, 2),
            f"{row['shards_done']:,} / {row['total_shards']:,}",
        ]
        for row in run_report.snapshot["languages"]
    ]
    head = ["language", "videos", "done", "failed", "segments", "kept", "hours kept", "shards"]
    key = page.legend({"done, kept": KEPT, "failed": BAD, "dropped": DROPPED})
    return page.join(page.table(head, rows, "ll  l"), key)


def _share(part: float, whole: float, empty: float = 0.0) -> float:
    return part / whole if whole else empty


def workers(run_report: RunReport) -> Html:
    """The workers and drivers as they last reported."""
    rows = [
        [
            row["worker_id"] + (" (driver)" if row["role"] == "driver" else ""),
            Html(f'<span style="color:{BAD}">✕ silent</span>') if row["stale"] else row["status"],
            f"{row['videos_processed']:,}",
            f"{row['segments_processed']:,}",
            number(row["segments_per_second"], 1),
            f"{number(row['cpu_utilization'])} %" if row["role"] == "worker" else "–",
            f"{number(row['gpu_utilization'])} %" if row["gpu_memory_bytes"] else "–",
            format_bytes(row["memory_bytes"]) if row["memory_bytes"] else "–",
            f"{format_duration(row['age_s'])} ago",
        ]
        for row in [*run_report.snapshot["drivers"], *run_report.snapshot["workers"]]
    ]
    head = ["worker", "state", "videos", "segments", "segments/s", "CPU", "GPU", "memory", "last heard"]
    if not rows:
        return page.note("No worker has reported yet.")
    return page.table(head, rows, "ll")


def troubles(run_report: RunReport) -> Html:
    """Videos that failed for good, and attempts at shards that came to nothing, by kind, with examples."""
    letters = [error for error in run_report.errors if error.video_id]
    tries = [error for error in run_report.errors if not error.video_id]
    pieces = [Html(f"<h4>Videos that failed for good: {len(letters):,}</h4>")]
    pieces.append(_kinds(letters, "video") if letters else page.note("None."))
    pieces.append(Html(f"<h4>Attempts at shards that came to nothing: {len(tries):,}</h4>"))
    pieces.append(_kinds(tries, "shard") if tries else page.note("None: no shard had to be tried twice."))
    return page.join(*pieces)


def _kinds(errors: Sequence[ErrorRow], named: str) -> Html:
    """One row a kind of error, the most frequent first."""
    counts = Counter(error.error_type for error in errors)
    rows = []
    for kind, count in counts.most_common():
        some = [error for error in errors if error.error_type == kind]
        where = ", ".join(sorted({error.stage or "driver" for error in some}))
        examples = "<br>".join(_example(error, named) for error in some[:EXAMPLES])
        examples += f"<br><small>What to do: {page.prose(remedy(str(kind))).markup}.</small>"
        rows.append([kind, f"{count:,}", where, Html(examples)])
    return page.table(["kind", "count", "stage", "examples"], rows, "l lw")


def _example(error: ErrorRow, named: str) -> str:
    name = error.video_id if named == "video" else f"{error.shard}, try {error.attempt}"
    message = (error.error_message or "").strip().splitlines() or ["no message"]
    return f"<code>{esc(name)}</code> {esc(message[0][:240])}"
