"""Run a soak: start the servers and the fleet, measure an undisturbed run, disturb a long one, check what it made."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from audiopipe.bench.machine import Machine
from audiopipe.bench.servers.clock import MovableClock
from audiopipe.bench.servers.fleet import Fleet
from audiopipe.bench.servers.s3 import BUCKET
from audiopipe.bench.soak.checks import OutputChecker, check_ledger, check_restarts, check_retired, find_retired
from audiopipe.bench.soak.faults import FaultSchedule
from audiopipe.bench.soak.hosts import CLOCK, DISK, SLOW, SPOT, STEADY, Hosts
from audiopipe.bench.soak.inputs import SoakInput, measure_rate
from audiopipe.bench.soak.result import SoakResult
from audiopipe.bench.soak.sampler import Sampler
from audiopipe.bench.soak.servers import SoakServers, start_servers
from audiopipe.errors import ConfigError
from audiopipe.ledger import default_path
from audiopipe.store.objects import Store

__all__ = ["SoakSettings", "run_soak"]

DRIVER, SCHEDULER = "driver", "scheduler"
OPTIONS = "--cluster existing --device cpu --heartbeat-s 2 --max-failed-share 1 --min-snr-db none --quiet"
ENDED, STOPPED = (0, 3), 4  # exit codes of a driver: done, done with dead letters; stopped
# Videos of a soak that ends with its time, relative to what the undisturbed run processes in it, and at least: the work
# must not end before the time does.
PLANNED, MIN_PLANNED = 3.0, 400
START_S = 900.0  # longest time until the first commit
TAIL_SHARDS = 6  # handed out last, when workers run out of work: their time does not count
SAMPLED_SHARDS = 12
KEPT_MB_PER_SOURCE_MB = 0.7

Log = Callable[[str], None]


@dataclass(frozen=True)
class SoakSettings:
    """The size of a soak.

    Attributes:
        minutes: length of the disturbed run, which is then stopped as by a shutdown.
        videos: number of videos, which the disturbed run processes to the end, however long that takes.
        shard_videos: videos in a shard.
        fault_share: share of the requests to S3 that fail at any time.
        cycle_s: seconds after which the faults start again; default: at least three cycles in a quarter, of at most
            five minutes.
    """

    minutes: float = 40.0
    videos: int | None = None
    shard_videos: int = 4
    fault_share: float = 0.02
    cycle_s: float | None = None
    seed: int = 0

    @property
    def fault_cycle_s(self) -> float:
        """The seconds after which the faults start again."""
        return self.cycle_s or min(300.0, max(30.0, self.minutes * 60 / 12))

    @property
    def interval_s(self) -> float:
        """The seconds between samples."""
        return min(30.0, max(1.0, self.minutes * 60 / 600))


def run_soak(catalog: Path, folder: Path, settings: SoakSettings, log: Log) -> SoakResult:
    """Run a soak in an empty folder.

    Args:
        catalog: of a corpus on this machine, as `audiopipe demo` makes it.
        log: receives each line of progress.

    Raises:
        ConfigError: a program is missing, or the disk is too small.
        RuntimeError: a server or a driver ended early.
    """
    with start_servers(folder, settings.fault_share, settings.seed) as servers:
        return _Soak(catalog, folder, settings, servers, log).run()


class _Soak:
    """The state of a soak."""

    def __init__(self, catalog: Path, folder: Path, settings: SoakSettings, servers: SoakServers, log: Log) -> None:
        self.folder, self.settings, self.servers, self.log = folder, settings, servers, log
        self.source = SoakInput.of(catalog, settings.shard_videos)
        self.store = Store(f"s3://{BUCKET}/soak")
        self.started = time.monotonic()
        state = {"XDG_STATE_HOME": str(folder / "state"), "AUDIOPIPE_PROFILES": ""}
        self.fleet = Fleet(folder, settings=state)
        self.omitted: list[str] = []
        environment = servers.s3.environment(servers.endpoint)
        self.hosts = Hosts(self.fleet, environment, self._make_clock())
        if self.hosts.mount is None:
            self.omitted.append("a full disk: this system allows no private mounts")

    def run(self) -> SoakResult:
        """Run the undisturbed and the disturbed run, and check the output."""
        machine = Machine.detect().as_text()
        self.source.upload(self.store)
        try:
            self.fleet.scheduler()
            for kind in (STEADY, SLOW):
                self.hosts.start(kind)
            rate = self._run_reference()
            repeats = self._repeats(rate)
            self.hosts.start(CLOCK)
            return self._run_disturbed(repeats, rate, machine)
        finally:
            self.fleet.kill_all()

    def _make_clock(self) -> MovableClock | None:
        try:
            return MovableClock(self.folder)
        except ConfigError as error:
            self.omitted.append(f"a clock that jumps: {error}")
            return None

    def _run_reference(self) -> float:
        """Process each source once without faults; return the videos per minute."""
        share, self.servers.proxy.share = self.servers.proxy.share, 0.0
        catalog = self.source.write_catalog(self.store, "reference", 1)
        self._start_driver(catalog, "reference", ledger=None)
        self._wait_for_driver(900.0, ENDED)
        self.servers.proxy.share = share
        rate = measure_rate(Store(f"{self.store.url}/reference"))
        self.log(f"undisturbed: {self.source.videos} videos, {rate:.0f} videos/min")
        return rate

    def _repeats(self, rate: float) -> int:
        expected = self.settings.videos or rate * self.settings.minutes
        videos = self.settings.videos or max(expected * PLANNED, MIN_PLANNED)
        repeats = max(1, math.ceil(videos / self.source.videos))
        needed_mb = expected / self.source.videos * self.source.megabytes * KEPT_MB_PER_SOURCE_MB
        free_mb = shutil.disk_usage(self.folder).free / 1e6
        if needed_mb > free_mb:
            raise ConfigError(
                f"the output needs about {needed_mb / 1000:.1f} GB and {self.folder} has {free_mb / 1000:.1f} GB free: "
                "choose another --folder, or fewer --videos"
            )
        end = "to the end" if self.settings.videos else f"for {self.settings.minutes:g} min"
        cycle_s = self.settings.fault_cycle_s
        self.log(f"soak: up to {repeats * self.source.videos:,} videos, {end}, faults every {cycle_s:.0f} s")
        self.log(f"the output needs about {needed_mb / 1000:.1f} GB in {self.folder}")
        return repeats

    def _run_disturbed(self, repeats: int, rate: float, machine: dict[str, str]) -> SoakResult:
        settings, servers = self.settings, self.servers
        catalog = self.source.write_catalog(self.store, "soak", repeats)
        videos = repeats * self.source.videos
        self.started = time.monotonic()
        ledger = self.folder / "state/audiopipe/ledgers" / default_path(f"{self.store.url}/output").name
        sampler = Sampler(self._pids, _is_worker, ledger, self.started, settings.interval_s)
        faults = FaultSchedule(
            self.hosts, servers.s3, servers.proxy, servers.supabase, self.started, settings.fault_cycle_s
        )
        self._start_driver(catalog, "output", ledger="supabase://")
        sampler.start()
        first = self._wait_for_first(sampler)
        faults.start()
        window_s = self._watch(sampler, videos, first)
        faults.stop()
        self._end_driver()
        sampler.stop()
        self.log(f"processed {sampler.videos:,} videos in {sampler.samples[-1].at_s / 60:.1f} min; checking the output")
        result = SoakResult(
            machine=machine,
            minutes=round(sampler.samples[-1].at_s / 60, 2),
            cycle_s=settings.fault_cycle_s,
            videos=sampler.videos,
            shards=0,
            is_complete=False,
            window=(first, max(window_s, first + settings.interval_s)),
            reference_rate=round(rate, 2),
            samples=sampler.samples,
            memory=sampler.memory,
            events=faults.events,
            s3_requests=servers.proxy.requests,
            s3_faults=dict(servers.proxy.faults),
            # A saved result names no folder of this machine.
            retired=find_retired(self.fleet.whole_log(DRIVER).replace(f"{self.folder}/", "")),
            omitted=self.omitted,
            checks=[check_restarts(sampler.restarted((STEADY, SLOW)))],
        )
        # The measurements of a day are not lost if a check raises.
        (self.folder / "measurements.json").write_text(json.dumps(result.to_dict()))
        return self._check(result, repeats)

    def _check(self, result: SoakResult, repeats: int) -> SoakResult:
        """Check the output and the ledger."""
        output, reference = (Store(f"{self.store.url}/{name}") for name in ("output", "reference"))
        checker = OutputChecker(output, reference, self.source.ids(repeats))
        checks = [
            *result.checks,
            *checker.check(SAMPLED_SHARDS),
            check_ledger(self.servers.supabase.postgres, checker.commits),
            check_retired(result.retired, (CLOCK, DISK)),
        ]
        videos = sum(commit.result.videos for commit in checker.commits.values())
        is_complete = not checker.open_shards
        return replace(result, videos=videos, shards=len(checker.commits), is_complete=is_complete, checks=checks)

    def _wait_for_first(self, sampler: Sampler) -> float:
        """Wait for the first commit, and return when that was: the driver has started, and the soak begins."""
        deadline = time.monotonic() + START_S
        while not sampler.videos and time.monotonic() < deadline and not self._driver_ends_within(0.1):
            pass
        return round(time.monotonic() - self.started, 2)

    def _watch(self, sampler: Sampler, videos: int, first: float) -> float:
        """Wait until the time is over or the last shards are handed out; return when that was, and log the state."""
        limit_s, tail = first + 60 * self.settings.minutes, TAIL_SHARDS * self.settings.shard_videos
        next_log = 0.0
        while not self._driver_ends_within(0.5):
            at_s = time.monotonic() - self.started
            if sampler.videos >= videos - tail:
                break
            if self.settings.videos is None and at_s > limit_s:
                break
            if at_s >= next_log:
                self.log(f"{at_s / 60:6.1f} min  {sampler.videos:,} of {videos:,} videos")
                next_log = at_s + max(10.0, self.settings.minutes)
        return round(time.monotonic() - self.started, 2)

    def _driver_ends_within(self, seconds: float) -> bool:
        """Wait for the end of the driver, at most for some seconds."""
        with suppress(subprocess.TimeoutExpired):
            self.fleet.running[DRIVER].wait(seconds)
        return not self.fleet.is_running(DRIVER)

    def _start_driver(self, catalog: str, output: str, ledger: str | None) -> None:
        url = f"{self.store.url}/{output}"
        command = ["run", "--catalog", catalog, "--output", url, "--shard-videos", str(self.settings.shard_videos)]
        command += [*OPTIONS.split(), *(("--ledger", ledger) if ledger else ())]
        self.fleet.start(DRIVER, "audiopipe", *command, variables=self._driver_variables())

    def _end_driver(self) -> None:
        """Wait for a run that has all its time, and stop any other as a shutdown does; send what Supabase lacks."""
        is_stopped = self.settings.videos is None
        if is_stopped:
            self.fleet.running[DRIVER].send_signal(signal.SIGTERM)
        self._wait_for_driver(600.0 + 10 * self.settings.minutes, ENDED + is_stopped * (STOPPED,))
        command = ["sync", f"{self.store.url}/output"]
        if self.fleet.start("sync", "audiopipe", *command, variables=self._driver_variables()).wait(120):
            raise RuntimeError(f"the ledger cannot be sent to Supabase: {self.fleet.log('sync')}")

    def _driver_variables(self) -> dict[str, str]:
        supabase = self.servers.supabase
        keys = {"SUPABASE_URL": supabase.url, "SUPABASE_SERVICE_KEY": supabase.secret_key}
        return self.hosts.environment | keys

    def _wait_for_driver(self, limit_s: float, codes: tuple[int, ...]) -> None:
        """Wait for the end of the driver.

        Raises:
            RuntimeError: it failed, or did not end in time.
        """
        try:
            code = self.fleet.running[DRIVER].wait(limit_s)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"the driver did not end: {self.fleet.log(DRIVER)}") from None
        if code not in codes:
            raise RuntimeError(f"the driver ended with exit code {code}: {self.fleet.log(DRIVER)}")

    def _pids(self) -> dict[str, int]:
        """Return the processes to measure."""
        servers = self.servers
        others = {
            "S3 server": servers.s3.process,
            "Supabase": servers.supabase.process,
            "PostgreSQL": servers.supabase.postgres.process,
        }
        pids = {name: process.pid for name, process in others.items() if process is not None}
        pids |= {name: process.pid for name, process in self.fleet.running.items() if process.poll() is None}
        return pids | {"soak": os.getpid()}


def _is_worker(name: str) -> bool:
    return name.partition("-")[0] in (STEADY, SLOW, CLOCK, DISK, SPOT)
