"""Read a run in Supabase, and the permissions of each kind of key."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from ledger_cases import (
    OFTEN_S,
    RUN,
    contents,
    environment,
    path,
    result,
    server,
    start,
    whole_run,
)
from postgrest import APIError
from supabase import Client, ClientOptions, create_client
from supabase_server import Supabase, postgres_server, supabase_server

from audiopipe.errors import ConfigError, LedgerError
from audiopipe.ledger import ErrorRow, RunStatus, open_ledger
from audiopipe.ledger.snapshot import take_snapshot
from audiopipe.ledger.supabase import SupabaseLedger
from audiopipe.ledger.supabase_reader import SupabaseReader

__all__ = ["environment", "path", "server"]  # fixtures

pytestmark = pytest.mark.slow

# The tables of the ledger, each with a text column.
TABLES = {
    "pipeline_runs": "language",
    "run_languages": "language",
    "worker_progress": "last_error",
    "shards": "error",
    "processing_errors": "error_message",
}


@pytest.fixture
def rest(server: Supabase) -> Iterator[Client]:
    """Connect with Supabase's client and the publishable key."""
    with httpx.Client(timeout=10) as http:
        options = ClientOptions(httpx_client=http, auto_refresh_token=False, persist_session=False)
        yield create_client(server.url, server.publishable_key, options)


def rows_of(request: Any) -> list[Any]:
    """Return the rows that a request reads or changes: none if it is refused or the policies exclude all rows."""
    try:
        rows: list[Any] = request.execute().data
    except APIError as error:
        if error.code != "42501":
            raise
        return []
    return rows


def dump(server: Supabase) -> list[list[list[str]]]:
    return [server.postgres.sql(f"SELECT * FROM {table} ORDER BY 1, 2") for table in TABLES]


def test_a_snapshot_of_supabase_equals_the_local_one(path: Path) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
        local = take_snapshot(ledger)
    with SupabaseReader() as reader:
        remote = take_snapshot(reader)
    assert local is not None
    assert remote is not None
    assert (remote.totals, remote.languages) == (local.totals, local.languages)
    assert json.dumps(remote.as_json(), allow_nan=False)


