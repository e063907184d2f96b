"""Make the inputs of the pipeline benchmark: long videos of real speech.

`python -m audiopipe.bench.inputs FOLDER SECONDS` makes short ones for the GPU check: `speech.webm` and `speech.m4a`.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from audiopipe.bench.corpus import Prompt, load_speech
from audiopipe.bench.corpus.media import FORMATS, Format, encode
from audiopipe.bench.corpus.mix import PLAIN, mix
from audiopipe.bench.corpus.prompts import Samples
from audiopipe.bench.corpus.sources import find_cache_folder

__all__ = ["SEGMENT_S", "VIDEO_SEGMENTS", "BenchmarkInput", "find_speech", "make_inputs", "make_speech"]

SEGMENT_S, VIDEO_SEGMENTS = 5.0, 207
INPUT_NAMES = ("Opus 48 kHz stereo, webm", "AAC 44.1 kHz stereo, m4a")  # of the first formats of the corpus
CHUNK_S = 60.0  # seconds mixed at a time, so that a long video needs little memory


@dataclass(frozen=True)
class BenchmarkInput:
    """A file of speech. A task processes it `videos` times."""

    name: str
    path: Path
    sample_rate_hz: int
    seconds: float
    videos: int


def make_inputs(folder: Path, cache: Path, minutes: float) -> list[BenchmarkInput]:
    """Make one input of 48 kHz stereo Opus in webm and one of 44.1 kHz stereo AAC in m4a; keep them in `folder`.

    A video has 207 segments of 5 s. Fewer minutes than that make it shorter, more minutes make several videos.
    """
    total_s = minutes * 60
    seconds = min(VIDEO_SEGMENTS * SEGMENT_S, round(total_s / SEGMENT_S) * SEGMENT_S)
    videos = max(1, round(total_s / seconds))
    folder.mkdir(parents=True, exist_ok=True)
    return [
        BenchmarkInput(name, _make_file(folder, cache, form, seconds), form.sample_rate_hz, seconds, videos)
        for name, form in zip(INPUT_NAMES, FORMATS, strict=False)
    ]


def _make_file(folder: Path, cache: Path, form: Format, seconds: float) -> Path:
    path = folder / f"speech-{seconds:.0f}s.{form.container}"
    if not path.exists():
        prompts = [prompt for voice in load_speech(cache, log=lambda line: None).values() for prompt in voice]
        draft = path.with_suffix(".draft")
        draft.write_bytes(encode(_make_signal(prompts, form, seconds), form))
        draft.replace(path)
    return path


def make_speech(folder: Path, cache: Path, seconds: float) -> None:
    """Make `speech.webm` and `speech.m4a`, for a machine that can neither download nor encode speech."""
    for path, _, form in find_speech(folder):
        if not path.exists():
            _make_file(folder, cache, form, seconds).rename(path)


def find_speech(folder: Path) -> list[tuple[Path, str, Format]]:
    """List the files of `make_speech`, with their names as inputs and their formats."""
    return [(folder / f"speech.{form.container}", name, form) for name, form in zip(INPUT_NAMES, FORMATS, strict=False)]


def _make_signal(prompts: list[Prompt], form: Format, seconds: float) -> Samples:
    """Mix `seconds` of speech from prompts in random order: [T, channels]."""
    rng = np.random.default_rng(4)
    deck = itertools.cycle([prompts[i] for i in rng.permutation(len(prompts))])
    frames = np.zeros((round(seconds * form.sample_rate_hz), form.channels), np.float32)
    filled = 0
    while filled < len(frames):
        chunk, length_s = [], 0.0
        while length_s < CHUNK_S:
            chunk.append(next(deck))
            length_s += chunk[-1].length_s + 0.9
        mixed = mix(chunk, form.sample_rate_hz, form.channels, PLAIN, rng)[0][: len(frames) - filled]
        frames[filled : filled + len(mixed)] = mixed
        filled += len(mixed)
    return frames


if __name__ == "__main__":
    make_speech(Path(sys.argv[1]), find_cache_folder(Path("demo/corpus")), float(sys.argv[2]))
