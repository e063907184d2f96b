"""The outbox sends smaller requests when a server finds them too large or too slow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from ledger_rows import RUN, shard_result

from audiopipe.errors import ConfigError
from audiopipe.ledger import LanguageTotal, RunRow
from audiopipe.ledger.outbox import Outbox
from audiopipe.ledger.supabase import OutboxLedger, SupabaseLedger
from audiopipe.ledger.supabase_client import ErrorKind, SupabaseClient, SupabaseError, explain_no_rows

SHARDS = 100


class Server:
    """Accept at most `limit` rows in one request; reject others as `kind`."""

    url = "http://127.0.0.1:9"

    def __init__(self, limit: int, kind: ErrorKind) -> None:
        self.limit, self.kind = limit, kind
        self.rows = 0
        self.sizes: list[int] = []

    def rpc(self, function: str, operations: list[dict[str, Any]]) -> int:
        size = sum(len(operation.get("rows", [0])) for operation in operations)
        self.sizes.append(size)
        if size > self.limit:
            raise SupabaseError(self.kind, "too much")
        self.rows += size
        return len(operations)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "_ledger.sqlite"
    with OutboxLedger(path, Server.url) as ledger:
        ledger.start_run(RunRow(RUN, "de", 10 * SHARDS), [LanguageTotal("de", 10 * SHARDS, SHARDS)])
        for index in range(SHARDS):
            ledger.record_shard(shard_result(index))
    return path


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    outbox = Outbox(path)
    yield outbox
    outbox.close()


@pytest.mark.parametrize("kind", [ErrorKind.SIZE, ErrorKind.TIME])
def test_batches_are_halved_until_they_pass(outbox: Outbox, kind: ErrorKind) -> None:
    server = Server(limit=7, kind=kind)
    assert outbox.send(cast(SupabaseClient, server)) == SHARDS + 1
    assert (server.rows, outbox.count_pending(), outbox.count_refused()) == (SHARDS + 1, 0, 0)
    assert server.sizes[:5] == [101, 50, 25, 12, 6]


def test_one_row_that_is_too_large_does_not_block_the_others(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiopipe.ledger.outbox.LARGE_ROW_BYTES", 10)
    server = Server(limit=0, kind=ErrorKind.SIZE)
    assert outbox.send(cast(SupabaseClient, server)) == 0
    assert (outbox.count_pending(), outbox.count_refused()) == (0, SHARDS + 1)


@pytest.mark.parametrize("kind", [ErrorKind.SIZE, ErrorKind.TIME])
def test_a_small_row_that_fails_alone_stays_pending(outbox: Outbox, kind: ErrorKind) -> None:
    server = Server(limit=0, kind=kind)
    with pytest.raises(SupabaseError, match="too much"):
        outbox.send(cast(SupabaseClient, server))
    assert (outbox.count_pending(), outbox.count_refused()) == (SHARDS + 1, 0)


ROLES = {"anon": "eyJyb2xlIjoiYW5vbiJ9", "service_role": "eyJyb2xlIjoic2VydmljZV9yb2xlIn0"}


@pytest.mark.parametrize(
    ("key", "token", "obeys"),
    [
        ("sb_secret_abc_def", "", False),
        ("sb_publishable_abc_def", "", True),
        (f"eyJhbGciOiJIUzI1NiJ9.{ROLES['service_role']}.x", "", False),
        (f"eyJhbGciOiJIUzI1NiJ9.{ROLES['anon']}.x", "", True),
        ("sb_secret_abc_def", "a.b.c", True),
        ("not.a-token.x", "", True),
    ],
)
def test_the_key_says_whether_policies_may_hide_rows(
    monkeypatch: pytest.MonkeyPatch, key: str, token: str, obeys: bool
) -> None:
    monkeypatch.delenv("SUPABASE_SERVICE_KEY", raising=False)
    for name, value in {"URL": "https://p.example.invalid", "KEY": key, "ACCESS_TOKEN": token}.items():
        monkeypatch.setenv(f"SUPABASE_{name}", value)
    with SupabaseClient() as supabase:
        assert supabase.obeys_policies is obeys
        assert ("row level security" in explain_no_rows(supabase)) is obeys


def test_an_address_of_the_project_with_a_password_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_URL", "https://user:pa/ss@p.example.invalid")
    monkeypatch.setenv("SUPABASE_KEY", "x")
    with pytest.raises(ConfigError, match="SUPABASE_URL contains a password") as caught:
        SupabaseClient()
    assert "ss@" not in str(caught.value)


STATUSES = [
    (413, "<html>413 Request Entity Too Large</html>", ErrorKind.SIZE),
    (500, '{"code": "57014", "message": "canceling statement due to statement timeout"}', ErrorKind.TIME),
    (504, "<html>504 Gateway Time-out</html>", ErrorKind.TIME),
    (503, "<html>503 Service Unavailable</html>", ErrorKind.DOWN),
    (500, "", ErrorKind.DOWN),
    (429, '{"message": "too many requests"}', ErrorKind.DOWN),
    (401, '{"code": "PGRST301", "message": "JWT expired"}', ErrorKind.KEY),
    (404, '{"code": "PGRST202", "message": "no function write_ledger"}', ErrorKind.SCHEMA),
    (400, '{"code": "23514", "message": "violates a check constraint"}', ErrorKind.ROW),
]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Let every request get this answer: a status and a body, or an exception."""
    answer: dict[str, Any] = {}

    def respond(request: httpx.Request) -> httpx.Response:
        if "error" in answer:
            raise answer["error"]
        return httpx.Response(answer["status"], text=answer["body"], request=request)

    client = httpx.Client
    monkeypatch.setattr(
        "audiopipe.ledger.supabase_client.httpx.Client",
        lambda **options: client(transport=httpx.MockTransport(respond), **options),
    )
    monkeypatch.setenv("SUPABASE_URL", "https://project.example.invalid")
    monkeypatch.setenv("SUPABASE_SERVICE_KEY", "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.x")
    return answer


@pytest.mark.parametrize(("status", "body", "kind"), STATUSES, ids=[f"{item[0]}-{item[2]}" for item in STATUSES])
def test_an_answer_is_classified_by_its_remedy(
    answers: dict[str, Any], status: int, body: str, kind: ErrorKind
) -> None:
    answers.update(status=status, body=body)
    with SupabaseClient() as supabase, pytest.raises(SupabaseError) as caught:
        supabase.rpc("write_ledger", operations=[])
    assert caught.value.kind is kind


def test_a_time_out_asks_for_smaller_requests(answers: dict[str, Any]) -> None:
    answers["error"] = httpx.ReadTimeout("slow")
    with SupabaseClient() as supabase, pytest.raises(SupabaseError, match="in time") as caught:
        supabase.rpc("write_ledger", operations=[])
    assert caught.value.kind is ErrorKind.TIME


@pytest.mark.parametrize(("status", "body"), [item[:2] for item in STATUSES if item[2] in ("down", "size", "time")])
def test_a_server_that_fails_at_the_start_stops_no_run(
    answers: dict[str, Any], tmp_path: Path, status: int, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    answers.update(status=status, body=body)
    with SupabaseLedger(tmp_path / "new.sqlite", send_every_s=60) as ledger:
        ledger.start_run(RunRow(RUN, "de", 10), [LanguageTotal("de", 10, 1)])
    assert "the run continues" in caplog.text
    assert "updates are pending in" in caplog.text
