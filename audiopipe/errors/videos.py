"""The errors of videos: each makes its video a dead letter."""

from __future__ import annotations

from typing import ClassVar

from audiopipe.errors.runs import AudiopipeError

__all__ = [
    "BadSegments",
    "BadTar",
    "EmptySource",
    "ForbiddenSource",
    "InvalidSource",
    "MissingSource",
    "NoAudio",
    "PoisonVideo",
    "SilentAudio",
    "TooLarge",
    "TooLong",
    "TruncatedMedia",
    "UndecodableMedia",
    "VideoError",
]


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
