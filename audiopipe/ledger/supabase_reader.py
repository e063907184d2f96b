"""Read the ledger of a run in Supabase, from any machine, with all drivers of the run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import NoReturn, Self, TypeVar

from audiopipe.errors import LedgerError
from audiopipe.ledger.rates import RECENT_SHARDS, select_window
from audiopipe.ledger.record import RowValues
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
from audiopipe.ledger.supabase_client import MIGRATIONS, PAGE, Query, QueryFilter, SupabaseClient, SupabaseError

__all__ = ["SupabaseReader"]

T = TypeVar("T")

RATE_COLUMNS = "shard,language,status,videos,segments,finished_at"


class SupabaseReader:
    """A read-only `Ledger` in Supabase; its writing methods raise `LedgerError`.

    Raises:
        LedgerError: the key is wrong, a table or function is missing, or the user has no permission to read.
    """

    def __init__(self, supabase: SupabaseClient | None = None) -> None:
        self._supabase = supabase or SupabaseClient()
        self._known_runs: set[str] = set()
        try:
            # Queried once, so that a wrong key or a missing table or function is reported at the start.
            if self.run_rows(shards=0, errors=0) is None and self._supabase.obeys_policies:
                self._check_permission()
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

    def _check_permission(self) -> None:
        """Tell hidden runs from no runs: row level security answers both with no rows."""
        if self._call(lambda: self._supabase.rpc("may_read_ledger")) is not True:
            raise LedgerError(
                f"{self._supabase.url} shows no run: row level security hides the ledger from this user, who needs the "
                'claim app_metadata.audiopipe = "reader" (cluster/supabase/README.md) and then a new '
                "SUPABASE_ACCESS_TOKEN"
            )

    def runs(self) -> list[RunRow]:
        return [
            RunRow.from_row(row) for row in self._select("pipeline_runs", lambda q: q.order("started_at", desc=True))
        ]

    def run(self, run_id: str | None = None) -> RunRow | None:
        def refine(query: Query) -> Query:
            selected = query if run_id is None else query.eq("run_id", run_id)
            return selected.order("started_at", desc=True).limit(1)

        return next((RunRow.from_row(row) for row in self._select("pipeline_runs", refine)), None)

    def run_rows(self, run_id: str | None = None, shards: int = RECENT_SHARDS, errors: int = 8) -> RunRows | None:
        body = self._call(
            lambda: self._supabase.rpc("monitor_snapshot", run_id=run_id, shards=min(shards, PAGE), errors=errors)
        )
        try:
            return None if body is None else RunRows.from_json(body)
        except KeyError as error:
            raise LedgerError(
                f"{self._supabase.url} has the function monitor_snapshot of another version, without {error}: apply "
                f"{MIGRATIONS} with psql, which replaces its functions"
            ) from None

    def progress(self, run_id: str) -> RunProgress:
        self._require_run(run_id)
        return RunProgress.from_row(self._select("run_progress", lambda query: query.eq("run_id", run_id))[0])

    def languages(self, run_id: str) -> list[LanguageProgress]:
        self._require_run(run_id)
        run = self.run(run_id)
        assert run is not None
        window = select_window(run, self._newest_shards(run_id, RECENT_SHARDS, RATE_COLUMNS), datetime.now(UTC))
        rows = [
            LanguageProgress.from_row(row)
            for row in self._call(lambda: self._supabase.rpc("progress_by_language", run_id=run_id))
        ]
        return [replace(row, rate=window.videos_per_minute(row.language)) for row in rows]

    def workers(self, run_id: str) -> list[WorkerRow]:
        return [WorkerRow.from_row(row) for row in self._read_all("worker_progress", "worker_id", run_id)]

    def shards(self, run_id: str, limit: int | None = None) -> list[ShardRow]:
        if limit is None:
            return [ShardRow.from_row(row) for row in self._read_all("shards", "shard", run_id)]
        self._require_run(run_id)
        return self._newest_shards(run_id, limit)

    def errors(self, run_id: str, limit: int = 100) -> list[ErrorRow]:
        self._require_run(run_id)
        rows: list[RowValues] = []
        while page := self._older_errors(run_id, rows[-1]["id"] if rows else None, limit - len(rows)):
            rows += page
        return [ErrorRow.from_row(row) for row in rows]

    def start_run(self, *_: object, **__: object) -> NoReturn:
        self._read_only()

    def record_shard(self, *_: object, **__: object) -> NoReturn:
        self._read_only()

    def record_shards(self, *_: object, **__: object) -> NoReturn:
        self._read_only()

    def record_failure(self, *_: object, **__: object) -> NoReturn:
        self._read_only()

    def heartbeat(self, *_: object, **__: object) -> NoReturn:
        self._read_only()

    def finish_run(self, *_: object, **__: object) -> NoReturn:
        self._read_only()

    def _read_only(self) -> NoReturn:
        raise LedgerError(f"{self!r} is read-only")

    def _newest_shards(self, run_id: str, limit: int, columns: str = "*") -> list[ShardRow]:
        def refine(query: Query) -> Query:
            ordered = query.eq("run_id", run_id).order("finished_at", desc=True, nullsfirst=False)
            return ordered.order("shard").limit(min(limit, PAGE))

        return [ShardRow.from_row(row) for row in self._select("shards", refine, columns)]

    def _older_errors(self, run_id: str, before: int | None, limit: int) -> list[RowValues]:
        def refine(query: Query) -> Query:
            newest = query.eq("run_id", run_id).order("id", desc=True).limit(min(limit, PAGE))
            return newest if before is None else newest.lt("id", before)

        return self._select("processing_errors", refine) if limit > 0 else []

    def _require_run(self, run_id: str) -> None:
        """Check that a run exists; runs are never deleted, so each is queried once.

        Raises:
            LedgerError: Supabase does not have the run.
        """
        if run_id not in self._known_runs and self.run(run_id) is None:
            raise LedgerError(describe_unknown_run(self._supabase.url, run_id, self.runs()))
        self._known_runs.add(run_id)

    def _select(self, table: str, refine: QueryFilter, columns: str = "*") -> list[RowValues]:
        return self._call(lambda: self._supabase.select(table, columns, refine))

    def _read_all(self, table: str, key: str, run_id: str) -> list[RowValues]:
        self._require_run(run_id)

        def read_pages() -> list[RowValues]:
            pages = self._supabase.pages(table, key, lambda query: query.eq("run_id", run_id))
            return [row for page in pages for row in page]

        return self._call(read_pages)

    def _call(self, request: Callable[[], T]) -> T:
        """Run a request; its `SupabaseError` becomes a `LedgerError`."""
        try:
            return request()
        except SupabaseError as error:
            raise LedgerError(str(error)) from None
