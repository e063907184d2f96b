"""Faults of a machine: full and read-only disks, a clock that jumps, a spot notice, a lost scheduler, a stuck one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Scheduler
from distributed.core import Status
from output_factory import RUN_ID, config, content, corpus, make_output
from processes import Processes
from waiting import wait_until

from audiopipe.bench.servers.clock import MovableClock
from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.verify import verify
from audiopipe.driver import run
from audiopipe.pipeline.scratch import PREFIX

AUDIOPIPE = str(Path(sys.executable).parent / "audiopipe")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk needs root")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("faults") / "c", videos=4)


@pytest.fixture(scope="module")
def reference(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the files of an undisturbed run."""
    out = tmp_path_factory.mktemp("reference") / "out"
    return content(make_output(config(catalog, out, shard_videos=1)).url)


def command(catalog: Path, output: Path, *options: str) -> list[str]:
    fixed = {"shard-videos": "1", "min-snr-db": "none", "max-silence-ratio": "none", "run-id": RUN_ID}
    fixed |= {"device": "cpu", "workers": "1", "shards-in-flight": "1", "max-failed-share": "1"}
    arguments = [item for name, value in fixed.items() for item in (f"--{name}", value)]
    return [AUDIOPIPE, "run", "--catalog", str(catalog), "--output", str(output), *arguments, *options]


def execute(arguments: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, check=False, capture_output=True, text=True, timeout=250, env=environment)


def assert_message(process: subprocess.CompletedProcess[str], message: str) -> None:
    """Check that the output has the message, and neither stack traces nor Dask's log."""
    output = process.stdout + process.stderr
    assert message in output, output
    assert "Traceback" not in output, output
    assert "distributed." not in process.stderr.replace("distributed/node.py", ""), output


def count_commits(folder: Path) -> int:
    return len(list(folder.glob("out/_commits/*.json")))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a small disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=280k", "audiopipe", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.privileged
@as_root
def test_a_full_output_ends_the_run_and_resumes_when_there_is_room(
    catalog: Path, reference: dict[str, bytes], disk: Path, tmp_path: Path
) -> None:
    ledger = ["--ledger", str(tmp_path / "ledger.sqlite"), "--retries", "0"]
    full = execute(command(catalog, disk / "out", *ledger))
    assert full.returncode == 2, full.stderr
    assert_message(full, "No space left on device; make room")
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    assert execute(command(catalog, disk / "out", *ledger)).returncode == 3
    collect_garbage(str(disk / "out"), remove=True, min_age_h=0)  # parts whose commit found no room
    assert content(disk / "out") == reference
    assert verify(str(disk / "out")).findings == ()


@pytest.mark.privileged
@as_root
def test_a_full_scratch_disk_is_named_and_leaves_the_shards_open(
    catalog: Path, reference: dict[str, bytes], disk: Path, tmp_path: Path
) -> None:
    (disk / "ballast").write_bytes(bytes(240 << 10))
    full = execute(command(catalog, tmp_path / "out", "--scratch", str(disk)))
    assert full.returncode == 2, full.stderr
    assert_message(full, f"no worker can work; the last was cpu-0: BrokenWorker: scratch folder {disk}")
    assert list(disk.glob(f"{PREFIX}*")) == []
    assert execute(command(catalog, tmp_path / "out")).returncode == 3
    assert content(tmp_path / "out") == reference


@pytest.mark.privileged
@as_root
def test_a_read_only_output_is_refused_before_any_work(catalog: Path, disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    refused = execute(command(catalog, disk / "out"))
    assert refused.returncode == 2
    assert_message(refused, "Read-only file system; make room, or make it writable")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc, for a clock that can be set")
def test_a_clock_that_jumps_back_and_forth_changes_nothing(
    catalog: Path, reference: dict[str, bytes], tmp_path: Path
) -> None:
    clock = MovableClock(tmp_path)
    faked = os.environ | clock.environment
    clock.set(86_400)
    shown = execute([sys.executable, "-c", "import time; print(time.time())"], faked)
    assert float(shown.stdout) - time.time() > 80_000
    clock.set(0)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command(catalog, tmp_path / "out"), stdout=log, stderr=log, env=faked)
        try:
            for jump in (-10_800, 172_800, -3_456_000):
                before = count_commits(tmp_path)
                wait_until(
                    lambda before=before: count_commits(tmp_path) > before or process.poll() is not None,
                    timeout_s=240,
                )
                clock.set(jump)
            wait_until(lambda: process.poll() is not None, timeout_s=500)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 3, (tmp_path / "log").read_text()
    assert content(tmp_path / "out") == reference
    assert verify(str(tmp_path / "out")).findings == ()
    second = execute(command(catalog, tmp_path / "out"))
    assert second.returncode == 3
    assert "all 5 shards were committed before" in second.stdout


