"""Run on processes that are lost, frozen, short of memory, terminated or replaced: the dataset is the same.

`test_kills.py` has random kills; here are the failures that need more than a kill, each with a time limit.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from distributed import Client, Future
from factories import delay_decoders, prepend_python_path
from fleet import FIXED, Fleet
from output_factory import config, content, corpus, make_output
from processes import hold_in
from waiting import wait_until

from audiopipe.cluster.connect import close, connect
from audiopipe.dataset.verify import verify
from audiopipe.driver import run
from audiopipe.driver.cluster_health import ClusterHealth

BIN = Path(sys.executable).parent
RUN_PARTITION = Path(__file__).parents[2] / "cluster/run_partition.sh"
VIDEOS, SHARDS = 16, 8
DONE, UNFINISHED = 0, 4

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def corpus_of_tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"), videos=VIDEOS, missing=False)


@pytest.fixture(scope="module")
def expected(corpus_of_tones: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = make_output(config(corpus_of_tones, tmp_path_factory.mktemp("expected") / "out"))
    return content(output.url)


@pytest.fixture
def fleet(corpus_of_tones: Path, tmp_path: Path) -> Iterator[Fleet]:
    (tmp_path / "fleet").mkdir()
    # The delay leaves time for a failure while a shard is made.
    fleet = Fleet(tmp_path / "fleet", catalog=corpus_of_tones, settings=delay_decoders(tmp_path / "delayed", 0.7))
    yield fleet
    for name in fleet.running:
        fleet.kill(name)


def test_a_returning_scheduler_is_found_and_the_run_continues(fleet: Fleet, expected: dict[str, bytes]) -> None:
    fleet.scheduler()
    fleet.worker("first")
    fleet.driver()
    wait_until(fleet.commits, lambda: fleet.log("driver"), timeout_s=120)
    fleet.kill("scheduler")
    fleet.kill("first")  # its nanny may have waited for the old scheduler; a service manager starts it again
    assert len(fleet.commits()) < SHARDS, "killed too late"
    fleet.scheduler()
    fleet.worker("first")
    code = fleet.running["driver"].wait(timeout=180)
    assert code in (DONE, UNFINISHED), fleet.log("driver")
    if code == UNFINISHED:
        fleet.driver()
        fleet.assert_ends(DONE, within_s=180)
    assert content(fleet.output) == expected


def test_a_lost_scheduler_ends_the_run_in_time_and_it_resumes(fleet: Fleet, expected: dict[str, bytes]) -> None:
    fleet.scheduler()
    fleet.worker("first")
    fleet.driver()
    wait_until(fleet.commits, lambda: fleet.log("driver"), timeout_s=120)
    fleet.kill("scheduler")
    fleet.assert_ends(UNFINISHED, within_s=220)
    assert "cluster was lost" in fleet.log("driver")
    before = fleet.commits()
    assert len(before) < SHARDS, "killed too late"
    fleet.kill("first")
    fleet.scheduler()
    fleet.worker("first")
    fleet.driver()
    fleet.assert_ends(DONE, within_s=180)
    assert content(fleet.output) == expected
    assert before.items() <= fleet.commits().items(), "committed shards are not repeated"


def test_a_frozen_machines_shard_runs_elsewhere_and_waking_is_safe(fleet: Fleet, expected: dict[str, bytes]) -> None:
    """Stop worker and nanny, as when a machine is suspended or migrated, and continue them after the run."""
    fleet.settings["DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"] = "25s"
    fleet.scheduler()
    fleet.worker("frozen")
    fleet.worker("awake")
    fleet.wait_for_workers(2)
    fleet.driver()
    wait_until(
        lambda: len(fleet.workers_of_commits()) == 2, lambda: f"commits by {fleet.workers_of_commits()}", timeout_s=120
    )
    frozen = fleet.process_tree("frozen")
    for process in frozen:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP)
    assert len(fleet.commits()) < SHARDS - 1, "frozen too late"
    fleet.assert_ends(DONE, within_s=180)
    assert content(fleet.output) == expected
    before = fleet.commits()
    for process in frozen:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)
    time.sleep(8)  # in this time the frozen worker ends the shard that it had begun
    assert fleet.commits() == before, "the first commit stays"
    assert content(fleet.output) == expected
    assert verify(str(fleet.output)).findings == ()


def test_a_slow_machines_shard_is_doubled_and_the_first_commit_wins(fleet: Fleet, expected: dict[str, bytes]) -> None:
    """Hold the decoders of a machine that is alive and answers."""
    (fleet.folder / "held").mkdir()
    hold = hold_in(fleet.folder / "held")
    hold.touch()
    fleet.scheduler()
    fleet.worker("quick")
    python_path, fleet.settings["PYTHONPATH"] = fleet.settings["PYTHONPATH"], prepend_python_path(hold.parent)
    fleet.worker("slow")
    fleet.settings["PYTHONPATH"] = python_path
    fleet.wait_for_workers(2)
    fleet.driver("--decode-timeout-s", "600")
    fleet.assert_ends(DONE, within_s=300)
    assert "starting it on a second worker too" in fleet.log("driver")
    assert fleet.workers_of_commits() == {"quick"}
    before = fleet.commits()
    assert content(fleet.output) == expected
    hold.unlink()
    wait_until(lambda: not list((fleet.output / "_parts").glob("*/*")), "parts are left", timeout_s=120)
    assert fleet.commits() == before, "the first commit stays"
    assert content(fleet.output) == expected
    assert verify(str(fleet.output)).findings == ()


# Allocates memory in the first worker process once a shard has begun, and frees it after a while.
GREEDY = """
import os, pathlib, threading, time
import psutil

