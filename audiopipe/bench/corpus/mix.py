"""Mix the signal of one video from prompts, pauses, noise and gain, and return the true times of its speech."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from audiopipe.bench.corpus.prompts import Prompt, Samples

__all__ = ["CONDITIONS", "AcousticCondition", "Span", "make_silence", "mix"]

Span = tuple[float, float, str]

PAUSE_S = (0.3, 1.5)
NOISE_LOOP = 1 << 19


@dataclass(frozen=True)
class AcousticCondition:
    """The acoustics of a video. Values are drawn uniformly from a range; a peak above 0 dBFS is clipped."""

    name: str
    snr_db: tuple[float, float] = (22.0, 45.0)
    peak_dbfs: tuple[float, float] = (-9.0, -1.0)
    lowpass_hz: float | None = None
    dual_mono: bool = False


PLAIN = AcousticCondition("plain")
# By the number of the video; the others are plain. The third format is stereo, as dual mono must be.
CONDITIONS = {
    1: AcousticCondition("quiet", peak_dbfs=(-34.0, -30.0)),
    2: AcousticCondition("dual mono", dual_mono=True),
    3: AcousticCondition("hot", peak_dbfs=(6.0, 10.0)),
    4: AcousticCondition("noisy", snr_db=(2.0, 4.0)),
    6: AcousticCondition("low-passed", lowpass_hz=2_500.0),
    9: AcousticCondition("quiet", peak_dbfs=(-28.0, -24.0)),
    13: AcousticCondition("noisy", snr_db=(9.0, 12.0)),
    16: AcousticCondition("hot", peak_dbfs=(3.0, 5.0)),
}


def mix(
    prompts: Sequence[Prompt], rate_hz: int, channels: int, condition: AcousticCondition, rng: np.random.Generator
) -> tuple[Samples, list[Span]]:
    """Mix prompts one after the other, with pauses and room noise.

    Returns:
        The frames, `[T, channels]`, and the start, end and text of each prompt, in seconds.
    """
    pauses = rng.uniform(*PAUSE_S, len(prompts) + 1).tolist()
    speech, spans = _lay_out(prompts, pauses, rate_hz)
    if condition.lowpass_hz is not None:
        speech = _low_pass(speech, condition.lowpass_hz, rate_hz)
    spoken_rms = np.sqrt(np.mean(speech[speech != 0] ** 2))
    noise = spoken_rms * 10 ** (-rng.uniform(*condition.snr_db) / 20)
    gain = 10 ** (rng.uniform(*condition.peak_dbfs) / 20) / np.abs(speech).max()
    frames = np.empty((len(speech), channels), np.float32)
    for channel, balance in enumerate((1.0, 0.8)[:channels]):
        frames[:, channel] = speech * balance + _noise(len(speech), rng) * noise
    frames *= gain
    if condition.dual_mono:
        frames[:] = frames[:, :1]
    return frames, spans


def make_silence(length_s: float, rate_hz: int, channels: int) -> Samples:
    """Return digital silence, `[T, channels]`."""
    return np.zeros((int(length_s * rate_hz), channels), np.float32)


def _lay_out(prompts: Sequence[Prompt], pauses: Sequence[float], rate_hz: int) -> tuple[Samples, list[Span]]:
    pieces = [np.zeros(int(pauses[0] * rate_hz), np.float32)]
    spans: list[Span] = []
    at = len(pieces[0])
    for prompt, pause in zip(prompts, pauses[1:], strict=True):
        spoken = prompt.pcm(rate_hz)
        spans.append((round(at / rate_hz, 3), round((at + len(spoken)) / rate_hz, 3), prompt.text))
        pieces += [spoken, np.zeros(int(pause * rate_hz), np.float32)]
        at += len(spoken) + len(pieces[-1])
    return np.concatenate(pieces), spans


def _low_pass(samples: Samples, cutoff_hz: float, rate_hz: int) -> Samples:
    """Filter with zero phase and a slope of 200 Hz, in the spectrum of the whole signal."""
    size = 1 << (len(samples) - 1).bit_length()
    spectrum = np.fft.rfft(samples, size)
    frequency = np.fft.rfftfreq(size, 1 / rate_hz)
    spectrum *= np.clip((cutoff_hz + 200 - frequency) / 200, 0, 1)
    return np.fft.irfft(spectrum, size)[: len(samples)].astype(np.float32)


def _noise(length: int, rng: np.random.Generator) -> Samples:
    """Return noise that falls by 3 dB per octave, as room noise does, with RMS 1: a loop of 11 s, randomly started."""
    spectrum = np.fft.rfft(rng.standard_normal(NOISE_LOOP, np.float32))
    spectrum /= np.sqrt(np.maximum(np.arange(len(spectrum)), 20))
    loop = np.fft.irfft(spectrum, NOISE_LOOP).astype(np.float32)
    loop = np.roll(loop / loop.std(), int(rng.integers(NOISE_LOOP)))
    return np.resize(loop, length)
