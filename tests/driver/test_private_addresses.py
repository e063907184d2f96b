"""Addresses with a password or a signature in a catalog's rows can be read, and are in no file and no message."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from distributed import Client
from output_factory import config
from private_server import CANARY, files_with_canary, private_catalog, private_server

from audiopipe.cli import main
from audiopipe.config import RunConfig
from audiopipe.dataset.verify import verify
from audiopipe.driver.run import resume, retry, run
from audiopipe.errors import AudiopipeError, ConfigError
from audiopipe.ledger import open_ledger
from audiopipe.media.fetch import fetch
from audiopipe.plan.addresses import complete_addresses
from audiopipe.plan.plan import create_plan
from audiopipe.store.objects import Store

pytestmark = pytest.mark.usefixtures("fast_ticks")


@pytest.fixture
def private(tmp_path: Path) -> Iterator[RunConfig]:
    with private_server(tmp_path / "source") as host:
        yield config(private_catalog(tmp_path / "source", host), tmp_path / "out", shard_videos=10)


def test_private_videos_are_read_and_their_addresses_are_in_no_file(
    private: RunConfig,
    client: Client,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    caplog.handler.setFormatter(logging.Formatter("%(message)s"))
    summary = run(private, client=client)
    assert (summary.total.videos, summary.total.videos_failed) == (4, 2)
    assert dict(summary.total.errors) == {"MissingSource": 1, "BadTar": 1}
    assert files_with_canary(tmp_path / "out") == {}
    assert verify(private.output).findings == ()
    uris = pq.read_table(tmp_path / "out/en/videos_000000.parquet")["uri"].to_pylist()
    assert all("://…@127" in uri or "X-Amz-Signature=…" in uri for uri in uris)
    with open_ledger(None, private.output, create=False) as ledger:
        messages = [error.error_message for error in ledger.errors(summary.run_id)]
    assert any("…" in message for message in messages)
    captured = capfd.readouterr()
    assert "fsspec" in {record.name.partition(".")[0] for record in caplog.records}
    assert CANARY[:14] not in caplog.text + captured.out + captured.err
    # The catalog is read again for what is not committed, also by the commands that need no catalog otherwise.
    assert retry(private.output, client=client).new.videos == 2
    assert resume(private.output, client=client, shards=["en-000000"]).new.videos_failed == 2
    assert files_with_canary(tmp_path / "out") == {}


def test_the_bytes_do_not_depend_on_the_signature(private: RunConfig, client: Client, tmp_path: Path) -> None:
    run(private, client=client)
    first = (tmp_path / "out/en/videos_000000.parquet").read_bytes()
    table = pq.read_table(private.catalog)
    signature = quote(CANARY, safe="")
    renewed = [uri.replace(signature, f"{signature}-renewed") for uri in table["r2_tar_key"].to_pylist()]
    pq.write_table(table.set_column(2, "r2_tar_key", pa.array(renewed)), private.catalog)
    run(private.model_copy(update={"output": str(tmp_path / "again")}), client=client)
    assert (tmp_path / "again/en/videos_000000.parquet").read_bytes() == first


def test_a_video_that_left_the_catalog_is_named(private: RunConfig, tmp_path: Path) -> None:
    (shard,) = create_plan(private, Store(private.output)).shards()
    table = pq.read_table(private.catalog)
    pq.write_table(table.slice(1), private.catalog)
    (completed,) = complete_addresses([shard], private)
    assert sum("…" in video.uri for video in completed.videos) == 1
    with pytest.raises(AudiopipeError, match="the catalog no longer has the address"):
        fetch(shard.videos[0], tmp_path)


SECRETS = [
    f"s3://KEY:{CANARY}@bucket/x",
    f"https://{CANARY.replace('/', '')}@host/x",
    f"https://host/x?X-Amz-Signature={CANARY}",
    f"postgres://user:{CANARY}@host/db",
]


@pytest.mark.parametrize("address", SECRETS)
@pytest.mark.parametrize("name", ["catalog", "output", "source_prefix", "ledger", "language", "cluster", "run_id"])
def test_a_parameter_with_a_secret_is_refused_without_it(name: str, address: str) -> None:
    given = {"catalog": "/c", "output": "/out", name: address}
    with pytest.raises(ConfigError) as caught:
        RunConfig.of(**given)
    assert name in str(caught.value)
    assert "canary" not in str(caught.value)


COMMANDS = [
    ["run", "--output", "/out", "--catalog"],
    ["run", "--catalog", "/c", "--output"],
    ["run", "--catalog", "/c", "--output", "/out", "--source-prefix"],
    ["run", "--catalog", "/c", "--output", "/out", "--ledger"],
    ["resume"],
    ["retry"],
    ["verify"],
    ["gc"],
    ["restore"],
    ["monitor", "--once"],
    ["estimate", "--catalog"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("address", SECRETS)
def test_a_command_refuses_a_secret_and_does_not_repeat_it(command: list[str], address: str) -> None:
    done = CliRunner().invoke(main, [*command, address])
    assert done.exit_code == 2, done.output
    assert "canary" not in done.output + done.stderr


@pytest.mark.parametrize("name", ["output", "catalog", "source_prefix", "ledger"])
def test_a_chain_of_file_systems_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*chains file systems"):
        RunConfig.of(**{"catalog": "/c", "output": "/out", name: "simplecache::s3://bucket/x"})
    with pytest.raises(ConfigError, match="chains file systems"):
        Store("simplecache::s3://bucket/x")
