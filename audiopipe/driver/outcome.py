"""The outcome of a run and of its session: what was committed, what is left open and why, and the time it took."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from audiopipe.dataset.totals import Totals
from audiopipe.driver.recorder import Failure
from audiopipe.errors import AudiopipeError, VerifyError
from audiopipe.ledger import RunStatus
from audiopipe.types import Shard

__all__ = ["NOT_FINISHED", "PhaseTime", "PhaseTimer", "RunSummary", "SessionOutcome"]

MISUSED, NOT_FINISHED, TOO_MANY_FAILED = 2, 4, 5  # exit codes


@dataclass
class SessionOutcome:
    """The results of a session so far.

    Attributes:
        new: sums over the shards that it committed; the results themselves would fill the memory of a day's run.
        failed: reason by shard name, for shards that are left open.
        stopped: why it ended before all shards were tried; None if it did not.
        exit_code: of a session that leaves shards open: 2 if a person must act, else 4.
    """

    new: Totals = field(default_factory=Totals)
    failed: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    exit_code: int = NOT_FINISHED

    def leave_open(self, shards: Iterable[Shard], reason: str) -> None:
        """Note why unfinished shards were not committed; the next run processes them."""
        self.failed.update((shard.name, reason) for shard in shards)

    def leave(self, shard: Shard, failure: Failure) -> None:
        """Leave a shard open that has failed too often."""
        self.failed[shard.name] = str(failure)
        needs_person = isinstance(failure.error, AudiopipeError) and failure.error.exit_code == MISUSED
        if needs_person or isinstance(failure.error, VerifyError):
            self.exit_code = MISUSED

    def stop(self, shard: Shard, failure: Failure, reason: str) -> None:
        """End the session because of a shard's failure, whose error gives the exit code."""
        self.leave(shard, failure)
        self.stopped = reason


@dataclass(frozen=True)
class PhaseTime:
    """Seconds of a phase of a run, and CPU seconds of the driver's process in it."""

    wall_s: float
    cpu_s: float


class PhaseTimer:
    """Measures the phases of a run, which follow each other from the creation of the timer on."""

    def __init__(self) -> None:
        self.phases: dict[str, PhaseTime] = {}
        self._last = (time.monotonic(), time.process_time())

    def end(self, phase: str) -> None:
        """End a phase; the next one starts."""
        now = (time.monotonic(), time.process_time())
        self.phases[phase] = PhaseTime(now[0] - self._last[0], now[1] - self._last[1])
        self._last = now

    @property
    def wall_s(self) -> float:
        """Seconds of all phases."""
        return sum(phase.wall_s for phase in self.phases.values())


@dataclass(frozen=True)
class RunSummary:
    """The outcome of a run.

    Attributes:
        total: totals over all commits of the output.
        new: totals over the shards that this call committed.
        shards_failed: reason by name, for shards without a commit.
        workers_retired: reason by name, for workers that could not work and got no further shards.
        stopped: why the run ended before all shards were tried; None if it did not.
        unfinished_code: exit code of a run that is not finished: 2 if a person must act first, else 4.
        max_failed_share: share of failed videos above which the run counts as failed.
        phases: time of the driver until it submits shards ('start'), until its last shard has ended ('work'), and until
            the output is described ('finalize'); a run with nothing to do has no 'work'.
    """

    run_id: str
    output: str
    status: RunStatus
    total: Totals
    new: Totals
    shards_planned: int
    shards_failed: dict[str, str]
    wall_s: float
    workers_retired: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    unfinished_code: int = NOT_FINISHED
    max_failed_share: float = 1.0
    phases: Mapping[str, PhaseTime] = field(default_factory=dict)

    @property
    def needs_person(self) -> bool:
        """Check whether the run is not finished and a person must act before it can be."""
        return self.status is not RunStatus.DONE and self.unfinished_code == MISUSED

    @property
    def has_too_many_failed(self) -> bool:
        """Check whether more than `max_failed_share` of the videos failed."""
        return self.total.videos_failed > self.max_failed_share * self.total.videos

    @property
    def exit_code(self) -> int:
        """Return 0 for done, 3 for done with dead letters, 5 for too many of them, 4 for not finished: run again.

        A run that is not finished because of something that a person must change has exit code 2.
        """
        if self.status is not RunStatus.DONE:
            return self.unfinished_code
        if self.has_too_many_failed:
            return TOO_MANY_FAILED
        return 3 if self.total.videos_failed else 0
