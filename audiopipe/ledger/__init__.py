"""The ledger: a database of runs, workers, shards and errors, in SQLite or Supabase."""

from __future__ import annotations

from audiopipe.ledger.address import default_path, open_ledger, open_run_ledger, sync_ledger
from audiopipe.ledger.protocol import Ledger
from audiopipe.ledger.record import format_utc, utc_now
from audiopipe.ledger.rows import (
    ErrorRow,
    LanguageProgress,
    LanguageTotal,
    Role,
    RunProgress,
    RunRow,
    RunRows,
    RunStatus,
    ShardRow,
    ShardStatus,
    WorkerRow,
    WorkerStatus,
)
from audiopipe.ledger.sqlite import SqliteLedger

__all__ = [
    "ErrorRow",
    "LanguageProgress",
    "LanguageTotal",
    "Ledger",
    "Role",
    "RunProgress",
    "RunRow",
    "RunRows",
    "RunStatus",
    "ShardRow",
    "ShardStatus",
    "SqliteLedger",
    "WorkerRow",
    "WorkerStatus",
    "default_path",
    "format_utc",
    "open_ledger",
    "open_run_ledger",
    "sync_ledger",
    "utc_now",
]
