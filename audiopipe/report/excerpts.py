"""The first seconds of a segment as a player, a waveform and a spectrogram."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import soundfile as sf
import torch

from audiopipe import kernels
from audiopipe.media.encode import encode
from audiopipe.report.figure import DROPPED, NEUTRAL, draw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["MAX_S", "Excerpt", "player", "spectrogram", "spectrogram_db", "waveform"]

MAX_S = 12.0
FLOOR_DB = 70.0
PIXELS = 240
LOWEST_LUFS = -70.0
LOUDNESS_STEP = 5  # one of so many windows of the kernel is drawn
Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Excerpt:
    """Mono samples in -1..1, at most the first `MAX_S` seconds of a segment."""

    samples: Samples
    rate_hz: int

    @classmethod
    def decode(cls, data: bytes) -> Excerpt:
        """Decode an encoded segment in any format of the output.

        Raises:
            soundfile.LibsndfileError: the bytes are not audio.
        """
        with sf.SoundFile(io.BytesIO(data)) as file:
            samples = file.read(int(MAX_S * file.samplerate), dtype="float32", always_2d=True)
            return cls(samples.mean(axis=1), file.samplerate)

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate_hz


def player(excerpt: Excerpt, label: str) -> str:
    """Return an audio element with its sound as MP3, which every browser plays and which is a tenth of the size."""
    samples = np.clip(excerpt.samples * 32767, -32768, 32767).astype(np.int16)
    data = base64.b64encode(encode(samples, excerpt.rate_hz, "mp3")).decode()
    return f'<audio controls preload="metadata" aria-label="{label}" src="data:audio/mpeg;base64,{data}"></audio>'


def waveform(excerpt: Excerpt) -> str:
    """Draw the waveform and the momentary loudness (0.4 s)."""
    edges = np.arange(0, len(excerpt.samples), -(-len(excerpt.samples) // PIXELS))
    low, high = np.minimum.reduceat(excerpt.samples, edges), np.maximum.reduceat(excerpt.samples, edges)
    peak = max(0.05, 1.1 * float(np.abs(excerpt.samples).max(initial=0.0)))
    measured = kernels.loudness(torch.from_numpy(excerpt.samples)[None, None], excerpt.rate_hz)
    lufs = np.maximum(measured.momentary_lufs[0].numpy()[::LOUDNESS_STEP], LOWEST_LUFS)

    def plot(axes: Axes) -> None:
        axes.fill_between(edges / excerpt.rate_hz, low, high, color=NEUTRAL, linewidth=0.3)
        axes.set(xlim=(0, excerpt.seconds), ylim=(-peak, peak), ylabel="amplitude", xticklabels=[])
        right = axes.twinx()
        right.plot(np.arange(len(lufs)) * LOUDNESS_STEP * measured.hop_s + 0.2, lufs, color=DROPPED, linewidth=1.6)
        right.set(ylim=(LOWEST_LUFS, 0), yticks=(-60, -40, -20, 0))
        right.set_ylabel("LUFS (0.4 s)", color=DROPPED)
        right.spines["right"].set_visible(True)

    return draw(plot, 380, 105)


def spectrogram(excerpt: Excerpt) -> str:
    """Draw level over time and frequency, the highest at 0 dB."""
    image = spectrogram_db(excerpt)

    def plot(axes: Axes) -> None:
        extent = (0.0, excerpt.seconds, 0.0, excerpt.rate_hz / 2000)
        axes.imshow(image, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-FLOOR_DB, vmax=0)
        axes.set(xlabel="time (s)", ylabel="frequency (kHz)")

    return draw(plot, 380, 165)


def spectrogram_db(excerpt: Excerpt) -> npt.NDArray[np.float32]:
    """Return the levels [frequency, time] in dB relative to the highest."""
    size = 512 if excerpt.rate_hz >= 12_000 else 256
    padded = np.pad(excerpt.samples, (size // 2, size))
    hop = max(size // 4, len(excerpt.samples) // PIXELS)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2
    # Two neighboring bins share a row, since the image is not high enough for more.
    power = power[:, 1:].reshape(len(power), -1, 2).max(axis=2)
    levels: npt.NDArray[np.float32] = 10 * np.log10(np.maximum(power / max(power.max(), 1e-12), 1e-12)).T
    return levels
