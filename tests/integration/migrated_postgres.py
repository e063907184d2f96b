"""An empty PostgreSQL with the migrations applied, for the tests of the schema."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from supabase_server import Postgres, apply_migrations, postgres_server

RUN = "3f1e7a52-7f0e-4c0c-9d5c-0a8a4a3f6d11"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres_server() as running:
        yield running


@pytest.fixture
def postgres(server: Postgres) -> Postgres:
    server.sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public;")
    apply_migrations(server)
    return server


def call(postgres: Postgres, function: str, *arguments: object) -> list[list[str]]:
    sql_arguments = [
        f"$json${json.dumps(a)}$json$::jsonb" if isinstance(a, list | dict) else f"'{a}'" for a in arguments
    ]
    return postgres.sql(f"SELECT * FROM {function}({', '.join(sql_arguments)})")
