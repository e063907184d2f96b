"""The errors of a run, of its workers and stores."""

from __future__ import annotations

from typing import ClassVar

from audiopipe.redaction import RedactedError

__all__ = [
    "AudiopipeError",
    "BrokenWorker",
    "CatalogError",
    "ClusterError",
    "ConfigError",
    "DecoderCrash",
    "DecoderTimeout",
    "LedgerError",
    "LedgerUnavailable",
    "MissingExtra",
    "PermanentStoreError",
    "PlanError",
    "ScorerError",
    "SourceUnavailable",
    "StoreError",
    "TransientError",
    "TransientVideoError",
    "UnreadableSource",
    "VerifyError",
    "WorkerFailure",
]


class AudiopipeError(RedactedError):
    """The base class of all errors that this package raises on purpose; secrets in addresses are left out.

    `exit_code` is the exit code of a command that ends with the error; `remedy` is what `audiopipe explain` advises.
    """

    exit_code: ClassVar[int] = 1
    remedy: ClassVar[str] = "read the last line of the output: it says what was wrong, where, and what to do"

    def _render_traceback_(self) -> list[str]:
        """Return the lines that a notebook shows in place of a traceback, which would point at unrelated code."""
        return [f"{type(self).__name__}: {self}", f"What to do: {self.remedy}."]


class ConfigError(AudiopipeError, ValueError):
    """A parameter is unknown, invalid, or differs from the run that the output belongs to."""

    exit_code = 2
    remedy = "correct the parameter that the message names; use those that the output was made with, or another output"


class MissingExtra(AudiopipeError):
    """A package is not installed; the named extra installs it."""

    exit_code = 2
    remedy = "install the extra that the message names, or all of them: pip install 'audiopipe[all]'"


class CatalogError(AudiopipeError):
    """The catalog cannot be read: its address, its columns or one of its rows is wrong."""

    exit_code = 2
    remedy = "correct the address, column or row that the message names; `audiopipe run --help` lists kinds of catalog"


class PlanError(AudiopipeError):
    """The stored plan does not match the parameters of the run, or is damaged."""

    exit_code = 2
    remedy = "use the partition_count that the output was planned with; if the plan is damaged, choose another output"


class ClusterError(AudiopipeError):
    """The cluster could not be reached, or its workers did not start in time."""

    exit_code = 4
    remedy = "read the workers' logs, free their machines, or raise `wait_s` of the cluster profile"


class LedgerError(AudiopipeError):
    """The ledger cannot be opened, has another version, rejects the key, or has no such run."""

    exit_code = 2
    remedy = "check the ledger's address and key, then run again; the dataset is safe and a new run rewrites the ledger"


class LedgerUnavailable(LedgerError):
    """The ledger cannot be used: a run continues without it and writes its updates later. `is_damaged` says why."""

    exit_code = 4
    remedy = "free the lock or the disk, or start the server; `audiopipe resume OUTPUT` then writes what it lacks"
    is_damaged = False


class TransientError(AudiopipeError):
    """The network or an external service failed; a retry may succeed."""

    exit_code = 4
    remedy = "if the run ended with exit code 4, run the same command again; otherwise the retry succeeded"


class StoreError(TransientError):
    """An operation of an object store failed or was interrupted."""

    remedy = "check that the store and the network are up, then run the same command again"


class SourceUnavailable(TransientError):
    """The place of the sources (a mount, bucket or host) cannot be used, which says nothing about a video."""

    remedy = "mount the folder, start the host or correct source_prefix; if videos are lost, set max_missing_share to 1"


class TransientVideoError(TransientError):
    """An attempt failed at one video; if the last attempt does too, the video becomes a dead letter at `stage`."""

    remedy = "remove the cause that the message names; if the video became a dead letter, run `audiopipe retry OUTPUT`"
    stage: ClassVar[str] = "unknown"
    retriable: ClassVar[bool] = True


class UnreadableSource(TransientVideoError):
    """The object at the video's address cannot be read, although others in the same place can."""

    stage = "fetch"
    remedy = "read the object with another tool; upload it again if that fails too; then run `audiopipe retry OUTPUT`"


class DecoderCrash(TransientVideoError):
    """The decoder process was killed from outside; the video is probably not at fault."""

    stage = "decode"
    remedy = "lower `decoders` or `shards_in_flight` if memory is short; then run `audiopipe retry OUTPUT`"


class DecoderTimeout(TransientVideoError):
    """The decoder process gave no sample for `decode_timeout_s`, and was stopped."""

    stage = "decode"
    remedy = "raise `decode_timeout_s` if the machine is slow, then `audiopipe retry OUTPUT`; else remove the video"


class WorkerFailure(AudiopipeError):
    """The worker itself cannot work: its GPU, its memory, its disk or a library fails, and no video is at fault."""

    exit_code = 4
    remedy = "repair or replace the worker that the message names, then run the same command again"
    is_confirmed = False  # True if the worker cannot process a known-good video either


class BrokenWorker(WorkerFailure):
    """The worker cannot work until a person repairs it: it has no driver, a full disk, or a library is missing."""

    exit_code = 2
    remedy = "free the disk, install the driver or the library that the message names, then run the same command again"


class ScorerError(AudiopipeError):
    """A scorer raises an exception, or returns values that its columns do not allow; no video is at fault."""

    exit_code = 2
    remedy = "correct the scorer that the message names, or leave it out of `scorers`; then run the same command again"


class PermanentStoreError(AudiopipeError):
    """A store rejects the operation: wrong keys, no permission, a missing bucket, or a full or read-only disk."""

    exit_code = 2
    remedy = "set or renew the keys in the environment, create the bucket, or free the disk; then run the command again"


class VerifyError(AudiopipeError):
    """The output does not match its commits."""

    remedy = "list the shards: `audiopipe verify OUTPUT`; rebuild each: `audiopipe resume OUTPUT --shard NAME`"
