"""The errors of this package, as a tree. A message says what was wrong, where, and what to do.

AudiopipeError
├── ConfigError            a parameter is unknown, invalid, or differs from the run's        (exit code 2)
├── MissingExtra           a package that an extra installs is not installed                 (exit code 2)
├── CatalogError           the catalog cannot be read                                        (exit code 2)
├── PlanError              the stored plan does not match the parameters or is damaged       (exit code 2)
├── ClusterError           the cluster's workers did not start                               (exit code 4)
├── LedgerError            the ledger has no such run, another version, or rejects the key    (exit code 2)
│   └── LedgerUnavailable  the ledger is locked, full, read-only, damaged or does not answer  (exit code 4)
├── TransientError         the network or a store failed; a retry may succeed                (exit code 4)
│   ├── StoreError         an object store operation failed
│   ├── SourceUnavailable  the place of the sources (mount, bucket, host) cannot be used; no video is at fault
│   └── TransientVideoError    an attempt failed at one video; after the last attempt, the video is a dead letter
│       ├── UnreadableSource   the object cannot be read, although others in the same place can
│       ├── DecoderCrash       the decoder process was killed from outside
│       └── DecoderTimeout     the decoder process gave no sample for `decode_timeout_s`
├── WorkerFailure          the worker itself cannot work: its GPU, memory, disk or libraries  (exit code 4)
│   └── BrokenWorker       it cannot until a person repairs it: driver, full disk, library       (exit code 2)
├── PermanentStoreError    wrong keys, no permission, no bucket, or a full disk              (exit code 2)
├── VerifyError            the output does not match its commits
└── VideoError             the video can never be processed; it becomes a dead letter and the run continues
    ├── MissingSource      there is no object at its address
    ├── ForbiddenSource    the object may not be read, although others in the same place may
    ├── InvalidSource      the object is not a file, or its file system fails at it alone
    ├── EmptySource        the object has no bytes
    ├── TooLarge           the object is larger than `max_source_mb`
    ├── BadTar             the object is not a tar, is truncated, or has an unsafe member
    ├── NoAudio            there is no audio member or no audio stream
    ├── UndecodableMedia   the decoder cannot decode the file
    ├── TruncatedMedia     the audio ends before its declared duration
    ├── TooLong            the audio is longer than `max_video_s`, or than it declares
    ├── BadSegments        the segment times cannot be read, or are required and missing
    ├── PoisonVideo        processes that worked on this video alone crashed
    └── SilentAudio        no sample of any segment exceeds `silence_dbfs`
"""

from __future__ import annotations

from typing import ClassVar

from audiopipe.redaction import RedactedError

# fmt: off
__all__ = [
    "AudiopipeError", "BadSegments", "BadTar", "BrokenWorker", "CatalogError", "ClusterError", "ConfigError",
    "DecoderCrash", "DecoderTimeout", "EmptySource", "ForbiddenSource", "InvalidSource", "LedgerError",
    "LedgerUnavailable", "MissingExtra", "MissingSource", "NoAudio", "PermanentStoreError", "PlanError", "PoisonVideo",
    "SilentAudio", "SourceUnavailable", "StoreError", "TooLarge", "TooLong", "TransientError", "TransientVideoError",
    "TruncatedMedia", "UndecodableMedia", "UnreadableSource", "VerifyError", "VideoError", "WorkerFailure",
]
# fmt: on


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


class PermanentStoreError(AudiopipeError):
    """A store rejects the operation: wrong keys, no permission, no such bucket, or a full or read-only disk."""

    exit_code = 2
    remedy = "set or renew the keys in the environment, create the bucket, or free the disk; then run the command again"


class VerifyError(AudiopipeError):
    """The output does not match its commits."""

    remedy = "list the shards: `audiopipe verify OUTPUT`; rebuild each: `audiopipe resume OUTPUT --shard NAME`"


class VideoError(AudiopipeError):
    """The video cannot be processed as it is.

    `stage` is the stage that failed. `retriable` is True if the cause may lie outside the audio, so that a later
    `audiopipe retry` may succeed.
    """

    remedy = "replace the video at its address, then run `audiopipe retry OUTPUT`"

    stage: ClassVar[str] = "unknown"
    retriable: ClassVar[bool] = False


class MissingSource(VideoError):
    """There is no object at the video's address."""

    stage = "fetch"
    retriable = True
    remedy = "check r2_tar_key and source_prefix; when the object exists, run `audiopipe retry OUTPUT`"


class ForbiddenSource(VideoError):
    """The object at the video's address may not be read, although others in the same bucket or folder may."""

    stage = "fetch"
    retriable = True
    remedy = "grant these keys, or this user, permission to read the object; then run `audiopipe retry OUTPUT`"


class InvalidSource(VideoError):
    """The object is not a file (a pipe, a device, a loop of links), or its file system cannot read it."""

    stage = "fetch"
    retriable = True
    remedy = "put a plain file at the address and check the disk; then run `audiopipe retry OUTPUT`"


class EmptySource(VideoError):
    """The object at the video's address has no bytes."""

    stage = "fetch"
    remedy = "upload the object again, then run `audiopipe retry OUTPUT`"


class TooLarge(VideoError):
    """The object is larger than `max_source_mb`."""

    stage = "fetch"
    remedy = "raise `max_source_mb` in another output, or split the video"


class BadTar(VideoError):
    """The object is not a tar, is truncated, or has a member that is unsafe to extract."""

    stage = "fetch"
    remedy = "pack the video again as one plain tar without links; then run `audiopipe retry OUTPUT`"


class NoAudio(VideoError):
    """The tar has no audio member, or the media file has no audio stream."""

    stage = "fetch"
    remedy = "put one audio file (webm, opus, m4a, mp3, flac, wav, ...) into the tar; then run `audiopipe retry OUTPUT`"


class UndecodableMedia(VideoError):
    """The decoder does not recognize the file, or fails before the first sample."""

    stage = "decode"
    remedy = "try to decode it with `ffmpeg -i FILE -f null -`; if that fails too, download the video again"


class TruncatedMedia(VideoError):
    """The audio ends well before the duration that its container or catalog row declares."""

    stage = "decode"
    remedy = "download the video again, or keep the audio that exists with `--truncated keep` in another output"


class TooLong(VideoError):
    """The audio is longer than `max_video_s`, or longer than it declares by more than `max_undeclared_s`."""

    stage = "decode"
    remedy = "raise the parameter that the message names in another output, or split the video"


class BadSegments(VideoError):
    """The segment times of the video cannot be read, or there are none and the config requires them."""

    stage = "segment"
    remedy = "correct the JSON or the captions, or use fixed windows with `--segments fixed` in another output"


class SilentAudio(VideoError):
    """Every segment of the video is silent."""

    stage = "score"
    remedy = "listen to the video; if it is quiet but not silent, lower `silence_dbfs` in another output"


class PoisonVideo(VideoError):
    """Processes that worked on this video alone crashed or failed with an unexpected error."""

    stage = "process"
    retriable = True
    remedy = "run `audiopipe retry OUTPUT` on a machine with more memory; if it crashes again, remove the video"
