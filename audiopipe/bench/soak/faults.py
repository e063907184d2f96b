"""The faults of a soak: the same ones in each cycle, so that all parts of the soak can be compared."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from audiopipe.bench.servers.s3 import S3Server
from audiopipe.bench.servers.s3_proxy import FaultyProxy
from audiopipe.bench.servers.supabase import Supabase, bring_back
from audiopipe.bench.soak.hosts import CLOCK, DISK, SPOT, Hosts

__all__ = ["FaultEvent", "FaultSchedule"]

DAY_S = 86_400
BURST_SHARE = 0.25  # of the requests to S3 that fail in a burst

Action = Callable[[], str]


@dataclass(frozen=True)
class FaultEvent:
    """A fault that was injected, `at_s` seconds after the start of the soak."""

    at_s: float
    kind: str
    target: str


class FaultSchedule:
    """Injects faults from a thread until it is stopped; then all servers run and the slow host is as fast as others.

    Args:
        started: time.monotonic() of the start of the soak.
        cycle_s: seconds after which the faults start again.
    """

    def __init__(
        self, hosts: Hosts, s3: S3Server, proxy: FaultyProxy, supabase: Supabase, started: float, cycle_s: float
    ) -> None:
        self.hosts, self.s3, self.proxy, self.supabase = hosts, s3, proxy, supabase
        self.started, self.cycle_s, self.share = started, cycle_s, proxy.share
        self.events: list[FaultEvent] = []
        self.error: Exception | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the first cycle."""
        self.hosts.slow_down()
        self._thread.start()

    def stop(self) -> None:
        """End the faults, and bring all servers back.

        Raises:
            Exception: what a fault's injection raised.
        """
        self._stopping.set()
        self._thread.join()
        self.hosts.speed_up()
        self.proxy.share = self.share
        bring_back(self.supabase)
        if self.s3.process is None or self.s3.process.poll() is not None:
            self.s3.start()
        if self.error is not None:
            raise self.error

    def steps(self) -> list[tuple[float, str, Action]]:
        """Return the faults of a cycle: when, as a share of it, what, and how."""
        hosts = self.hosts
        steps: list[tuple[float, str, Action]] = [
            (0.02, "worker joins", lambda: hosts.start(SPOT)),
            (0.18, "S3 failures", lambda: self._set_share(BURST_SHARE)),
            (0.25, "S3 failures end", lambda: self._set_share(self.share)),
            (0.32, "Supabase stops", self._stop_supabase),
            (0.48, "Supabase starts", self._start_supabase),
            (0.58, "S3 server restarts", self._restart_s3),
            (0.80, "worker killed", lambda: hosts.kill(SPOT)),
        ]
        if hosts.mount:
            steps += [
                (0.00, "worker with a small disk joins", lambda: hosts.start(DISK)),
                (0.40, "disk full", hosts.fill_disk),
                (0.75, "worker with a full disk leaves", lambda: hosts.kill(DISK)),
            ]
        if hosts.clock:
            steps += [
                (0.10, "clock +10 min", lambda: self._set_clock(600)),
                (0.30, "clock -10 min", lambda: self._set_clock(-600)),
                (0.65, "clock +1 day", lambda: self._set_clock(DAY_S)),
                (0.90, "worker with a wrong clock is replaced", self._replace_clock),
            ]
        return sorted(steps, key=lambda step: step[0])

    def _run(self) -> None:
        try:
            begun = time.monotonic()
            while not self._stopping.is_set():
                for share, kind, action in self.steps():
                    if self._stopping.wait(max(0.0, begun + share * self.cycle_s - time.monotonic())):
                        return
                    at_s = time.monotonic() - self.started
                    self.events.append(FaultEvent(round(at_s, 2), kind, action()))
                begun = max(time.monotonic(), begun + self.cycle_s)
                self._stopping.wait(begun - time.monotonic())
        except Exception as error:  # noqa: BLE001 - `stop` raises it
            self.error = error

    def _set_share(self, share: float) -> str:
        self.proxy.share = share
        return "S3"

    def _stop_supabase(self) -> str:
        self.supabase.stop()
        self.supabase.postgres.stop()
        return "Supabase"

    def _start_supabase(self) -> str:
        bring_back(self.supabase)
        return "Supabase"

    def _restart_s3(self) -> str:
        self.s3.kill()
        self.s3.start()
        return "S3"

    def _set_clock(self, seconds: int) -> str:
        if self.hosts.clock is not None:
            self.hosts.clock.set(seconds)
        return self.hosts.name(CLOCK)

    def _replace_clock(self) -> str:
        self.hosts.kill(CLOCK)
        return self.hosts.start(CLOCK)
