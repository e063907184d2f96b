"""What can go wrong, as a tree. A message says what was wrong, where, and what to do.

AudiopipeError
├── ConfigError            a parameter is unknown, impossible, or not the run's own          (exit code 2)
├── CatalogError           the list of videos cannot be read as one
├── PlanError              the frozen plan does not fit what was asked
├── ClusterError           the workers did not come
├── LedgerError            the ledger cannot be opened, or has no such run
├── TransientError         the network or a store failed; the same call may succeed later    (retried)
│   ├── StoreError         an object store did not do as told
│   └── DecoderDied        the decoder was killed from outside
├── StoreRefused           keys, permission, a missing bucket, a full disk: a person must act (exit code 2)
├── VerifyError            the output is not what its commits say
└── VideoError             this video is bad for good; it becomes a dead letter, its neighbours go on
    ├── MissingSource      nothing at its address
    ├── EmptySource        nothing in it
    ├── BadTar             not a tar, cut short, or one we refuse to open
    ├── NoAudio            no audio member or no audio stream
    ├── UndecodableMedia   the decoder can make nothing of it
    ├── TruncatedMedia     it ends well before its declared duration
    ├── TooLong            longer than `max_video_s`
    ├── BadSegments        the times beside the audio cannot be read
    ├── PoisonVideo        it killed its process, twice, with nothing else in it
    └── SilentAudio        no sample above `silence_dbfs` in any segment
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AudiopipeError",
    "BadSegments",
    "BadTar",
    "CatalogError",
    "ClusterError",
    "ConfigError",
    "DecoderDied",
    "EmptySource",
    "LedgerError",
    "MissingSource",
    "NoAudio",
    "PlanError",
    "PoisonVideo",
    "SilentAudio",
    "StoreError",
    "StoreRefused",
    "TooLong",
    "TransientError",
    "TruncatedMedia",
    "UndecodableMedia",
    "VerifyError",
    "VideoError",
]


class AudiopipeError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigError(AudiopipeError, ValueError):
    """A parameter is unknown, impossible, or differs from the run that the output belongs to."""


class CatalogError(AudiopipeError):
    """The catalogue cannot be read: its address, its columns or one of its rows is wrong."""


class PlanError(AudiopipeError):
    """The frozen plan does not fit what was asked of it."""


class ClusterError(AudiopipeError):
    """The cluster could not be reached, or its workers did not come in time."""


class LedgerError(AudiopipeError):
    """The ledger cannot be opened, is of another version, refuses the key, or has no such run."""


class TransientError(AudiopipeError):
    """Something outside failed that may well work when tried again."""


class StoreError(TransientError):
    """An object store refused or broke off an operation."""


class StoreRefused(AudiopipeError):
    """A store will not do it for us: wrong keys, no permission, no such bucket, a full or read-only disk."""


class DecoderDied(TransientError):
    """The decoder process was killed by somebody else, which says nothing about the video."""


class VerifyError(AudiopipeError):
    """An output does not hold what its commits promise."""


class VideoError(AudiopipeError):
    """This video can never be processed as it is. `stage` says where that came out.

    `retriable`: not for the audio's own sake, so that a later `audiopipe retry` may well succeed.
    """

    stage: ClassVar[str] = "unknown"
    retriable: ClassVar[bool] = False


class MissingSource(VideoError):
    """There is no object at the video's address."""

    stage = "fetch"
    retriable = True


class EmptySource(VideoError):
    """The object has no bytes."""

    stage = "fetch"


class BadTar(VideoError):
    """The object is not a tar, is cut short, or holds what we refuse to open."""

    stage = "fetch"


class NoAudio(VideoError):
    """The tar has no audio member, or the media file has no audio stream."""

    stage = "fetch"


class UndecodableMedia(VideoError):
    """The decoder recognises nothing in the file, or fails before the first sample."""

    stage = "decode"


class TruncatedMedia(VideoError):
    """The audio ends well before the duration that its container or catalogue row declares."""

    stage = "decode"


class TooLong(VideoError):
    """The audio is longer than the configured limit."""

    stage = "decode"


class BadSegments(VideoError):
    """The segment times beside the audio cannot be read, or there are none and the config demands them."""

    stage = "segment"


class SilentAudio(VideoError):
    """Every segment of the video is silence."""

    stage = "score"


class PoisonVideo(VideoError):
    """Processes that worked on this video alone died, or failed in a way that nobody foresaw."""

    stage = "process"
    retriable = True
