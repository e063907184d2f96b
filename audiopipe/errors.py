"""What can go wrong, as a tree. A message says what was wrong, where, and what to do.

AudiopipeError
├── ConfigError            a parameter is unknown, impossible, or not the run's own          (exit code 2)
├── CatalogError           the list of videos cannot be read as one                          (exit code 2)
├── PlanError              the frozen plan does not fit what was asked                       (exit code 2)
├── ClusterError           the workers did not come
├── LedgerError            the ledger cannot be opened, or has no such run
├── TransientError         the network or a store failed; the same call may succeed later    (retried; exit code 4)
│   ├── StoreError         an object store did not do as told
│   └── DecoderDied        the decoder was killed from outside
├── StoreRefused           keys, permission, a missing bucket, a full disk: a person must act (exit code 2)
├── VerifyError            the output is not what its commits say
└── VideoError             this video is bad for good; it becomes a dead letter, its neighbours go on
    ├── MissingSource      nothing at its address
    ├── ForbiddenSource    it may not be read, and others of its place may
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
    "ForbiddenSource",
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
    """Base of everything this package raises on purpose.

    `exit_code` is what a command ends with that raises it; `remedy` is what `audiopipe explain` says to do about it.
    """

    exit_code: ClassVar[int] = 1
    remedy: ClassVar[str] = "read the last line: it names what was wrong, where, and what to do"

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: a traceback would lead into code that did nothing wrong."""
        return [f"{type(self).__name__}: {self}", f"What to do: {self.remedy}."]


class ConfigError(AudiopipeError, ValueError):
    """A parameter is unknown, impossible, or differs from the run that the output belongs to."""

    exit_code = 2
    remedy = "correct the parameter that it names; for an output made with others, use those again or another output"


class CatalogError(AudiopipeError):
    """The catalogue cannot be read: its address, its columns or one of its rows is wrong."""

    exit_code = 2
    remedy = (
        "correct the address, the columns or the row that it names; `audiopipe run --help` says what a catalogue is"
    )


class PlanError(AudiopipeError):
    """The frozen plan does not fit what was asked of it."""

    exit_code = 2
    remedy = "use the partition_count that the output was planned with; a damaged plan means another output"


class ClusterError(AudiopipeError):
    """The cluster could not be reached, or its workers did not come in time."""

    remedy = "look at the workers' own logs, free their machines, or raise `wait_s` of the cluster profile"


class LedgerError(AudiopipeError):
    """The ledger cannot be opened, is of another version, refuses the key, or has no such run."""

    remedy = "check the ledger's address and key; the dataset does not need it, and running again writes it anew"


class TransientError(AudiopipeError):
    """Something outside failed that may well work when tried again."""

    exit_code = 4
    remedy = "nothing: it was retried; if the run ended with code 4, run the same command again"


class StoreError(TransientError):
    """An object store refused or broke off an operation."""

    remedy = "look whether the store or the network is down, then run the same command again"


class StoreRefused(AudiopipeError):
    """A store will not do it for us: wrong keys, no permission, no such bucket, a full or read-only disk."""

    exit_code = 2
    remedy = "set or renew the keys in the environment, make the bucket, or free the disk; then run the same again"


class DecoderDied(TransientError):
    """The decoder process was killed by somebody else, which says nothing about the video."""

    remedy = "see who killed it (most often the kernel, for memory): lower `decoders` or `shards_in_flight`"


class VerifyError(AudiopipeError):
    """An output does not hold what its commits promise."""

    remedy = "`audiopipe verify OUTPUT` names the shards; `audiopipe resume OUTPUT --shard NAME` makes each again"


class VideoError(AudiopipeError):
    """This video can never be processed as it is. `stage` says where that came out.

    `retriable`: not for the audio's own sake, so that a later `audiopipe retry` may well succeed.
    """

    remedy = "replace the video at its address, then `audiopipe retry OUTPUT`"

    stage: ClassVar[str] = "unknown"
    retriable: ClassVar[bool] = False


class MissingSource(VideoError):
    """There is no object at the video's address."""

    stage = "fetch"
    retriable = True
    remedy = "check r2_tar_key and source_prefix; when the object is there, `audiopipe retry OUTPUT`"


class ForbiddenSource(VideoError):
    """The object at the video's address may not be read, though others of the same bucket or folder may."""

    stage = "fetch"
    retriable = True
    remedy = "give these keys, or this user, the right to read the object; then `audiopipe retry OUTPUT`"


class EmptySource(VideoError):
    """The object has no bytes."""

    stage = "fetch"
    remedy = "upload the object again, then `audiopipe retry OUTPUT`"


class BadTar(VideoError):
    """The object is not a tar, is cut short, or holds what we refuse to open."""

    stage = "fetch"
    remedy = "pack it again: one plain tar, no links, no paths that leave it; then `audiopipe retry OUTPUT`"


class NoAudio(VideoError):
    """The tar has no audio member, or the media file has no audio stream."""

    stage = "fetch"
    remedy = "put one audio file of a known kind (webm, opus, m4a, mp3, flac, wav, ...) into the tar"


class UndecodableMedia(VideoError):
    """The decoder recognises nothing in the file, or fails before the first sample."""

    stage = "decode"
    remedy = "play it with `ffmpeg -i`; if that fails too, fetch the video again"


class TruncatedMedia(VideoError):
    """The audio ends well before the duration that its container or catalogue row declares."""

    stage = "decode"
    remedy = "fetch the video again, or keep what there is with `--truncated keep` in another output"


class TooLong(VideoError):
    """The audio is longer than the configured limit."""

    stage = "decode"
    remedy = "raise `max_video_s` in another output, or cut the video"


class BadSegments(VideoError):
    """The segment times beside the audio cannot be read, or there are none and the config demands them."""

    stage = "segment"
    remedy = "correct the JSON or the captions, or force windows with `--segments fixed` in another output"


class SilentAudio(VideoError):
    """Every segment of the video is silence."""

    stage = "score"
    remedy = "listen to it; if it is only quiet, lower `silence_dbfs` in another output"


class PoisonVideo(VideoError):
    """Processes that worked on this video alone died, or failed in a way that nobody foresaw."""

    stage = "process"
    retriable = True
    remedy = "`audiopipe retry OUTPUT` on a machine with more memory; if it dies again, leave it out"
