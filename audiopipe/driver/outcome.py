"""The outcome of a session: the shards that it committed, those that it leaves open, and why it ended."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from audiopipe.driver.recorder import Failure
from audiopipe.errors import AudiopipeError, VerifyError
from audiopipe.types import Shard, ShardResult

__all__ = ["MISUSED", "NOT_FINISHED", "TOO_MANY_FAILED", "SessionOutcome"]

MISUSED, NOT_FINISHED, TOO_MANY_FAILED = 2, 4, 5  # exit codes


@dataclass
class SessionOutcome:
    """The results of a session so far.

    Attributes:
        new: results of the shards that it committed.
        failed: reason by shard name, for shards that are left open.
        stopped: why it ended before all shards were tried; None if it did not.
        exit_code: of a session that leaves shards open: 2 if a person must act, else 4.
    """

    new: list[ShardResult] = field(default_factory=list)
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
