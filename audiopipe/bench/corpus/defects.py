"""The bad videos: each spoils a good one in its own way, and names the error that the pipeline should give it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from audiopipe import errors
from audiopipe.bench.corpus.media import AAC, FORMATS, Format, encode_picture
from audiopipe.bench.corpus.tars import Member, pack

__all__ = ["FLAWS", "Defect"]

WEBM, M4A, MP3, FLAC, WAV, OGG, MP4 = FORMATS[:7]
M4A_INDEX_LAST = Format("m4a", "aac", 44_100, 2, AAC)


@dataclass(frozen=True)
class Defect:
    """`spoil` gets the audio and what lies beside it, and returns the object; None means that there is no object."""

    name: str
    error: type[errors.VideoError]
    format: Format
    spoil: Callable[[Member, list[Member]], bytes | None]
    silent: bool = False


def _head(data: bytes, part: float) -> bytes:
    return data[: int(len(data) * part)]


def _garbage(size: int) -> bytes:
    """Bytes in which no decoder can find a frame's start: none is above 127."""
    return np.random.default_rng(size).integers(0, 128, size, np.uint8).tobytes()


def _cut_tar(audio: Member, sidecars: list[Member]) -> bytes:
    return _head(pack([*sidecars, audio]), 0.6)


def _garbage_tar(audio: Member, sidecars: list[Member]) -> bytes:
    return _garbage(50_000)


def _cut_media(audio: Member, sidecars: list[Member]) -> bytes:
    return pack([(audio[0], _head(audio[1], 0.6)), *sidecars])


def _no_audio_member(audio: Member, sidecars: list[Member]) -> bytes:
    return pack([*sidecars, ("thumbnail.jpg", b"\xff\xd8\xff\xe0 no picture \xff\xd9")])


def _no_audio_stream(audio: Member, sidecars: list[Member]) -> bytes:
    return pack([(audio[0], encode_picture()), *sidecars])


def _garbage_member(audio: Member, sidecars: list[Member]) -> bytes:
    return pack([(audio[0], _garbage(60_000)), *sidecars])


def _empty_object(audio: Member, sidecars: list[Member]) -> bytes:
    return b""


def _empty_member(audio: Member, sidecars: list[Member]) -> bytes:
    return pack([*sidecars, (audio[0], b"")])


def _whole(audio: Member, sidecars: list[Member]) -> bytes:
    return pack([audio, *sidecars])


def _missing(audio: Member, sidecars: list[Member]) -> None:
    return None


FLAWS = (
    Defect("tar cut at 60 %", errors.BadTar, WEBM, _cut_tar),
    Defect("garbage for a tar", errors.BadTar, WEBM, _garbage_tar),
    Defect("webm cut at 60 %, which declares its duration", errors.TruncatedMedia, WEBM, _cut_media),
    Defect("m4a cut at 60 %, its index lost", errors.UndecodableMedia, M4A_INDEX_LAST, _cut_media),
    Defect("no audio member", errors.NoAudio, MP3, _no_audio_member),
    Defect("garbage for audio", errors.UndecodableMedia, WEBM, _garbage_member),
    Defect("object of no bytes", errors.EmptySource, M4A, _empty_object),
    Defect("audio member of no bytes", errors.EmptySource, OGG, _empty_member),
    Defect("digital silence", errors.SilentAudio, WEBM, _whole, silent=True),
    Defect("object missing", errors.MissingSource, WEBM, _missing),
    Defect("mp4 with a picture and no sound", errors.NoAudio, MP4, _no_audio_stream),
    Defect("ogg cut at 60 %, of which only the catalogue knows", errors.TruncatedMedia, OGG, _cut_media),
)
