"""The Prometheus endpoint of a driver: its numbers, its format, and the queries of the Grafana dashboard."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from ledger_rows import RUN, shard_result
from prometheus_client.parser import text_string_to_metric_families
from waiting import wait_until

from audiopipe.config.checks import split_address
from audiopipe.errors import ConfigError
from audiopipe.ledger import ErrorRow, LanguageTotal, Role, RunRow, RunStatus, WorkerRow, WorkerStatus, open_run_ledger
from audiopipe.ledger.metrics import MeteredLedger

GRAFANA = Path(__file__).parents[2] / "cluster" / "grafana"
LANGUAGES = [LanguageTotal("de", 40, 4), LanguageTotal("en", 60, 6)]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[MeteredLedger]:
    """Yield the ledger of the second of two partitions, with one shard of each committed before."""
    with open_run_ledger(None, str(tmp_path), "127.0.0.1:0", (1, 2)) as opened:
        assert isinstance(opened, MeteredLedger)
        opened.start_run(RunRow(RUN, "all", 100, output="s3://bucket/out"), LANGUAGES)
        opened.record_shards([shard_result(0), shard_result(1, partition=1)])
        yield opened


def record(ledger: MeteredLedger) -> None:
    """Record a shard, a failed attempt and a heartbeat of the driver and two workers."""
    result = shard_result(0, "en", failed=2, partition=1)
    ledger.record_shard(replace(result, queue_depths={"decoded": 1.5}, stage_cpu_s={"decode": 2.0}))
    ledger.record_failure(RUN, ErrorRow.of_attempt("en-000001", 1, "host/p1/x/w0", "StoreUnavailable", "no answer"))
    worker = WorkerRow("host/p1/x/w0", status=WorkerStatus.RUNNING, cpu_utilization=150.0, gpu_utilization=80.0)
    others = [replace(worker, worker_id="host/p1/x/w1", status=WorkerStatus.FAILED)]
    ledger.heartbeat(RUN, [WorkerRow("host/p1/x", role=Role.DRIVER), worker, *others])


def read(ledger: MeteredLedger) -> dict[tuple[str, ...], float]:
    """Read the samples of the endpoint by name and labels, in the order of the labels' names."""
    with urllib.request.urlopen(f"http://127.0.0.1:{ledger.port}/metrics", timeout=10) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [sample for family in families for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def test_the_endpoint_has_what_the_driver_records(ledger: MeteredLedger) -> None:
    before = read(ledger)
    assert before["audiopipe_shards_total", "de"] == 1, "the shard of the other partition is counted by its driver"
    assert before["audiopipe_segments_total", "de", "kept"] == 150
    assert before["audiopipe_planned_videos", "en"] == 60
    record(ledger)
    after = read(ledger)
    assert after["audiopipe_shards_total", "en"] == 1
    assert after["audiopipe_videos_total", "en", "done"] == 8
    assert after["audiopipe_videos_total", "en", "failed"] == after["audiopipe_failed_videos_total", "NoAudio"] == 2
    assert after["audiopipe_audio_seconds_total", "read", "en"] == 800
    assert after["audiopipe_dropped_segments_total", "noisy"] == 5 * (10 + 8)
    assert after["audiopipe_stage_cpu_seconds_total", "decode"] == 2
    assert after["audiopipe_queue_depth", "decoded"] == 1.5
    assert after["audiopipe_failed_attempts_total", "StoreUnavailable"] == 1
    assert after["audiopipe_workers", "running"] == after["audiopipe_workers", "failed"] == 1
    assert after["audiopipe_worker_cpu_ratio", "w0"] == 1.5
    assert after["audiopipe_worker_gpu_ratio", "w0"] == 0.8
    assert ("audiopipe_worker_gpu_ratio", "w1") not in after, "a worker that left has no utilization"
    assert after["audiopipe_run_running",] == 1
    ledger.finish_run(RUN, RunStatus.DONE)
    assert read(ledger)["audiopipe_run_running",] == 0
    assert ledger.run(RUN) is not None, "the ledger itself is written as without an endpoint"


def test_the_endpoint_ends_with_the_ledger(tmp_path: Path) -> None:
    with open_run_ledger(None, str(tmp_path), "0") as ledger:
        port = ledger.port
        with pytest.raises(ConfigError, match=f"metrics_address 127.0.0.1:{port} cannot be opened"):
            open_run_ledger(None, str(tmp_path), str(port))
    with socket.socket() as free:
        free.bind(("127.0.0.1", port))


def test_an_address_is_a_port_or_host_and_port() -> None:
    assert split_address("9464") == ("127.0.0.1", 9464)
    assert split_address("0.0.0.0:80") == ("0.0.0.0", 80)
    assert split_address("[::1]:80") == ("::1", 80)
    for address in ("", "host", "host:", "1:70000", "-1"):
        with pytest.raises(ValueError, match="must be a port"):
            split_address(address)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed")
def test_prometheus_answers_all_queries_of_the_dashboard(ledger: MeteredLedger, tmp_path: Path) -> None:
    settings = (GRAFANA / "prometheus.yml").read_text()
    settings = settings.replace("localhost:9464", f"127.0.0.1:{ledger.port}").replace("15s", "1s")
    (tmp_path / "prometheus.yml").write_text(settings)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    server = subprocess.Popen([*command, f"--web.listen-address={address}"], stderr=subprocess.DEVNULL)
    try:

        def ask(query: str) -> list[object]:
            url = f"http://{address}/api/v1/query?query={quote(query)}"
            try:
                with urllib.request.urlopen(url, timeout=10) as answer:
                    return json.load(answer)["data"]["result"]
            except OSError:
                return []

        wait_until(lambda: ask("audiopipe_planned_videos"), "Prometheus has not read the endpoint", 60)
        # A counter that begins above zero has no rate: the labels of the second shard are those of the first.
        record(ledger)
        wait_until(lambda: ask("rate(audiopipe_shards_total[1m])"), "Prometheus has not read the endpoint twice", 60)
        panels = json.loads((GRAFANA / "dashboard.json").read_text())["panels"]
        queries = [target["expr"] for panel in panels for target in panel["targets"]]
        assert len(queries) > 15
        for expression in queries:
            query = expression.replace("$job", ".*").replace("$__rate_interval", "1m")
            wait_until(lambda query=query: ask(query), f"no answer to {query}", 30)
    finally:
        server.terminate()
        server.wait(10)
    if checker := shutil.which("promtool"):
        with urllib.request.urlopen(f"http://127.0.0.1:{ledger.port}/metrics", timeout=10) as answer:
            done = subprocess.run([checker, "check", "metrics"], input=answer.read(), capture_output=True, check=False)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
