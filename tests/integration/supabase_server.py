"""The servers of `audiopipe.bench.servers` for tests, which are skipped where node is missing."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from audiopipe.bench.servers import supabase
from audiopipe.bench.servers.supabase import (
    MIGRATIONS,
    Postgres,
    Supabase,
    apply_migrations,
    bring_back,
    postgres_server,
)

__all__ = [
    "MIGRATIONS",
    "Postgres",
    "Supabase",
    "apply_migrations",
    "bring_back",
    "postgres_server",
    "supabase_server",
]


@contextmanager
def supabase_server(postgres: Postgres, schemas: tuple[str, ...] = ("public",)) -> Iterator[Supabase]:
    if not shutil.which("npm"):
        pytest.skip("needs node and npm for the Supabase server")
    with supabase.supabase_server(postgres, schemas) as server:
        yield server
