"""`supabase://videos` against a real server: every row once, even if rows are added in the meantime."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from supabase_server import Supabase, apply_migrations, postgres_server, supabase_server

from audiopipe.catalog import supabase
from audiopipe.catalog.read import read_catalog
from audiopipe.catalog.supabase import read_pages
from audiopipe.config import RunConfig
from audiopipe.errors import CatalogError, ConfigError, TransientError
from audiopipe.ledger import supabase_client

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Supabase]:
    with postgres_server() as postgres:
        apply_migrations(postgres)
        postgres.sql("""
            CREATE SCHEMA archive;
            CREATE TABLE archive.media (id BIGINT PRIMARY KEY, lang TEXT, state TEXT, path TEXT, bytes BIGINT);
            INSERT INTO archive.media SELECT n, 'de', CASE n WHEN 3 THEN 'NEW' ELSE 'READY' END, n || '.tar', n * 10
                FROM generate_series(1, 5) n;
            CREATE TABLE public.bare (youtube_id TEXT PRIMARY KEY, language TEXT);
            INSERT INTO public.bare VALUES ('a', 'de');
            GRANT USAGE ON SCHEMA archive TO service_role; GRANT ALL ON ALL TABLES IN SCHEMA archive TO service_role;
            GRANT ALL ON public.bare TO service_role""")
        with supabase_server(postgres, schemas=("public", "archive")) as running:
            yield running


@pytest.fixture(autouse=True)
def environment(server: Supabase, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUPABASE_KEY", "SUPABASE_ACCESS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SUPABASE_URL", server.url)
    monkeypatch.setenv("SUPABASE_SERVICE_KEY", server.secret_key)
    monkeypatch.setattr(supabase, "BACKOFF_S", 0.01)
    server.postgres.sql("TRUNCATE videos")


def fill(server: Supabase, count: int, first: int = 1) -> None:
    server.postgres.sql(f"""
        INSERT INTO videos (youtube_id, language, status, r2_tar_key, size_bytes)
        SELECT md5(n::text), CASE n % 4 WHEN 0 THEN 'fr' ELSE 'de' END,
            CASE n % 100 WHEN 1 THEN 'FAILED' ELSE 'COMPLETED' END, n || '.tar', n
        FROM generate_series({first}, {first + count - 1}) n""")


def ids(language: str | None = None, table: str = "videos") -> list[str]:
    return [name for page in read_pages(table, language) for name in page["youtube_id"].to_pylist()]


def test_every_completed_row_comes_once_over_many_pages(server: Supabase) -> None:
    fill(server, 3500)
    pages = list(read_pages("videos", None))
    expected = server.postgres.sql("SELECT youtube_id FROM videos WHERE status = 'COMPLETED'")
    assert sorted(name for page in pages for name in page["youtube_id"].to_pylist()) == sorted(
        row[0] for row in expected
    )
    assert [page.num_rows for page in pages] == [1000, 1000, 1000, 465]
    assert pages[0].column_names == ["youtube_id", "language", "r2_tar_key", "size_bytes", "duration_s"]
    assert pages[0]["duration_s"].null_count == 1000


def test_one_language_can_be_selected(server: Supabase) -> None:
    fill(server, 400)
    assert len(ids("fr")) == 100
    assert len(ids("de")) == 296
    assert ids("xx") == []


def test_concurrent_inserts_neither_hide_nor_double_rows(server: Supabase) -> None:
    fill(server, 5000)
    before = {row[0] for row in server.postgres.sql("SELECT youtube_id FROM videos WHERE status = 'COMPLETED'")}
    stop = threading.Event()

    def add() -> None:
        first = 10_000
        while not stop.is_set():
            fill(server, 50, first)
            first += 50

    inserter = threading.Thread(target=add)
    inserter.start()
    try:
        video_ids = ids()
    finally:
        stop.set()
        inserter.join()
    assert len(video_ids) == len(set(video_ids))
    assert before <= set(video_ids)
    assert server.postgres.sql("SELECT count(*) > 5000 FROM videos") == [["t"]]


def test_a_run_reads_its_catalog_from_the_table(server: Supabase, tmp_path: Path) -> None:
    fill(server, 400)
    config = RunConfig.of(catalog="supabase://videos", output=str(tmp_path), source_prefix="s3://b", language="fr")
    catalog = read_catalog(config)
    assert catalog.languages() == ["fr"]
    assert catalog.table.num_rows == 100
    assert "s3://b/4.tar" in catalog.table["uri"].to_pylist()
    assert catalog.table["size_bytes"].null_count == 0
    with pytest.raises(CatalogError, match="no video in language 'fx'; its languages are de, fr"):
        read_catalog(RunConfig.of(**{**config.model_dump(), "language": "fx"}))


def test_an_empty_table_is_named(server: Supabase) -> None:
    with pytest.raises(CatalogError, match=r"supabase://videos has no rows: the table is empty$"):
        list(read_pages("videos", None))


@pytest.mark.parametrize("signed_in", [False, True])
def test_rows_that_policies_may_hide_are_named(
    server: Supabase, monkeypatch: pytest.MonkeyPatch, signed_in: bool
) -> None:
    monkeypatch.delenv("SUPABASE_SERVICE_KEY")
    monkeypatch.setenv("SUPABASE_KEY", server.publishable_key)
    if signed_in:
        monkeypatch.setenv("SUPABASE_ACCESS_TOKEN", server.token(is_reader=False))
    server.postgres.sql("GRANT SELECT ON videos TO anon")
    with pytest.raises(CatalogError, match=r"row level security hides its rows .* SUPABASE_SERVICE_KEY"):
        list(read_pages("videos", None))
    server.postgres.sql("REVOKE SELECT ON videos FROM anon")


def test_the_address_names_table_schema_columns_and_status() -> None:
    address = "media?schema=archive&youtube_id=id&language=lang&status=state&r2_tar_key=path&size_bytes=bytes"
    (page,) = read_pages(f"{address}&completed=READY", None)
    assert page.to_pydict() == {
        "youtube_id": ["1", "2", "4", "5"],
        "language": ["de"] * 4,
        "r2_tar_key": ["1.tar", "2.tar", "4.tar", "5.tar"],
        "size_bytes": [10, 20, 40, 50],
    }


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nope", r"lacks a table, column or function .*'public\.nope'.*check the names"),
        ("bare", "lacks the column r2_tar_key; it has youtube_id, language: name them in the address"),
        ("videos?youtube_id=nope", "lacks the column nope"),
        ("videos?id=youtube_id", "'id' is not the name of a column"),
        ("?youtube_id=id", "it names no table"),
        ("videos?size_bytes=r2_tar_key", "column 'size_bytes' contains a value that is not a number"),
    ],
)
def test_a_wrong_name_is_an_error_with_advice(server: Supabase, address: str, message: str) -> None:
    fill(server, 3)
    with pytest.raises(CatalogError, match=message):
        ids(table=address)


def test_missing_keys_are_named_and_keys_are_never_shown(server: Supabase, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_SERVICE_KEY", "sb_secret_thisiswrong")
    with pytest.raises(CatalogError, match=r"refuses the key .* check SUPABASE_SERVICE_KEY") as caught:
        ids()
    assert "thisiswrong" not in str(caught.value)
    assert caught.value.__suppress_context__
    assert "thisiswrong" not in repr(supabase_client.SupabaseClient())
    monkeypatch.delenv("SUPABASE_SERVICE_KEY")
    with pytest.raises(ConfigError, match=r"SUPABASE_URL .* SUPABASE_SERVICE_KEY"):
        ids()


def test_a_short_outage_is_waited_for(server: Supabase, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(server, 3000)
    monkeypatch.setattr(supabase, "BACKOFF_S", 0.5)
    pages = iter(read_pages("videos", None))
    first = next(pages)
    server.stop()
    restart = threading.Timer(0.3, server.start)
    restart.start()
    try:
        video_ids = [
            *first["youtube_id"].to_pylist(),
            *(name for page in pages for name in page["youtube_id"].to_pylist()),
        ]
    finally:
        restart.join()
    assert len(video_ids) == len(set(video_ids)) == 2970


def test_a_long_outage_is_a_transient_error(server: Supabase) -> None:
    fill(server, 3)
    server.stop()
    try:
        with pytest.raises(TransientError, match=r"does not answer .* start again when it answers"):
            ids()
    finally:
        server.start()


def test_half_a_million_rows_are_listed_in_bounded_memory(server: Supabase) -> None:
    fill(server, 500_000)
    list(zip(range(20), read_pages("videos", None), strict=False))  # memory that the first pages allocate permanently
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(page.num_rows for page in read_pages("videos", None))
    growth_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert count == 495_000
    assert growth_mb < 30
