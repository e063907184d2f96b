"""Dask's dashboard during a run, in a real browser: it shows worker names, and stages by language."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from output_factory import config, corpus
from waiting import wait_until

from audiopipe.cluster.connect import close, connect
from audiopipe.driver.run import RunSummary, run

if TYPE_CHECKING:
    from distributed import Client

CHROMIUM = shutil.which("chromium")
BROWSER = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
# Bokeh draws on a canvas, so the test reads the tables behind the plots.
PLOTTED = """
() => Bokeh.documents.flatMap(document => [...document._all_models.values()])
    .filter(model => model.type == "ColumnDataSource")
  .flatMap(source => ["name", "__functions"].flatMap(column => Array.from(source.data[column] ?? [])))
"""


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    client = connect("local-cpu", n_workers=2)
    yield client
    close(client)


@pytest.fixture(scope="module")
def summary(client: Client, tmp_path_factory: pytest.TempPathFactory) -> RunSummary:
    folder = tmp_path_factory.mktemp("dashboard")
    return run(config(corpus(folder / "corpus"), folder / "out", shard_videos=1), client=client)


@pytest.mark.slow
def test_worker_names_are_stable_while_the_cluster_scales(client: Client) -> None:
    def names() -> set[str]:
        return {worker["name"] for worker in client.scheduler_info(n_workers=-1)["workers"].values()}

    assert names() == {"cpu-0", "cpu-1"}
    client.cluster.scale(3)
    client.wait_for_workers(3, timeout=60)
    assert names() == {"cpu-0", "cpu-1", "cpu-2"}
    client.cluster.scale(2)
    client.sync(client.cluster._correct_state)
    assert names() == {"cpu-0", "cpu-1"}


@pytest.mark.slow
def test_tasks_are_named_by_language_and_measured_by_stage(client: Client, summary: RunSummary) -> None:
    def metrics_of(dask_scheduler: Any) -> tuple[set[str], set[tuple[str, ...]]]:
        return set(dask_scheduler.task_prefixes), set(dask_scheduler.cumulative_worker_metrics)

    assert summary.exit_code == 3
    stages = {"fetch", "decode", "score", "write", "upload"}
    expected = {("execute", f"shard {language}", stage) for language in ("en", "de") for stage in stages}
    # Workers send their metrics with the next heartbeat.
    wait_until(
        lambda: expected <= {name[:3] for name in client.run_on_scheduler(metrics_of)[1]}, "metrics of all stages"
    )
    assert {"shard en", "shard de"} <= client.run_on_scheduler(metrics_of)[0]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_a_browser_shows_workers_languages_and_stages(client: Client, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    settings = config(corpus(tmp_path / "corpus", videos=8), tmp_path / "out", shard_videos=1)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(BROWSER))
        status, stages, workers = (browser.new_page(viewport={"width": 1200, "height": 700}) for _ in range(3))
        for page, name in ((status, "status"), (stages, "individual-fine-performance-metrics"), (workers, "workers")):
            page.goto(client.dashboard_link.replace("status", name))
        thread = threading.Thread(target=run, args=(settings,), kwargs={"client": client})
        thread.start()
        status.wait_for_function(f"() => ({PLOTTED})().some(name => String(name).startsWith('shard '))", timeout=60_000)
        thread.join()
        workers.wait_for_selector("text=cpu-1", timeout=60_000)
        stages.wait_for_function(f"() => ({PLOTTED})().includes('shard de')", timeout=60_000)
        screenshots = [page.screenshot(path=tmp_path / f"{number}.png") for number, page in enumerate((status, stages))]
        browser.close()
    assert all(len(image) > 15_000 for image in screenshots), "a blank page has a smaller image"