@pytest.mark.parametrize("stuck", ["workers", "client"])
def test_a_cluster_whose_messages_are_stuck_is_replaced(
    catalog: Path, reference: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stuck: str
) -> None:
    """Messages are stuck for a day if the clock is set back by a day in the milliseconds after a batch of them."""
    monkeypatch.setattr("audiopipe.driver.cluster_health.STALL_CHECK_S", 2.0)
    schedulers: list[Scheduler] = []  # of successive clusters

    def delay_messages(*_: object) -> None:
        running = [item for item in Scheduler._instances if item.status is Status.running and item not in schedulers]
        if not running or not count_commits(tmp_path):
            return
        schedulers.extend(running)
        if len(schedulers) == 1:
            streams = running[0].stream_comms if stuck == "workers" else running[0].client_comms
            for stream in streams.values():
                stream.next_deadline = time.time() + 86_400

    settings = config(catalog, tmp_path / "out", shard_videos=1, workers=1, shards_in_flight=1, device="cpu")
    summary = run.run(settings, on_tick=delay_messages)
    assert len(schedulers) == 2
    assert (summary.exit_code, summary.shards_failed) == (3, {})
    assert content(tmp_path / "out") == reference


def test_scratch_of_a_killed_run_is_removed_by_the_next(
    catalog: Path, reference: dict[str, bytes], tmp_path: Path
) -> None:
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    arguments = command(catalog, out, "--scratch", str(scratch))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(arguments, stdout=log, stderr=log)
    wait_until(lambda: list(scratch.glob(f"{PREFIX}*")), timeout_s=240)
    for member in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        member.kill()
    process.wait()
    (scratch / "foreign").mkdir()
    assert execute(arguments).returncode == 3
    assert [path.name for path in scratch.iterdir()] == ["foreign"]
    assert content(out) == reference


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    processes.ensure()
    yield processes
    processes.stop()


def existing(catalog: Path, output: Path) -> list[str]:
    return command(catalog, output, "--cluster", "existing", "--heartbeat-s", "1")[1:]


def test_a_terminated_machine_leaves_in_20_s_and_its_work_moves(
    catalog: Path, reference: dict[str, bytes], processes: Processes, tmp_path: Path
) -> None:
    driver = processes.start_driver(existing(catalog, tmp_path / "out"))
    wait_until((tmp_path / "out/_plan").exists, timeout_s=240)
    processes.signal("nanny", signal.SIGTERM)
    processes.running["nanny"].wait(20)
    processes.ensure()
    driver.join(200)
    assert driver.exitcode == 3, processes.log("driver")
    assert content(tmp_path / "out") == reference


def test_a_driver_without_its_scheduler_ends_soon_with_advice(
    catalog: Path, reference: dict[str, bytes], processes: Processes, tmp_path: Path
) -> None:
    driver = processes.start_driver(existing(catalog, tmp_path / "out"))
    wait_until((tmp_path / "out/_plan").exists, timeout_s=240)
    wait_until(lambda: "Dask dashboard" in processes.log("driver"), timeout_s=240)
    processes.signal("scheduler", signal.SIGKILL)
    driver.join(150)
    assert driver.exitcode == 4, processes.log("driver")
    assert "the cluster was lost: its scheduler has not answered" in processes.log("driver")
    assert "run the same again" in processes.log("driver")
    processes.ensure()
    second = processes.start_driver(existing(catalog, tmp_path / "out"))
    second.join(200)
    assert second.exitcode == 3
    assert content(tmp_path / "out") == reference