FOLDER = pathlib.Path(os.environ["GREEDY_FOLDER"])

def allocate(share, limit, seconds):
    while not list((FOLDER / "out/_parts").glob("*/*")):
        time.sleep(0.02)
    blocks, process, until = [], psutil.Process(), None
    while until is None or time.monotonic() < until:
        missing = int(share * limit) - process.memory_info().rss
        if missing > 0:
            blocks.append(b"x" * min(missing, 500_000_000))
        elif until is None:
            until = time.monotonic() + seconds
        time.sleep(0.02)
    blocks.clear()

async def dask_setup(worker):
    try:
        (FOLDER / "greedy").touch(exist_ok=False)
    except FileExistsError:
        return
    options = float(os.environ["GREEDY_SHARE"]), worker.memory_manager.memory_limit, float(os.environ["GREEDY_S"])
    threading.Thread(target=allocate, args=options, daemon=True).start()
"""


@pytest.mark.parametrize(("share", "message"), [(0.87, "Pausing worker"), (1.1, "exceeded 95% memory budget")])
def test_a_worker_short_of_memory_loses_no_shard(
    fleet: Fleet, expected: dict[str, bytes], share: float, message: str
) -> None:
    (fleet.folder / "greedy.py").write_text(GREEDY)
    fleet.settings |= {"GREEDY_FOLDER": str(fleet.folder), "GREEDY_SHARE": str(share), "GREEDY_S": "5"}
    fleet.scheduler()
    fleet.worker("greedy", "--memory-limit", "3GB", "--preload", str(fleet.folder / "greedy.py"))
    fleet.wait_for_workers(1)
    fleet.driver()
    fleet.assert_ends(DONE, within_s=240)
    assert message in (fleet.folder / "greedy.log").read_text()
    assert content(fleet.output) == expected


def addresses(client: Client) -> list[str]:
    return [worker.address for worker in ClusterHealth().workers(client)]


# 80 arrays of float64 are 1.9 GB, of the 3 GB that the worker may use, including torch.
ARRAY_LENGTH, ARRAYS = 3_000_000, 80


def test_a_worker_above_its_limit_spills_and_the_run_continues(
    fleet: Fleet, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fill the worker with arrays of another program: the results of a run have only some hundred bytes."""
    monkeypatch.setenv("PYTHONPATH", delay_decoders(fleet.folder / "slower", 3.0)["PYTHONPATH"])
    client = connect("local-cpu", n_workers=1, dashboard_address=":0", memory_limit="3GB")
    (worker,) = addresses(client)
    arrays: list[Future] = []
    done_when_spilled: list[int] = []

    def fill_and_measure(*_: object) -> None:
        if not arrays and fleet.commits():
            arrays.extend(client.scatter([np.full(ARRAY_LENGTH, value) for value in range(ARRAYS)], direct=True))
        identity = client.sync(client.scheduler.identity, n_workers=-1)
        spilled = identity["workers"][worker]["metrics"]["spilled_bytes"]["disk"]
        if spilled > 8 * ARRAY_LENGTH:
            done_when_spilled.append(len(fleet.commits()))

    try:
        summary = run.run(config(fleet.catalog, fleet.output), client=client, on_tick=fill_and_measure)
        sums = client.gather(client.map(lambda array: float(array.sum()), arrays))
        after = addresses(client)
    finally:
        close(client)
    assert summary.exit_code == DONE
    assert done_when_spilled, "nothing was spilled"
    assert done_when_spilled[0] < SHARDS, "spilled only after the run"
    assert sums == [float(ARRAY_LENGTH * value) for value in range(ARRAYS)], "spilled arrays are read back"
    assert after == [worker], "the worker was restarted"
    assert content(fleet.output) == expected


