"""Render a run in tables: its languages, its workers, its errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from audiopipe.ledger import ErrorRow, Role
from audiopipe.ledger.snapshot import LanguageSnapshot, WorkerSnapshot
from audiopipe.report import page
from audiopipe.report.figure import BAD, DROPPED, KEPT
from audiopipe.report.numbers import RunNumbers
from audiopipe.report.page import Html, esc
from audiopipe.report.progress import RunReport
from audiopipe.report.quality import remedy
from audiopipe.report.text import format_bytes, format_duration, format_number

__all__ = ["errors", "languages", "workers"]

EXAMPLES = 3


def languages(run_report: RunReport) -> Html:
    """Render the progress of each language."""
    rows = [_language_cells(language) for language in run_report.snapshot.languages]
    head = ["language", "videos", "done", "failed", "segments", "kept", "hours kept", "shards"]
    key = page.legend({"done, kept": KEPT, "failed": BAD, "dropped": DROPPED})
    return page.join(page.table(head, rows, "ll  l"), key)


def _language_cells(language: LanguageSnapshot) -> list[str | Html]:
    done = _share(language.processed - language.failed, language.total_videos)
    failed = _share(language.failed, language.total_videos)
    numbers = RunNumbers.of_ledger(language)
    kept, dropped = _share(language.kept, language.segments), 1 - _share(language.kept, language.segments, 1)
    return [
        language.language,
        page.bar([(done, KEPT), (failed, BAD)]),
        numbers.done,
        f"{numbers.videos_failed:,}",
        page.bar([(kept, KEPT), (dropped, DROPPED)]),
        numbers.kept,
        numbers.hours_kept,
        f"{language.shards_done:,} / {language.total_shards:,}",
    ]


def _share(part: float, whole: float, empty: float = 0.0) -> float:
    return part / whole if whole else empty


def workers(run_report: RunReport) -> Html:
    """Render the last reported state of the drivers and workers."""
    rows = [_worker_cells(worker) for worker in [*run_report.snapshot.drivers, *run_report.snapshot.workers]]
    if not rows:
        return page.note("No worker has reported yet.")
    head = ["worker", "status", "videos", "segments", "segments/s", "CPU", "GPU", "memory", "last heartbeat"]
    return page.table(head, rows, "ll")


def _worker_cells(worker: WorkerSnapshot) -> list[str | Html]:
    is_driver = worker.role is Role.DRIVER
    return [
        worker.worker_id + (" (driver)" if is_driver else ""),
        Html(f'<span style="color:{BAD}">✕ stale</span>') if worker.stale else str(worker.status),
        f"{worker.videos_processed:,}",
        f"{worker.segments_processed:,}",
        format_number(worker.segments_per_second, 1),
        "–" if is_driver else f"{format_number(worker.cpu_utilization)} %",
        f"{format_number(worker.gpu_utilization)} %" if worker.gpu_memory_bytes else "–",
        format_bytes(worker.memory_bytes) if worker.memory_bytes else "–",
        f"{format_duration(worker.age_s)} ago",
    ]


def errors(run_report: RunReport) -> Html:
    """Render the videos that failed permanently and the failed attempts at shards, by kind, with examples."""
    dead_letters = [error for error in run_report.errors if error.video_id]
    failures = [error for error in run_report.errors if not error.video_id]
    pieces = [Html(f"<h4>Videos that failed permanently: {len(dead_letters):,}</h4>")]
    pieces.append(_kinds_table(dead_letters, "video") if dead_letters else page.note("None."))
    pieces.append(Html(f"<h4>Failed attempts at shards: {len(failures):,}</h4>"))
    pieces.append(_kinds_table(failures, "shard") if failures else page.note("None: no shard had to be repeated."))
    return page.join(*pieces)


def _kinds_table(all_errors: Sequence[ErrorRow], subject: str) -> Html:
    """Render one row for each kind of error, the most frequent first."""
    counts = Counter(error.error_type for error in all_errors)
    rows = []
    for kind, count in counts.most_common():
        group = [error for error in all_errors if error.error_type == kind]
        stages = ", ".join(sorted({error.stage or "driver" for error in group}))
        examples = "<br>".join(_example(error, subject) for error in group[:EXAMPLES])
        examples += f"<br><small>What to do: {page.inline_code(remedy(str(kind))).markup}.</small>"
        rows.append([kind, f"{count:,}", stages, Html(examples)])
    return page.table(["error", "count", "stage", "examples"], rows, "l lw")


def _example(error: ErrorRow, subject: str) -> str:
    name = error.video_id if subject == "video" else f"{error.shard}, attempt {error.attempt}"
    message = (error.error_message or "").strip().splitlines() or ["no message"]
    return f"<code>{esc(name)}</code> {esc(message[0][:240])}"
