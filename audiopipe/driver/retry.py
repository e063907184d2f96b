"""The retry policy of a session: which failed shards run again, when, and when the session stops."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from distributed import KilledWorker

from audiopipe.errors import AudiopipeError, MissingExtra, PermanentStoreError
from audiopipe.types import Shard

__all__ = ["Decision", "RetryPolicy"]

BACKOFF_S = 2.0
MAX_BACKOFF_S = 60.0
# After this many refused shards in a row (keys, permissions, a missing bucket, a full disk, a package that the workers
# lack) the rest would fail too.
MAX_REFUSALS = 3


class Decision(Enum):
    """Next step for a shard after a failed attempt."""

    ISOLATE = auto()  # run it again at once, each video in a child process
    RETRY = auto()  # run it again after a backoff
    STOP = auto()  # leave it open


@dataclass
class RetryPolicy:
    """Attempts of each shard, and the shards that wait for their backoff.

    Attributes:
        retries: further attempts that a shard has after its first.
        attempts: attempts so far by shard name.
        suspects: names of the shards that may hold a video that kills its worker.
        refusals: shards in a row that ended because a store refused a request or a package is missing.
    """

    retries: int
    attempts: Counter[str] = field(default_factory=Counter)
    suspects: set[str] = field(default_factory=set)
    refusals: int = 0
    _delayed: list[tuple[float, Shard]] = field(default_factory=list)

    @property
    def exhausted(self) -> bool:
        """True if the store has refused so many shards in a row that the session stops."""
        return self.refusals >= MAX_REFUSALS

    @property
    def delayed(self) -> list[Shard]:
        """Shards whose backoff has not passed."""
        return [shard for _, shard in self._delayed]

    def record_success(self) -> None:
        """Note that a shard was committed, so the store accepts requests."""
        self.refusals = 0

    def decide(self, shard: Shard, error: BaseException | None) -> Decision:
        """Return what to do after a failed attempt; None stands for a canceled one."""
        if self._is_suspect(shard, error):
            self.suspects.add(shard.name)
            return Decision.ISOLATE
        if self.attempts[shard.name] <= self.retries:
            return Decision.RETRY
        self.refusals += isinstance(error, PermanentStoreError | MissingExtra)
        return Decision.STOP

    def _is_suspect(self, shard: Shard, error: BaseException | None) -> bool:
        """Check whether one of the shard's videos may be the cause; a shard is isolated once.

        It may be if the attempt killed workers, or if the last attempt raised an error that no store or disk raises.
        """
        if shard.name in self.suspects or error is None:
            return False
        unexpected = not isinstance(error, AudiopipeError | OSError) and self.attempts[shard.name] > self.retries
        return isinstance(error, KilledWorker) or unexpected

    def delay(self, shard: Shard) -> None:
        """Hold a shard back for the backoff of its next attempt."""
        backoff = BACKOFF_S * 2 ** max(0, self.attempts[shard.name] - 1)
        self._delayed.append((time.monotonic() + min(MAX_BACKOFF_S, backoff), shard))

    def take_due(self) -> list[Shard]:
        """Remove and return the shards whose backoff has passed."""
        now = time.monotonic()
        due = [shard for when, shard in self._delayed if when <= now]
        self._delayed = [(when, shard) for when, shard in self._delayed if when > now]
        return due

    def undo_attempts(self, names: Iterable[str]) -> None:
        """Uncount attempts that ended with their cluster."""
        for name in names:
            self.attempts[name] -= 1