@pytest.mark.parametrize("key", ["wrong", "publishable", "signed-in"])
def test_a_key_without_write_access_fails_at_the_start(
    server: Supabase, path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    api_key = "sb_secret_doesnotexist" if key == "wrong" else server.publishable_key
    monkeypatch.setenv("SUPABASE_SERVICE_KEY", api_key)
    if key == "signed-in":
        monkeypatch.setenv("SUPABASE_ACCESS_TOKEN", server.token())
    with pytest.raises(LedgerError, match=r"refuses the key .* check SUPABASE_SERVICE_KEY") as caught:
        SupabaseLedger(path)
    assert api_key not in str(caught.value)
    assert not path.exists()


def test_missing_tables_fail_at_the_start(path: Path) -> None:
    with postgres_server() as empty, supabase_server(empty) as bare, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUPABASE_URL", bare.url)
        patch.setenv("SUPABASE_SERVICE_KEY", bare.secret_key)
        for opened in (lambda: SupabaseLedger(path), SupabaseReader):
            with pytest.raises(LedgerError, match=r"apply cluster/supabase/migrations \(supabase db push\)"):
                opened()


def test_hidden_runs_differ_from_no_runs(server: Supabase, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
    monkeypatch.delenv("SUPABASE_SERVICE_KEY")
    monkeypatch.setenv("SUPABASE_KEY", server.publishable_key)
    monkeypatch.setenv("SUPABASE_ACCESS_TOKEN", server.token(is_reader=False))
    with pytest.raises(LedgerError, match=r"row level security hides the ledger .* app_metadata.audiopipe"):
        SupabaseReader()
    server.postgres.sql("TRUNCATE pipeline_runs CASCADE")
    monkeypatch.setenv("SUPABASE_ACCESS_TOKEN", server.token())
    with SupabaseReader() as reader:
        assert reader.run() is None


def test_a_reader_needs_a_signed_in_user(server: Supabase, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
        expected = contents(ledger)
    monkeypatch.delenv("SUPABASE_SERVICE_KEY")
    monkeypatch.setenv("SUPABASE_KEY", server.publishable_key)
    with pytest.raises(LedgerError, match=r"refuses the key .* a signed-in user's SUPABASE_ACCESS_TOKEN"):
        SupabaseReader()
    monkeypatch.setenv("SUPABASE_ACCESS_TOKEN", server.token())
    with open_ledger("supabase://", create=False) as reader:
        assert contents(reader) == expected
        for write in (
            lambda: start(reader),
            lambda: reader.record_shard(result(0)),
            lambda: reader.record_failure(RUN, ErrorRow.of_attempt("de-000001", 1, None, "x", "y")),
            lambda: reader.heartbeat(RUN, []),
            lambda: reader.finish_run(RUN, RunStatus.DONE),
        ):
            with pytest.raises(LedgerError, match="is read-only"):
                write()
        with pytest.raises(LedgerError, match="has no run 'nope'"):
            reader.progress("nope")


@pytest.mark.parametrize("role", ["signed-in", "anon"])
def test_readers_cannot_write_over_rest(server: Supabase, path: Path, rest: Client, role: str) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
    before = dump(server)
    if role == "signed-in":
        rest.postgrest.auth(server.token())
        assert rest.table("run_progress").select("processed").execute().data == [{"processed": 30}]
    run = {"run_id": "new", "language": "de", "total_videos": 1}
    refused = [rest.table("pipeline_runs").insert(run), rest.table("pipeline_runs").upsert(run)]
    refused.append(rest.rpc("write_ledger", {"operations": []}))
    refused.append(rest.rpc("upsert_shards", {"shards": []}))
    refused.append(rest.rpc("finish_run", {"run_id": RUN, "status": "failed", "at": "2030-01-01T00:00:00Z"}))
    for request in refused:
        with pytest.raises(APIError, match="42501"):
            request.execute()
    for table, column in TABLES.items():
        assert rows_of(rest.table(table).update({column: "changed"}).eq("run_id", RUN)) == []
        assert rows_of(rest.table(table).delete().eq("run_id", RUN)) == []
    assert dump(server) == before


def test_anon_sees_nothing_over_rest(rest: Client, path: Path) -> None:
    with SupabaseLedger(path) as ledger:
        whole_run(ledger)
    for table in (*TABLES, "run_progress", "videos"):
        assert rows_of(rest.table(table).select("*")) == []
    queries = [rest.rpc(name, {"run_id": RUN}) for name in ("monitor_snapshot", "progress_by_language")]
    queries.append(rest.rpc("ledger_bytes", {}))
    for query in queries:
        with pytest.raises(APIError, match="42501"):
            query.execute()


def test_a_reader_reads_more_than_one_page(server: Supabase) -> None:
    server.postgres.sql(f"""
        INSERT INTO pipeline_runs (run_id, language, total_videos) VALUES ('{RUN}', 'de', 1);
        INSERT INTO shards (run_id, shard, language, status, finished_at)
            SELECT '{RUN}', 's' || lpad(n::text, 6, '0'), 'de', 'done', now() FROM generate_series(1, 2300) n;
        INSERT INTO processing_errors (run_id, event_id, error_type, error_message)
            SELECT '{RUN}', n::text, 'x', n::text FROM generate_series(1, 2300) n""")
    with SupabaseReader() as remote:
        assert [row.error_message for row in remote.errors(RUN, 2100)] == [str(2300 - n) for n in range(2100)]
        assert [row.shard for row in remote.shards(RUN)] == [f"s{index:06d}" for index in range(1, 2301)]


def test_keys_are_never_logged_or_shown(
    server: Supabase, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    with SupabaseLedger(path, send_every_s=OFTEN_S) as ledger, SupabaseReader() as remote:
        start(ledger)
        server.stop()
        time.sleep(3 * OFTEN_S)
        shown = [repr(ledger), str(ledger), repr(remote), repr(ledger._sender), repr(remote._supabase)]
    server.start()
    monkeypatch.delenv("SUPABASE_SERVICE_KEY")
    with pytest.raises(ConfigError, match="SUPABASE_SERVICE_KEY") as caught:
        SupabaseReader()
    for text in (*shown, caplog.text, str(caught.value)):
        assert server.secret_key not in text
    assert server.secret_key.encode() not in path.read_bytes()
