"""Two workers of which one is broken: no healthy video is lost, the run finishes, and the broken worker is named."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from factories import delay_decoders, inject_decoder_code, is_decoder_process
from fleet import BIN, FIXED, Fleet
from output_factory import RUN_ID, content, corpus
from waiting import wait_until

from audiopipe.bench.servers.clock import MovableClock
from audiopipe.dataset.commit import read_commits
from audiopipe.dataset.verify import verify
from audiopipe.ledger import WorkerStatus, open_ledger
from audiopipe.store.objects import Store

VIDEOS, SHARDS = 12, 6
DONE = 0
# Each process sees here what its working directory holds, so that one of them can lack the mount of the sources.
MOUNT = "/proc/self/cwd/videos"
DECODE_TIMEOUT_S, STOP_S = 5.0, 12.0

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with videos and a catalog that names them by their mount."""
    folder = tmp_path_factory.mktemp("mounted") / "sources"
    catalog = corpus(folder, videos=VIDEOS, missing=False)
    table = pq.read_table(catalog)
    keys = pa.array([f"{MOUNT}/{Path(key).name}" for key in table["r2_tar_key"].to_pylist()])
    pq.write_table(table.set_column(table.schema.get_field_index("r2_tar_key"), "r2_tar_key", keys), catalog)
    return folder


@pytest.fixture(scope="module")
def expected(mounted: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Make the dataset in another process, whose decoders start in its folder."""
    output = tmp_path_factory.mktemp("expected") / "out"
    command = ["run", "--catalog", str(mounted / "catalog.parquet"), "--output", str(output), "--quiet"]
    options = [*FIXED.split(), "--cluster", "local-cpu", "--workers", "1"]
    subprocess.run([BIN / "audiopipe", *command, *options], check=True, cwd=mounted, timeout=240)
    return content(str(output))


@pytest.fixture
def fleet(mounted: Path, tmp_path: Path) -> Iterator[Fleet]:
    folder = tmp_path / "fleet"
    folder.mkdir()
    (folder / "videos").symlink_to(mounted / "videos")
    # The delay leaves time for a failure while a shard is made.
    fleet = Fleet(folder, catalog=mounted / "catalog.parquet", settings=delay_decoders(tmp_path / "delayed", 0.5))
    yield fleet
    for name in fleet.running:
        fleet.kill(name)


def run_with(fleet: Fleet, *options: str, folder: Path | None = None, **settings: str) -> None:
    """Start the fleet and the driver; `folder` and `settings` are those of the broken worker."""
    fleet.scheduler()
    fleet.worker("broken", folder=folder, variables=settings)
    fleet.worker("sound")
    fleet.wait_for_workers(2)
    fleet.driver(*options)


def assert_finished(fleet: Fleet, expected: dict[str, bytes]) -> None:
    """Check that the run ended well, with every video and the same bytes."""
    fleet.assert_ends(DONE, within_s=300)
    results = [commit.result for commit in read_commits(Store(str(fleet.output))).values()]
    assert [result.dead_letters for result in results] == [()] * SHARDS
    assert content(fleet.output) == expected
    assert verify(str(fleet.output)).findings == ()


def assert_retired(fleet: Fleet, reason: str) -> None:
    """Check that log, summary and ledger name the broken worker with its reason, and no other."""
    log = fleet.log("driver")
    assert "worker broken is retired: " in log
    assert f"retired   worker broken: {reason}" in log
    assert "worker sound is retired" not in log
    with open_ledger(None, str(fleet.output), create=False) as ledger:
        rows = {row.worker_id.rpartition("/")[2]: row for row in ledger.workers(RUN_ID)}
    assert rows["broken"].status is WorkerStatus.FAILED
    assert (rows["broken"].last_error or "").startswith(reason)
    assert rows["sound"].status is WorkerStatus.DONE
    assert fleet.workers_of_commits() == {"sound"}


def test_a_worker_without_the_mount_of_the_sources_is_retired(
    fleet: Fleet, expected: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    run_with(fleet, folder=tmp_path / "elsewhere")
    assert_finished(fleet, expected)
    assert_retired(fleet, "SourceUnavailable: ")


@pytest.mark.privileged
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk needs root")
def test_a_worker_with_a_full_scratch_disk_is_retired(fleet: Fleet, expected: dict[str, bytes], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "audiopipe", str(disk)], check=True)
    try:
        run_with(fleet, TMPDIR=str(disk))
        assert_finished(fleet, expected)
        assert_retired(fleet, f"BrokenWorker: scratch folder {disk}")
    finally:
        fleet.kill("broken")
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_worker_without_a_driver_for_its_gpu_is_retired(fleet: Fleet, expected: dict[str, bytes]) -> None:
    run_with(fleet, "--device", "auto", CUDA_VISIBLE_DEVICES="7")
    assert_finished(fleet, expected)
    assert_retired(fleet, "BrokenWorker: PyTorch ")


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc, for a clock that can be set")
def test_a_worker_whose_clock_jumps_loses_nothing(fleet: Fleet, expected: dict[str, bytes], tmp_path: Path) -> None:
    clock = MovableClock(tmp_path)
    run_with(fleet, **clock.environment)
    for jump in (86_400, -7200, 3600):
        before = len(fleet.commits())
        wait_until(
            lambda before=before: len(fleet.commits()) > before or fleet.running["driver"].poll() is not None,
            lambda: fleet.log("driver"),
        )
        clock.set(jump)
    assert_finished(fleet, expected)


def has_waiting_decoder(fleet: Fleet) -> bool:
    """Check whether the broken worker has a decoder that is past the header, which takes less than a second."""
    for process in fleet.process_tree("broken"):
        with suppress(psutil.NoSuchProcess):
            if is_decoder_process(process.pid) and time.time() - process.create_time() > 1.0:
                return True
    return False


def test_a_worker_that_is_stopped_for_a_while_blames_no_video(
    fleet: Fleet, expected: dict[str, bytes], tmp_path: Path
) -> None:
    """Stop worker, nanny and decoders, as `docker pause` or a moved virtual machine does."""
    # The worker waits for samples when it is stopped: a plain limit would have passed when it continues.
    waiting = inject_decoder_code(tmp_path / "waiting", "if job == 'decode': time.sleep(3.0)")
    run_with(fleet, "--decode-timeout-s", str(DECODE_TIMEOUT_S), **waiting)
    wait_until(lambda: has_waiting_decoder(fleet), lambda: fleet.log("driver"), poll_s=0.1)
    stopped = fleet.process_tree("broken")
    decoders = [process for process in stopped if is_decoder_process(process.pid)]
    send(signal.SIGSTOP, stopped)
    time.sleep(STOP_S)  # longer than the limit of the decoders
    send(signal.SIGCONT, [process for process in stopped if process not in decoders])
    time.sleep(2.0)  # the worker looks at the clock before its decoders send anything
    send(signal.SIGCONT, decoders)
    assert_finished(fleet, expected)
    assert "attempt 1 of" not in fleet.log("driver"), "no attempt has failed"


def send(number: signal.Signals, processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)
