"""One script into one tar, and what is true about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audiopipe.bench.corpus.media import encode
from audiopipe.bench.corpus.mix import Span, mix, silence
from audiopipe.bench.corpus.prompts import Samples
from audiopipe.bench.corpus.script import Script
from audiopipe.bench.corpus.tars import Member, captions, metadata, pack

__all__ = ["GroundTruth", "make_video", "signal"]

SILENT_S = 30.0
COVER = b"\xff\xd8\xff\xe0 no picture \xff\xd9"
SILENT_SPANS: list[Span] = [(1.0, 9.0, "nothing"), (10.0, 19.0, "still nothing"), (20.0, 29.0, "no more")]


@dataclass(frozen=True)
class GroundTruth:
    """A row of truth.json. `error` is the class that the pipeline should report; times and duration are exact."""

    id: str
    language: str
    good: bool
    error: str | None
    segments: str | None
    spans: list[Span]
    codec: str
    container: str
    sample_rate_hz: int
    channels: int
    duration_s: float
    look: str
    duplicate_of: str | None = None


def make_video(script: Script) -> tuple[bytes | None, GroundTruth]:
    """The bytes of the video's object (None if there is to be none) and the truth about it."""
    frames, spans = signal(script)
    duration_s = round(len(frames) / script.format.sample_rate_hz, 3)
    truth = _truth(script, spans, duration_s)
    audio = (f"{script.id}.{script.format.container}", encode(frames, script.format))
    beside = _beside(script, spans or SILENT_SPANS, duration_s)
    if script.flaw is not None:
        return script.flaw.spoil(audio, beside), truth
    return pack(_arranged(script, audio, beside)), truth


def signal(script: Script) -> tuple[Samples, list[Span]]:
    """What is to be encoded, `[T, channels]` at the format's rate, and the times of speech in it."""
    form = script.format
    if script.flaw is not None and script.flaw.silent:
        return silence(SILENT_S, form.sample_rate_hz, form.channels), []
    rng = np.random.default_rng(script.seed)
    frames, spans = mix(script.prompts, form.sample_rate_hz, script.mixed_channels, script.look, rng)
    return (frames if frames.shape[1] == form.channels else frames.mean(axis=1, keepdims=True)), spans


def _truth(script: Script, spans: list[Span], duration_s: float) -> GroundTruth:
    form, flaw = script.format, script.flaw
    return GroundTruth(
        id=script.id,
        language=script.language,
        good=flaw is None,
        error=flaw.error.__name__ if flaw else None,
        segments=script.sidecar,
        spans=spans,
        codec=form.codec,
        container=form.container,
        sample_rate_hz=form.sample_rate_hz,
        channels=form.channels,
        duration_s=duration_s,
        look=flaw.name if flaw else script.look.name,
        duplicate_of=script.duplicate_of,
    )


def _beside(script: Script, spans: list[Span], duration_s: float) -> list[Member]:
    """The sidecar, if any. Every other video without times has a downloader's JSON, which says nothing of segments."""
    speaker = script.prompts[0].speaker
    if script.sidecar == "json":
        return [(f"{script.id}.json", metadata(script.id, script.language, duration_s, spans, speaker))]
    if script.sidecar is not None:
        name = f"{script.id}.{script.language}.vtt" if script.sidecar == "vtt" else f"{script.id}.srt"
        return [(name, captions(script.sidecar, script.language, spans))]
    if script.number % 16 >= 8:
        return [(f"{script.id}.info.json", metadata(script.id, script.language, duration_s, None, speaker))]
    return []


def _arranged(script: Script, audio: Member, sidecars: list[Member]) -> list[Member]:
    """Audio first or last; some lie in a folder of the video's name, beside a picture."""
    members = [audio, *sidecars] if script.number % 3 else [*sidecars, audio]
    if script.number % 5 != 3:
        return members
    return [(f"{script.id}/{name}", data) for name, data in [*members, ("cover.jpg", COVER)]]