def test_a_spot_notice_moves_a_partition_to_another_node_in_time(
    fleet: Fleet, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """Send the driver the SIGTERM of systemd after a spot notice; `watch_spot.sh` is tested in deployment."""
    fleet.settings |= {
        "PARTITION_INDEX": "0",
        "PARTITION_COUNT": "1",
        "AUDIOPIPE_CATALOG": str(fleet.catalog),
        "AUDIOPIPE_OUTPUT": str(fleet.output),
        "AUDIOPIPE_COMMAND": str(BIN / "audiopipe"),
        "AUDIOPIPE_OPTIONS": f"{FIXED} --cluster local-cpu --workers 1",
    }
    first = fleet.start("driver", str(RUN_PARTITION))
    wait_until(fleet.commits, lambda: fleet.log("driver"), timeout_s=120)
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=60) not in (DONE, 2), fleet.log("driver")
    assert len(fleet.commits()) < SHARDS, "the notice came too late"
    wait_until(lambda: not fleet.process_tree("driver"), "processes of the driver are left", timeout_s=30)
    fleet.start("driver", str(RUN_PARTITION))
    fleet.assert_ends(DONE, within_s=180)
    assert content(fleet.output) == expected


def test_a_run_on_adaptive_workers_scales_up_and_loses_nothing(fleet: Fleet, expected: dict[str, bytes]) -> None:
    # Dask starts one worker for every five seconds of work.
    fleet.settings |= delay_decoders(fleet.folder / "slower", 3.0)
    adaptive = {"engine": "dask.distributed.LocalCluster", "host": "127.0.0.1", "n_workers": 0, "threads_per_worker": 1}
    adaptive |= {"dashboard_address": ":0", "adapt": {"minimum": 1, "maximum": 2, "interval": "200ms"}}
    (fleet.folder / "profiles.yaml").write_text(yaml.safe_dump({"elastic": adaptive}))
    fleet.settings["AUDIOPIPE_PROFILES"] = str(fleet.folder / "profiles.yaml")
    fleet.driver(cluster="elastic")
    fleet.assert_ends(DONE, within_s=240)
    assert len(fleet.workers_of_commits()) == 2, "one worker started at first and another for the work"
    assert content(fleet.output) == expected


def test_workers_that_retire_in_turn_are_replaced_without_loss(
    fleet: Fleet, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four shards take a worker longer than its lifetime on any machine, and one shard takes less.
    monkeypatch.setenv("PYTHONPATH", delay_decoders(fleet.folder / "slower", 5.0)["PYTHONPATH"])
    retired_or_running: set[str] = set()
    lifetime = {"duration": "20 seconds", "stagger": "2 seconds"}
    client = connect("local-cpu", n_workers=2, threads_per_worker=1, dashboard_address=":0", lifetime=lifetime)
    try:
        settings = config(fleet.catalog, fleet.output)
        summary = run.run(settings, client=client, on_tick=lambda *_: retired_or_running.update(addresses(client)))
    finally:
        close(client)
    assert summary.exit_code == DONE
    assert len(retired_or_running) > 2, "no worker retired"
    assert content(fleet.output) == expected
