"""Make one video from its script: a tar and the ground truth about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from audiopipe.bench.corpus.media import encode
from audiopipe.bench.corpus.mix import Span, make_silence, mix
from audiopipe.bench.corpus.prompts import Samples
from audiopipe.bench.corpus.script import Script
from audiopipe.bench.corpus.tars import Member, format_captions, format_metadata, pack_tar

__all__ = ["GroundTruth", "make_signal", "make_video"]

SILENT_S = 30.0
COVER = b"\xff\xd8\xff\xe0 no picture \xff\xd9"
SILENT_SPANS: list[Span] = [(1.0, 9.0, "nothing"), (10.0, 19.0, "still nothing"), (20.0, 29.0, "no more")]


@dataclass(frozen=True)
class GroundTruth:
    """A row of truth.json. `error` is the class that the pipeline must report; times and duration are exact."""

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
    condition: str
    duplicate_of: str | None = None


def make_video(script: Script) -> tuple[bytes | None, GroundTruth]:
    """Return the bytes of the video's object, None if it is to be missing, and the ground truth."""
    frames, spans = make_signal(script)
    duration_s = round(len(frames) / script.format.sample_rate_hz, 3)
    truth = _truth(script, spans, duration_s)
    audio = (f"{script.id}.{script.format.container}", encode(frames, script.format))
    sidecars = _make_sidecars(script, spans or SILENT_SPANS, duration_s)
    if script.defect is not None:
        return script.defect.corrupt(audio, sidecars), truth
    return pack_tar(_arrange(script, audio, sidecars)), truth


def make_signal(script: Script) -> tuple[Samples, list[Span]]:
    """Return the frames to encode, `[T, channels]` at the format's sample rate, and the times of speech in them."""
    form = script.format
    if script.defect is not None and script.defect.silent:
        return make_silence(SILENT_S, form.sample_rate_hz, form.channels), []
    rng = np.random.default_rng(script.seed)
    frames, spans = mix(script.prompts, form.sample_rate_hz, script.mixed_channels, script.condition, rng)
    return (frames if frames.shape[1] == form.channels else frames.mean(axis=1, keepdims=True)), spans


def _truth(script: Script, spans: list[Span], duration_s: float) -> GroundTruth:
    form, defect = script.format, script.defect
    return GroundTruth(
        id=script.id,
        language=script.language,
        good=defect is None,
        error=defect.error.__name__ if defect else None,
        segments=script.sidecar,
        spans=spans,
        codec=form.codec,
        container=form.container,
        sample_rate_hz=form.sample_rate_hz,
        channels=form.channels,
        duration_s=duration_s,
        condition=defect.name if defect else script.condition.name,
        duplicate_of=script.duplicate_of,
    )


def _make_sidecars(script: Script, spans: list[Span], duration_s: float) -> list[Member]:
    """Make the sidecar, if any. Every other video without times has a downloader's JSON, which lists no segments."""
    speaker = script.prompts[0].speaker
    if script.sidecar == "json":
        return [(f"{script.id}.json", format_metadata(script.id, script.language, duration_s, spans, speaker))]
    if script.sidecar is not None:
        name = f"{script.id}.{script.language}.vtt" if script.sidecar == "vtt" else f"{script.id}.srt"
        return [(name, format_captions(script.sidecar, script.language, spans))]
    if script.number % 16 >= 8:
        return [(f"{script.id}.info.json", format_metadata(script.id, script.language, duration_s, None, speaker))]
    return []


def _arrange(script: Script, audio: Member, sidecars: list[Member]) -> list[Member]:
    """Put the audio first or last; some videos are in a folder of the video's name, with a cover picture."""
    members = [audio, *sidecars] if script.number % 3 else [*sidecars, audio]
    if script.number % 5 != 3:
        return members
    return [(f"{script.id}/{name}", data) for name, data in [*members, ("cover.jpg", COVER)]]
