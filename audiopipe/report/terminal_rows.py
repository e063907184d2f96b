"""Choose the rows that the terminal monitor shows: all of them, or as many as fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from audiopipe.ledger import Role
from audiopipe.ledger.snapshot import LanguageSnapshot, RunSnapshot, WorkerSnapshot

__all__ = ["fold_languages", "list_reporters", "share_rows"]

MIN_ROWS = 4  # of languages and of workers, whatever the height of the terminal


def list_reporters(snapshot: RunSnapshot) -> list[WorkerSnapshot]:
    """List the drivers that have not left, each followed by its workers, the stale ones first."""
    reporters = [*snapshot.drivers, *snapshot.workers]
    return sorted((reporter for reporter in reporters if not reporter.past), key=_worker_order)


def _worker_order(worker: WorkerSnapshot) -> tuple[str, bool, bool, str]:
    return worker.driver, worker.role is not Role.DRIVER, not worker.stale, worker.worker_id


def share_rows(rows: int, languages: int, workers: int) -> tuple[int, int]:
    """Return how many languages and workers to show in a number of rows: all, or two thirds and one third of them."""
    if languages + workers <= rows:
        return languages, workers
    few_workers = min(workers, max(MIN_ROWS, rows // 3))
    few_languages = min(languages, max(MIN_ROWS, rows - few_workers))
    return few_languages, min(workers, max(MIN_ROWS, rows - few_languages))


def fold_languages(languages: Sequence[LanguageSnapshot], limit: int) -> list[LanguageSnapshot]:
    """Return the languages to show: those in progress with most to do, and the sum of the others as the last row."""
    if len(languages) <= limit:
        return list(languages)
    ordered = sorted(languages, key=lambda item: (item.rate <= 0, item.processed - item.total_videos, item.language))
    shown = {language.language for language in ordered[: limit - 1]}
    others = [language for language in languages if language.language not in shown]
    return [*(language for language in languages if language.language in shown), _sum_up(others)]


def _sum_up(languages: Sequence[LanguageSnapshot]) -> LanguageSnapshot:
    """Sum up languages; the last of them ends last."""
    ends = [language.eta_s for language in languages if language.processed < language.total_videos]
    known = [end for end in ends if end is not None]
    return replace(
        languages[0],
        language=f"{len(languages)} others",
        total_videos=sum(language.total_videos for language in languages),
        total_shards=sum(language.total_shards for language in languages),
        processed=sum(language.processed for language in languages),
        failed=sum(language.failed for language in languages),
        shards_done=sum(language.shards_done for language in languages),
        segments=sum(language.segments for language in languages),
        kept=sum(language.kept for language in languages),
        audio_s=sum(language.audio_s for language in languages),
        kept_s=sum(language.kept_s for language in languages),
        rate=sum(language.rate for language in languages),
        eta_s=max(known) if len(known) == len(ends) and known else None,
    )
