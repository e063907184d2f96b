"""What a machine does to a run: full and read-only disks, a clock that jumps, a notice to leave, a lost scheduler."""

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

from audiopipe.dataset.verify import verify
from audiopipe.driver import run
from audiopipe.pipeline.scratch import PREFIX

COMMAND = str(Path(sys.executable).parent / "audiopipe")
# The wall clock alone, as when a real one is set; libfaketime moves the absolute end of a monotonic sleep too.
CLOCK = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long jump(void) {
  char text[32] = {0};
  int file = open(getenv("CLOCK_JUMP"), O_RDONLY);
  if (file < 0) return 0;
  long count = read(file, text, sizeof text - 1);
  close(file);
  return count > 0 ? atol(text) : 0;
}
int clock_gettime(clockid_t id, struct timespec *now) {
  int result = syscall(SYS_clock_gettime, id, now);
  if (id == CLOCK_REALTIME) now->tv_sec += jump();
  return result;
}
int gettimeofday(struct timeval *now, void *zone) {
  struct timespec real;
  clock_gettime(CLOCK_REALTIME, &real);
  now->tv_sec = real.tv_sec;
  now->tv_usec = real.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *to) {
  struct timespec real;
  clock_gettime(CLOCK_REALTIME, &real);
  if (to) *to = real.tv_sec;
  return real.tv_sec;
}
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a disk needs root")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("faults") / "c", videos=4)


@pytest.fixture(scope="module")
def calm(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What an undisturbed run gives."""
    out = tmp_path_factory.mktemp("calm") / "out"
    return content(make_output(config(catalog, out, shard_videos=1)).url)


def job(catalog: Path, output: Path, *more: str) -> list[str]:
    fixed = {"shard-videos": "1", "min-snr-db": "none", "max-silence-ratio": "none", "run-id": RUN_ID}
    fixed |= {"device": "cpu", "workers": "1", "shards-in-flight": "1"}
    words = [word for name, value in fixed.items() for word in (f"--{name}", value)]
    return [COMMAND, "run", "--catalog", str(catalog), "--output", str(output), *words, *more]


def done(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=250, env=environment)


def told_once(process: subprocess.CompletedProcess[str], what: str) -> None:
    """The error is named, without stack traces or Dask's log."""
    said = process.stdout + process.stderr
    assert what in said, said
    assert "Traceback" not in said, said
    assert "distributed." not in process.stderr.replace("distributed/node.py", ""), said


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=280k", "audiopipe", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.privileged
@as_root
def test_a_full_output_ends_the_run_and_resumes_when_there_is_room(
    catalog: Path, calm: dict[str, bytes], disk: Path, tmp_path: Path
) -> None:
    ledger = ["--ledger", str(tmp_path / "ledger.sqlite"), "--retries", "0"]
    full = done(job(catalog, disk / "out", *ledger))
    assert full.returncode == 4, full.stderr
    told_once(full, "No space left on device; make room")
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    assert done(job(catalog, disk / "out", *ledger)).returncode == 3
    assert content(disk / "out") == calm
    assert verify(str(disk / "out")).findings == ()


@pytest.mark.privileged
@as_root
def test_a_full_scratch_disk_is_named_and_leaves_the_shards_open(
    catalog: Path, calm: dict[str, bytes], disk: Path, tmp_path: Path
) -> None:
    (disk / "ballast").write_bytes(bytes(240 << 10))
    full = done(job(catalog, tmp_path / "out", "--scratch", str(disk), "--retries", "0"))
    assert full.returncode == 4, full.stderr
    told_once(full, f"scratch folder {disk}: No space left on device")
    assert list(disk.glob(f"{PREFIX}*")) == []
    assert done(job(catalog, tmp_path / "out")).returncode == 3
    assert content(tmp_path / "out") == calm


@pytest.mark.privileged
@as_root
def test_a_read_only_output_is_refused_before_any_work(catalog: Path, disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    refused = done(job(catalog, disk / "out"))
    assert refused.returncode == 2
    told_once(refused, "Read-only file system; make room, or make it writable")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.timeout(900)
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc, for a clock that can be set")
def test_a_clock_that_jumps_back_and_forth_changes_nothing(
    catalog: Path, calm: dict[str, bytes], tmp_path: Path
) -> None:
    clock, library = tmp_path / "clock", tmp_path / "clock.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-xc", "-", "-o", str(library)], input=CLOCK, text=True, check=True)
    clock.write_text("0")
    faked = os.environ | {"LD_PRELOAD": str(library), "CLOCK_JUMP": str(clock)}
    (tmp_path / "later").write_text("86400")
    told = done([sys.executable, "-c", "import time; print(time.time())"], faked | {"CLOCK_JUMP": f"{tmp_path}/later"})
    assert float(told.stdout) - time.time() > 80_000
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(job(catalog, tmp_path / "out"), stdout=log, stderr=log, env=faked)
        try:
            for jump in ("-10800", "172800", "-3456000"):
                seen = len(list(tmp_path.glob("out/_commits/*.json")))
                wait_until(
                    lambda seen=seen: len(list(tmp_path.glob("out/_commits/*.json"))) > seen or _ended(process),
                    timeout_s=240,
                )
                clock.write_text(jump)
            wait_until(lambda: _ended(process), timeout_s=500)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == 3, (tmp_path / "log").read_text()
    assert content(tmp_path / "out") == calm
    assert verify(str(tmp_path / "out")).findings == ()
    again = done(job(catalog, tmp_path / "out"))
    assert again.returncode == 3
    assert "all 5 shards were committed before" in again.stdout


