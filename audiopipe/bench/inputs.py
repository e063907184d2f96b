"""What the pipeline's bench works on: real speech as long videos."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiopipe.bench.corpus import Prompt, speech
from audiopipe.bench.corpus.media import FORMATS, Format, encode
from audiopipe.bench.corpus.mix import PLAIN, mix

__all__ = ["SEGMENT_S", "VIDEO_SEGMENTS", "BenchmarkInput", "make"]

SEGMENT_S, VIDEO_SEGMENTS = 5.0, 207
CHUNK_S = 60.0  # mixed at a time, so that a long video needs little memory


@dataclass(frozen=True)
class BenchmarkInput:
    """A file of speech, `videos` of which are one task."""

    name: str
    path: Path
    sample_rate_hz: int
    seconds: float
    videos: int

    @property
    def total_s(self) -> float:
        return self.seconds * self.videos

    @property
    def segments(self) -> float:
        return self.total_s / SEGMENT_S


def make(folder: Path, cache: Path, minutes: float) -> list[BenchmarkInput]:
    """Files of 48 kHz stereo Opus in webm and 44.1 kHz stereo AAC in m4a, made once and kept in `folder`.

    A video has 207 segments of 5 s; fewer minutes than that make a shorter one, more make several.
    """
    wanted_s = minutes * 60
    seconds = min(VIDEO_SEGMENTS * SEGMENT_S, round(wanted_s / SEGMENT_S) * SEGMENT_S)
    videos = max(1, round(wanted_s / seconds))
    folder.mkdir(parents=True, exist_ok=True)
    names = ("Opus 48 kHz stereo, webm", "AAC 44.1 kHz stereo, m4a")
    return [
        BenchmarkInput(name, _file(folder, cache, form, seconds), form.sample_rate_hz, seconds, videos)
        for name, form in zip(names, FORMATS[:2], strict=True)
    ]


def _file(folder: Path, cache: Path, form: Format, seconds: float) -> Path:
    path = folder / f"speech-{seconds:.0f}s.{form.container}"
    if not path.exists():
        prompts = [prompt for voice in speech(cache, log=lambda line: None).values() for prompt in voice]
        draft = path.with_suffix(".draft")
        draft.write_bytes(encode(_signal(prompts, form, seconds), form))
        draft.replace(path)
    return path


def _signal(prompts: list[Prompt], form: Format, seconds: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """[T, 2], `seconds` long: minutes of speech, each from prompts in a random order."""
    rng = np.random.default_rng(4)
    deck = itertools.cycle([prompts[i] for i in rng.permutation(len(prompts))])
    frames = np.zeros((round(seconds * form.sample_rate_hz), form.channels), np.float32)
    filled = 0
    while filled < len(frames):
        chosen, length = [], 0.0
        while length < CHUNK_S:
            chosen.append(next(deck))
            length += chosen[-1].length_s + 0.9
        part = mix(chosen, form.sample_rate_hz, form.channels, PLAIN, rng)[0][: len(frames) - filled]
        frames[filled : filled + len(part)] = part
        filled += len(part)
    return frames
