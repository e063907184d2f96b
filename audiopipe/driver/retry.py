"""The retry policy of a session: which failed shards run again, when, and when the session stops."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from distributed import KilledWorker

from audiopipe.errors import (
    AudiopipeError,
    BrokenWorker,
    MissingExtra,
    PermanentStoreError,
    ScorerError,
    SourceUnavailable,
    VerifyError,
    WorkerFailure,
)
from audiopipe.types import Shard

__all__ = ["REFUSALS", "Decision", "RetryPolicy", "is_refusal"]

BACKOFF_S = 2.0
MAX_BACKOFF_S = 60.0
# Keys, permissions, a missing bucket, a full disk, a package that the workers lack: a person must act.
REFUSALS = (PermanentStoreError, MissingExtra, BrokenWorker)
# After this many refusals in a row, where no second worker can confirm one, the rest would fail too.
MAX_REFUSALS = 3
CONFIRMED = 2  # workers that were refused at one shard


class Decision(Enum):
    """Next step after a failed attempt."""

    MOVE = auto()  # run the shard at once on another worker, without counting the attempt
    ISOLATE = auto()  # run it again at once, each video in a child process
    RETRY = auto()  # run it again after a backoff
    PAUSE = auto()  # run it again after a backoff, and no other shard before that
    LEAVE = auto()  # leave it open
    STOP = auto()  # end the session


def is_refusal(error: BaseException | None) -> bool:
    """Check whether an error means that a store or the place of the sources is closed, at least to this worker."""
    return isinstance(error, (*REFUSALS, SourceUnavailable))


@dataclass
class RetryPolicy:
    """Attempts of each shard, and the shards that wait for their backoff.

    Attributes:
        retries: further attempts that a shard has after its first.
        attempts: attempts so far by shard name.
        suspects: names of the shards that may hold a video that kills its worker.
        refusals: attempts in a row that ended because a store refused a request or a package is missing.
        probe: name of the shard that is tried while all others wait for the place of the sources; None if none is.
    """

    retries: int
    attempts: Counter[str] = field(default_factory=Counter)
    suspects: set[str] = field(default_factory=set)
    refusals: int = 0
    probe: str | None = None
    _delayed: list[tuple[float, Shard]] = field(default_factory=list)

    @property
    def delayed(self) -> list[Shard]:
        """Shards whose backoff has not passed."""
        return [shard for _, shard in self._delayed]

    def is_last(self, shard: Shard) -> bool:
        """Check whether no attempt follows the one that was counted last."""
        return self.attempts[shard.name] > self.retries

    def record_success(self) -> None:
        """Note that a shard was committed, so the store accepts requests and the sources can be read."""
        self.refusals = 0
        self.probe = None

    def decide(
        self, shard: Shard, error: BaseException | None, is_unsound: bool = False, others: int = 0, refused_by: int = 1
    ) -> Decision:
        """Return what to do after a failed attempt.

        Args:
            error: None stands for a canceled task.
            is_unsound: the worker has failed its own check.
            others: number of sound workers on which the shard has not failed.
            refused_by: number of workers that were refused at this shard.
        """
        if is_unsound or (is_refusal(error) and others and refused_by < CONFIRMED):
            self.undo_attempts([shard.name])
            return Decision.MOVE
        if isinstance(error, ScorerError):
            return Decision.STOP
        if isinstance(error, SourceUnavailable):
            return self._decide_without_sources(shard)
        if shard.name == self.probe:  # the sources can be read again
            self.probe = None
        if isinstance(error, REFUSALS):
            self.refusals += 1
            if refused_by >= CONFIRMED or self.refusals >= MAX_REFUSALS:
                return Decision.STOP
        elif self._is_suspect(shard, error):
            self.suspects.add(shard.name)
            return Decision.ISOLATE
        is_final = self.is_last(shard) or isinstance(error, VerifyError)  # damaged objects stay damaged
        return Decision.LEAVE if is_final else Decision.RETRY

    def _decide_without_sources(self, shard: Shard) -> Decision:
        """Try one shard after another backoff; all others wait without losing an attempt."""
        self.probe = self.probe or shard.name
        if shard.name != self.probe:
            self.undo_attempts([shard.name])
            return Decision.MOVE
        return Decision.STOP if self.is_last(shard) else Decision.PAUSE

    def _is_suspect(self, shard: Shard, error: BaseException | None) -> bool:
        """Check whether one of the shard's videos may be the cause; a shard is isolated once.

        It may be if the attempt killed workers, or if the last attempt raised an error that no store or disk raises, or
        one of the machine although the worker has passed its check: the video may need more memory than others.
        """
        if shard.name in self.suspects or error is None:
            return False
        is_expected = isinstance(error, AudiopipeError | OSError) and not isinstance(error, WorkerFailure)
        return isinstance(error, KilledWorker) or (not is_expected and self.is_last(shard))

    def delay(self, shard: Shard) -> None:
        """Hold a shard back for the backoff of its next attempt."""
        backoff = BACKOFF_S * 2 ** max(0, self.attempts[shard.name] - 1)
        self._delayed.append((time.monotonic() + min(MAX_BACKOFF_S, backoff), shard))

    def take_due(self) -> list[Shard]:
        """Remove and return the shards whose backoff has passed; while sources are probed, the probe alone."""
        now = time.monotonic()
        due = [item for item in self._delayed if item[0] <= now and self.probe in (None, item[1].name)]
        self._delayed = [item for item in self._delayed if item not in due]
        return [shard for _, shard in due]

    def record_stranded(self, shard: Shard) -> None:
        """Note that the workers of an attempt have left. The shard may be the reason, so it is isolated at last."""
        if self.is_last(shard):
            self.suspects.add(shard.name)

    def undo_attempts(self, names: Iterable[str]) -> None:
        """Uncount attempts that ended with their cluster or because of their worker."""
        for name in names:
            self.attempts[name] -= 1
