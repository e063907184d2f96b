"""A run's ledger in Supabase, for looking at it from any machine: all drivers of the run, during it and after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NoReturn, Self, TypeVar

from audiopipe.errors import LedgerError
from audiopipe.ledger import rates
from audiopipe.ledger.rows import (
    ErrorRow,
    LanguageProgress,
    RunProgress,
    RunRow,
    RunRows,
    ShardRow,
    WorkerRow,
    describe_unknown_run,
)
from audiopipe.ledger.supabase_client import PAGE, SupabaseClient, SupabaseError

__all__ = ["SupabaseReader"]

T = TypeVar("T")

RATE_COLUMNS = "shard,language,status,videos,segments,finished_at"


class SupabaseReader:
    """`Ledger` for looking at runs in Supabase, from any machine. Writing raises `LedgerError`."""

    def __init__(self, supabase: SupabaseClient | None = None) -> None:
        self._supabase = supabase or SupabaseClient()
        self._known_runs: set[str] = set()
        try:
            # Asked for at the start, so that a wrong key or a missing table or function is told of at once.
            self.run_rows(shards=0, errors=0)
        except LedgerError:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"SupabaseReader({self._supabase.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._supabase.close()

    def runs(self) -> list[RunRow]:
        return [
            RunRow.from_row(row) for row in self._select("pipeline_runs", lambda q: q.order("started_at", desc=True))
        ]

    def run(self, run_id: str | None = None) -> RunRow | None:
        def shape(query: Any) -> Any:
            chosen = query if run_id is None else query.eq("run_id", run_id)
            return chosen.order("started_at", desc=True).limit(1)

        return next((RunRow.from_row(row) for row in self._select("pipeline_runs", shape)), None)

    def run_rows(self, run_id: str | None = None, shards: int = rates.RECENT_SHARDS, errors: int = 8) -> RunRows | None:
        seen = self._call(
            lambda: self._supabase.rpc("monitor_snapshot", run_id=run_id, shards=min(shards, PAGE), errors=errors)
        )
        return None if seen is None else RunRows.of(seen)

    def progress(self, run_id: str) -> RunProgress:
        self._require_run(run_id)
        return RunProgress.from_row(self._select("run_progress", lambda query: query.eq("run_id", run_id))[0])

    def languages(self, run_id: str) -> list[LanguageProgress]:
        self._require_run(run_id)
        run = self.run(run_id)
        assert run is not None
        seen = rates.select_window(
            run, self._newest_shards(run_id, rates.RECENT_SHARDS, RATE_COLUMNS), datetime.now(UTC)
        )
        rows = [
            LanguageProgress.from_row(row)
            for row in self._call(lambda: self._supabase.rpc("progress_by_language", run_id=run_id))
        ]
        return [replace(row, rate=seen.videos_per_minute(row.language)) for row in rows]

    def workers(self, run_id: str) -> list[WorkerRow]:
        return [WorkerRow.from_row(row) for row in self._read_all("worker_progress", "worker_id", run_id)]

    def shards(self, run_id: str, limit: int | None = None) -> list[ShardRow]:
        if limit is None:
            return [ShardRow.from_row(row) for row in self._read_all("shards", "shard", run_id)]

        self._require_run(run_id)
        return self._newest_shards(run_id, limit)

    def errors(self, run_id: str, limit: int = 100) -> list[ErrorRow]:
        self._require_run(run_id)
        found: list[dict[str, Any]] = []
        while page := self._older_errors(run_id, found[-1]["id"] if found else None, limit - len(found)):
            found += page
        return [ErrorRow.from_row(row) for row in found]

    def start_run(self, *_: Any, **__: Any) -> NoReturn:
        self._read_only()

    def record_shard(self, *_: Any, **__: Any) -> NoReturn:
        self._read_only()

    def record_failure(self, *_: Any, **__: Any) -> NoReturn:
        self._read_only()

    def heartbeat(self, *_: Any, **__: Any) -> NoReturn:
        self._read_only()

    def finish_run(self, *_: Any, **__: Any) -> NoReturn:
        self._read_only()

    def _read_only(self) -> NoReturn:
        raise LedgerError(f"{self!r} was opened for reading alone")

    def _newest_shards(self, run_id: str, limit: int, columns: str = "*") -> list[ShardRow]:
        def shape(query: Any) -> Any:
            chosen = query.eq("run_id", run_id).order("finished_at", desc=True, nullsfirst=False)
            return chosen.order("shard").limit(min(limit, PAGE))

        return [ShardRow.from_row(row) for row in self._select("shards", shape, columns)]

    def _older_errors(self, run_id: str, before: int | None, limit: int) -> list[dict[str, Any]]:
        def shape(query: Any) -> Any:
            chosen = query.eq("run_id", run_id).order("id", desc=True).limit(min(limit, PAGE))
            return chosen if before is None else chosen.lt("id", before)

        return self._select("processing_errors", shape) if limit > 0 else []

    def _require_run(self, run_id: str) -> None:
        """Raise `LedgerError` for a run that is not there. Runs stay, so each is asked for once."""
        if run_id not in self._known_runs and self.run(run_id) is None:
            raise LedgerError(describe_unknown_run(self._supabase.url, run_id, self.runs()))
        self._known_runs.add(run_id)

    def _select(self, table: str, shape: Callable[[Any], Any], columns: str = "*") -> list[dict[str, Any]]:
        return self._call(lambda: self._supabase.select(table, columns, shape))

    def _read_all(self, table: str, key: str, run_id: str) -> list[dict[str, Any]]:
        self._require_run(run_id)

        def every_page() -> list[dict[str, Any]]:
            pages = self._supabase.pages(table, key, lambda query: query.eq("run_id", run_id))
            return [row for page in pages for row in page]

        return self._call(every_page)

    def _call(self, question: Callable[[], T]) -> T:
        try:
            return question()
        except SupabaseError as error:
            raise LedgerError(str(error)) from None
