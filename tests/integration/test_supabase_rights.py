"""The policies and privileges of the ledger: what each role may read and write."""

# ruff: noqa: F811 - fixtures

from __future__ import annotations

import json

import pytest
from migrated_postgres import RUN, call, postgres, server  # noqa: F401 - fixtures
from supabase_server import Postgres

pytestmark = pytest.mark.slow

TABLES = ("pipeline_runs", "run_languages", "worker_progress", "shards", "processing_errors", "videos")
READER = json.dumps({"role": "authenticated", "app_metadata": {"audiopipe": "reader"}})


def as_role(role: str, sql: str, claims: str = READER) -> str:
    """Run SQL as PostgREST does it for a token with these claims."""
    return f"SET request.jwt.claims = '{claims}'; SET ROLE {role};\n{sql};\nRESET ROLE; RESET request.jwt.claims;"


def test_the_monitors_query_reads_only_with_the_readers_rights(postgres: Postgres) -> None:
    assert postgres.sql("""
        SELECT proname, provolatile, prosecdef FROM pg_proc WHERE proname IN ('ledger_bytes', 'monitor_snapshot')
        ORDER BY 1""") == [["ledger_bytes", "s", "f"], ["monitor_snapshot", "s", "f"]]
    assert postgres.sql(as_role("authenticated", "SELECT monitor_snapshot() IS NULL")) == [["t"]]
    call(postgres, "start_run", {"run_id": RUN, "language": "de", "total_videos": 5}, [], "2026-11-22T10:00:00Z")
    assert postgres.sql(as_role("authenticated", "SELECT monitor_snapshot() -> 'run' ->> 'run_id'")) == [[RUN]]
    # The policies apply inside the function: without a policy the reader sees no row.
    postgres.sql('DROP POLICY "readers read" ON pipeline_runs')
    assert postgres.sql(as_role("authenticated", "SELECT monitor_snapshot() IS NULL")) == [["t"]]
    ((size,),) = postgres.sql(as_role("authenticated", "SELECT ledger_bytes()"))
    assert int(size) > 8192


@pytest.mark.parametrize(
    "claims",
    ["", "{}", '{"app_metadata": {"audiopipe": "writer"}}', '{"user_metadata": {"audiopipe": "reader"}}'],
)
def test_a_user_without_the_claim_sees_no_row(postgres: Postgres, claims: str) -> None:
    call(postgres, "start_run", {"run_id": RUN, "language": "de", "total_videos": 5}, [], "2026-11-22T10:00:00Z")
    postgres.sql("INSERT INTO videos (youtube_id, language, status) VALUES ('a', 'de', 'COMPLETED')")
    for table in (*TABLES, "run_progress"):
        assert postgres.sql(as_role("authenticated", f"SELECT * FROM {table}", claims)) == []
    assert postgres.sql(as_role("authenticated", "SELECT monitor_snapshot() IS NULL", claims)) == [["t"]]
    assert postgres.sql(as_role("authenticated", "SELECT may_read_ledger()", claims)) == [["f"]]
    assert postgres.sql(as_role("authenticated", "SELECT may_read_ledger()")) == [["t"]]
    assert postgres.sql(as_role("authenticated", "SELECT youtube_id FROM videos")) == [["a"]]


def test_signed_in_users_read_but_do_not_write(postgres: Postgres) -> None:
    call(postgres, "start_run", {"run_id": RUN, "language": "de", "total_videos": 5}, [], "2026-11-22T10:00:00Z")
    assert postgres.sql(as_role("authenticated", "SELECT processed FROM run_progress")) == [["0"]]
    assert postgres.sql(as_role("authenticated", f"SELECT * FROM progress_by_language('{RUN}')")) == []
    for write in (
        "INSERT INTO pipeline_runs (language, total_videos) VALUES ('de', 1)",
        "UPDATE pipeline_runs SET total_videos = 0",
        "DELETE FROM pipeline_runs",
        "SELECT write_ledger('[]')",
        "SELECT upsert_shards('[]')",
    ):
        with pytest.raises(RuntimeError, match="permission denied"):
            postgres.sql(as_role("authenticated", write))


def test_policies_hold_under_supabases_default_grants(postgres: Postgres) -> None:
    call(postgres, "start_run", {"run_id": RUN, "language": "de", "total_videos": 5}, [], "2026-11-22T10:00:00Z")
    postgres.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated")
    assert postgres.sql(as_role("anon", "SELECT * FROM pipeline_runs")) == []
    assert postgres.sql(as_role("anon", "SELECT * FROM run_progress")) == []
    with pytest.raises(RuntimeError, match="row-level security"):
        postgres.sql(as_role("authenticated", "INSERT INTO pipeline_runs (language, total_videos) VALUES ('de', 1)"))
    postgres.sql(as_role("authenticated", "UPDATE pipeline_runs SET total_videos = 0"))
    assert postgres.sql("SELECT total_videos FROM pipeline_runs") == [["5"]]


def test_other_roles_see_nothing(postgres: Postgres) -> None:
    for table in (*TABLES, "run_progress"):
        with pytest.raises(RuntimeError, match="permission denied"):
            postgres.sql(as_role("anon", f"SELECT * FROM {table}"))
    for function in (f"progress_by_language('{RUN}')", "videos_in_partition('de', 1, 0)", "write_ledger('[]')"):
        with pytest.raises(RuntimeError, match="permission denied"):
            postgres.sql(as_role("anon", f"SELECT * FROM {function}"))


def test_the_service_key_writes(postgres: Postgres) -> None:
    postgres.sql(as_role("service_role", "SELECT write_ledger('[]')"))
    run = json.dumps({"run_id": RUN, "language": "de", "total_videos": 5})
    postgres.sql(as_role("service_role", f"SELECT start_run('{run}', '[]', now())"))
    postgres.sql(as_role("service_role", "INSERT INTO processing_errors (run_id) VALUES ('x')"))
    assert postgres.sql("SELECT total_videos FROM pipeline_runs") == [["5"]]