@pytest.mark.parametrize("stuck", ["workers", "client"])
def test_a_cluster_whose_messages_are_stuck_is_replaced(
    catalog: Path, calm: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stuck: str
) -> None:
    """As where a clock is set back by a day, in the milliseconds after a message."""
    monkeypatch.setattr("audiopipe.driver.cluster_health.STALL_CHECK_S", 2.0)
    schedulers: list[Scheduler] = []  # of one cluster after the other

    def hold_back(*_: object) -> None:
        running = [one for one in Scheduler._instances if one.status is Status.running and one not in schedulers]
        if not running or not list(tmp_path.glob("out/_commits/*.json")):
            return
        schedulers.extend(running)
        if len(schedulers) == 1:
            streams = running[0].stream_comms if stuck == "workers" else running[0].client_comms
            for stream in streams.values():
                stream.next_deadline = time.time() + 86_400

    asked = config(catalog, tmp_path / "out", shard_videos=1, workers=1, shards_in_flight=1, device="cpu")
    summary = run.run(asked, on_tick=hold_back)
    assert len(schedulers) == 2
    assert (summary.exit_code, summary.shards_failed) == (3, {})
    assert content(tmp_path / "out") == calm


def _ended(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is not None


def test_scratch_of_a_killed_run_is_removed_by_the_next(catalog: Path, calm: dict[str, bytes], tmp_path: Path) -> None:
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    command = job(catalog, out, "--scratch", str(scratch))
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    wait_until(lambda: list(scratch.glob(f"{PREFIX}*")), timeout_s=240)
    for member in [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]:
        member.kill()
    process.wait()
    (scratch / "somebody-elses").mkdir()
    assert done(command).returncode == 3
    assert [path.name for path in scratch.iterdir()] == ["somebody-elses"]
    assert content(out) == calm


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    processes.ensure()
    yield processes
    processes.stop()


def existing(catalog: Path, output: Path) -> list[str]:
    return job(catalog, output, "--cluster", "existing", "--heartbeat-s", "1")[1:]


def test_a_terminated_machine_leaves_in_20_s_and_its_work_moves(
    catalog: Path, calm: dict[str, bytes], processes: Processes, tmp_path: Path
) -> None:
    driver = processes.start_driver(existing(catalog, tmp_path / "out"))
    wait_until((tmp_path / "out/_plan").exists, timeout_s=240)
    processes.signal("nanny", signal.SIGTERM)
    processes.running["nanny"].wait(20)
    processes.ensure()
    driver.join(200)
    assert driver.exitcode == 3, processes.log("driver")
    assert content(tmp_path / "out") == calm


def test_a_driver_without_its_scheduler_ends_soon_with_advice(
    catalog: Path, calm: dict[str, bytes], processes: Processes, tmp_path: Path
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
    again = processes.start_driver(existing(catalog, tmp_path / "out"))
    again.join(200)
    assert again.exitcode == 3
    assert content(tmp_path / "out") == calm
