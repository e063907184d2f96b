"""Make segments of speech with the ratings of speechmos: `python -m audiopipe.bench.scorer_inputs FOLDER`.

A machine that has neither speechmos nor onnxruntime compares its ratings with those in `scores.npz`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from audiopipe.bench.corpus.sources import find_cache_folder
from audiopipe.bench.scorer_peers import Segments, load_speechmos
from audiopipe.bench.scorers import make_segments
from audiopipe.models.dnsmos_windows import RATE_HZ

__all__ = ["RatedSegments", "make_scores", "read_scores"]

FILE = "scores.npz"
# Segments of the plan document, windows, and long, short and odd ones: 165 s.
LENGTHS_S = (*(5.0,) * 10, 9.01, 9.01, 0.4, 0.57, 1.3, 2.5, 3.7, 4.71, 6.2, 7.77, 10.9, 12.34, 15.0, 24.9, 30.0)
KEYS = ("sig_mos", "bak_mos", "ovrl_mos", "p808_mos")
FULL_SCALE = 1 << 15
NOISE = (0.0, 0.002, 0.02)  # amplitudes that are added in turn


class RatedSegments(NamedTuple):
    """Segments [T] float32 at 16 kHz, and their ratings [N, 4] by speechmos."""

    segments: Segments
    ratings: npt.NDArray[np.float64]


def make_scores(folder: Path, cache: Path, lengths_s: Sequence[float] = LENGTHS_S) -> None:
    """Rate segments of speech, some of them noisy, with speechmos under onnxruntime; keep them in `scores.npz`."""
    rng = np.random.default_rng(7)
    shipped = load_speechmos()
    samples, ratings = list[npt.NDArray[np.int16]](), list[list[float]]()
    for number, seconds in enumerate(lengths_s):
        (speech,) = make_segments(cache, seconds, 1, seed=number)
        noisy = speech + rng.normal(0, NOISE[number % len(NOISE)], len(speech))
        samples.append((noisy * FULL_SCALE).round().clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16))
        result = shipped(samples[-1].astype(np.float32) / FULL_SCALE, RATE_HZ, False)
        ratings.append([float(result[key]) for key in KEYS])
    folder.mkdir(parents=True, exist_ok=True)
    sizes = np.array([len(segment) for segment in samples])
    np.savez_compressed(folder / FILE, samples=np.concatenate(samples), sizes=sizes, ratings=np.array(ratings))


def read_scores(folder: Path) -> RatedSegments:
    """Read the segments and the ratings of `make_scores`."""
    with np.load(folder / FILE) as data:
        samples = data["samples"].astype(np.float32) / FULL_SCALE
        return RatedSegments(np.split(samples, np.cumsum(data["sizes"])[:-1]), data["ratings"])


if __name__ == "__main__":
    if not (Path(sys.argv[1]) / FILE).exists():
        make_scores(Path(sys.argv[1]), find_cache_folder(Path("demo/corpus")))
