"""Corrupt videos of the corpus, each in a different way, and name the error that the pipeline must report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from audiopipe import errors
from audiopipe.bench.corpus.media import AAC, FORMATS, Format, encode_video_only
from audiopipe.bench.corpus.tars import Member, pack_tar

__all__ = ["DEFECTS", "Defect"]

WEBM, M4A, MP3, FLAC, WAV, OGG, MP4 = FORMATS[:7]
M4A_INDEX_LAST = Format("m4a", "aac", 44_100, 2, AAC)


@dataclass(frozen=True)
class Defect:
    """A kind of bad video. `corrupt` maps the audio and its sidecars to the object; None means that it is missing."""

    name: str
    error: type[errors.VideoError]
    format: Format
    corrupt: Callable[[Member, list[Member]], bytes | None]
    silent: bool = False


def _truncate(data: bytes, fraction: float) -> bytes:
    return data[: int(len(data) * fraction)]


def _garbage(size: int) -> bytes:
    """Return bytes below 128, in which no decoder finds the start of a frame."""
    return np.random.default_rng(size).integers(0, 128, size, np.uint8).tobytes()


def _cut_tar(audio: Member, sidecars: list[Member]) -> bytes:
    return _truncate(pack_tar([*sidecars, audio]), 0.6)


def _garbage_tar(audio: Member, sidecars: list[Member]) -> bytes:
    return _garbage(50_000)


def _cut_media(audio: Member, sidecars: list[Member]) -> bytes:
    return pack_tar([(audio[0], _truncate(audio[1], 0.6)), *sidecars])


def _no_audio_member(audio: Member, sidecars: list[Member]) -> bytes:
    return pack_tar([*sidecars, ("thumbnail.jpg", b"\xff\xd8\xff\xe0 no picture \xff\xd9")])


def _no_audio_stream(audio: Member, sidecars: list[Member]) -> bytes:
    return pack_tar([(audio[0], encode_video_only()), *sidecars])


def _garbage_member(audio: Member, sidecars: list[Member]) -> bytes:
    return pack_tar([(audio[0], _garbage(60_000)), *sidecars])


def _empty_object(audio: Member, sidecars: list[Member]) -> bytes:
    return b""


def _empty_member(audio: Member, sidecars: list[Member]) -> bytes:
    return pack_tar([*sidecars, (audio[0], b"")])


def _whole(audio: Member, sidecars: list[Member]) -> bytes:
    return pack_tar([audio, *sidecars])


def _missing(audio: Member, sidecars: list[Member]) -> None:
    return None


DEFECTS = (
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
    Defect("ogg cut at 60 %, as only the catalog shows", errors.TruncatedMedia, OGG, _cut_media),
)
