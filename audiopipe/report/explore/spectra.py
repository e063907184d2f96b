"""One segment in the frequency domain: spectrogram, bandwidth, noise floor and the effect of resampling."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import soundfile as sf

from audiopipe.report import page
from audiopipe.report.excerpts import Excerpt, spectrogram_db
from audiopipe.report.explore.trace import Trace
from audiopipe.report.explore.waveforms import NO_SIGNAL
from audiopipe.report.figure import DROPPED, KEPT, LIMIT, NEUTRAL, draw
from audiopipe.report.page import Html
from audiopipe.report.text import format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["noise_floor", "resampling", "spectrogram", "spectrum"]

FRAME_S = 0.043
FLOOR_DB = 80.0
SPECTROGRAM_S = 30
QUIETEST_PERCENT = 2  # of the frames are taken as noise alone, as in the metric `snr_db`
Array = npt.NDArray[np.float64]


def _power_density(signal: npt.NDArray[np.float32], rate_hz: int) -> tuple[Array, Array]:
    """Return frequencies [N] in Hz and the power density [F, N] of half-overlapping Hann frames, full scale 1.0."""
    size = int(2 ** round(math.log2(FRAME_S * rate_hz)))
    padded = np.pad(signal.astype(np.float64), (0, max(0, size - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 2]
    window = np.hanning(size)
    power = 2 * np.abs(np.fft.rfft(frames * window, axis=1)) ** 2 / (rate_hz * np.sum(window**2))
    return np.asarray(np.fft.rfftfreq(size, 1 / rate_hz), np.float64), power


def _to_db(power: Array) -> Array:
    decibels: Array = 10 * np.log10(np.maximum(power, 1e-20))
    return decibels


def _bandwidth_hz(trace: Trace) -> float:
    """Return the metric `bandwidth_hz` of the segment, NaN if it was not measured."""
    return float(trace.row["bandwidth_hz"]) if trace.row is not None else math.nan


def spectrogram(trace: Trace) -> Html:
    """Draw the spectrogram of the segment at the source's rate, with the metric `bandwidth_hz`."""
    if trace.clip is None:
        return page.note(NO_SIGNAL)
    rate, output_rate = trace.clip.sample_rate_hz, trace.config.sample_rate
    excerpt = Excerpt(trace.signal[: SPECTROGRAM_S * rate], rate)
    bandwidth, image = _bandwidth_hz(trace), spectrogram_db(excerpt)

    def plot(axes: Axes) -> None:
        extent = (0.0, len(excerpt.samples) / rate, 0.0, rate / 2000)
        axes.imshow(image, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-FLOOR_DB, vmax=0)
        if math.isfinite(bandwidth):
            axes.axhline(bandwidth / 1000, color="#7fe0c0", linewidth=1.4, linestyle="--")
        axes.axhline(output_rate / 2000, color="#ffffff", linewidth=1, linestyle=":")
        axes.set(xlabel="time in the segment (s)", ylabel="frequency (kHz)", ylim=(0, rate / 2000))

    caption = f"brighter is louder; dashed: the signal ends at {format_number(bandwidth)} Hz"
    caption += f"; dotted: the limit of the output, which has {output_rate:,} Hz"
    return page.figure(draw(plot, 470, 205), "Spectrogram", caption)


def spectrum(trace: Trace) -> Html:
    """Draw the mean spectrum and that of the quietest frames. The area between them is signal over noise."""
    if trace.clip is None:
        return page.note(NO_SIGNAL)
    hertz, power = _power_density(trace.signal, trace.clip.sample_rate_hz)
    mean, quiet = _to_db(power.mean(0)), _to_db(np.percentile(power, QUIETEST_PERCENT, axis=0))
    bandwidth = _bandwidth_hz(trace)

    def plot(axes: Axes) -> None:
        axes.fill_between(hertz / 1000, quiet, mean, color=KEPT, alpha=0.2, linewidth=0)
        axes.plot(hertz / 1000, mean, color=KEPT, linewidth=1.3)
        axes.plot(hertz / 1000, quiet, color=NEUTRAL, linewidth=1.1)
        if math.isfinite(bandwidth):
            axes.axvline(bandwidth / 1000, color=LIMIT, linewidth=1.4, linestyle="--")
        axes.set(xlabel="frequency (kHz)", ylabel="power density (dBFS/Hz)", xlim=(0, hertz[-1] / 1000))
        axes.set_ylim(max(-170.0, float(quiet.min()) - 5), float(mean.max()) + 5)
        axes.grid(axis="y")

    quietest = f"quietest {QUIETEST_PERCENT} % of the frames"
    legend = page.legend({"mean": KEPT, quietest: NEUTRAL, "end of the signal": LIMIT})
    caption = f"ends at {format_number(bandwidth)} Hz of {trace.clip.sample_rate_hz / 2:,.0f} Hz"
    return page.join(legend, page.figure(draw(plot, 470, 190), "Spectrum", caption))


def noise_floor(trace: Trace) -> Html:
    """Draw the level over time and the level of the stationary noise that `snr_db` implies."""
    row = trace.row
    if trace.clip is None or row is None:
        return page.note(NO_SIGNAL)
    rate, snr = trace.clip.sample_rate_hz, float(row["snr_db"])
    hertz, power = _power_density(trace.signal, rate)
    level = _to_db(power.sum(1) * hertz[1])
    mean = float(_to_db(np.array(power.sum(1).mean() * hertz[1])))
    floor = mean - 10 * math.log10(1 + 10 ** (snr / 10)) if math.isfinite(snr) else math.nan
    times = np.arange(len(level)) * (len(hertz) - 1) / rate

    def plot(axes: Axes) -> None:
        axes.plot(times, level, color=KEPT, linewidth=1.2)
        axes.axhline(mean, color=DROPPED, linewidth=1.3, linestyle="--")
        if math.isfinite(floor):
            axes.axhline(floor, color=NEUTRAL, linewidth=1.3, linestyle="--")
            axes.axhspan(-200, floor, color=NEUTRAL, alpha=0.18, linewidth=0)
        lowest = np.nanmin([floor, float(np.percentile(level, 2))]) - 6
        axes.set(xlabel="time in the segment (s)", ylabel="level (dBFS)", xlim=(0, times[-1]))
        axes.set_ylim(max(lowest, -120.0), float(level.max()) + 4)
        axes.grid(axis="y")

    legend = page.legend({"level": KEPT, "mean level": DROPPED, "noise floor": NEUTRAL})
    caption = f"SNR {format_number(snr, 1)} dB; the floor is estimated from the quietest frames of each band"
    return page.join(legend, page.figure(draw(plot, 470, 190), "Noise floor", caption))


def resampling(trace: Trace) -> Html:
    """Draw the spectrum before and after resampling. Below the new limit both curves should be equal."""
    if trace.clip is None or trace.encoded is None:
        return page.note("Nothing was resampled: the segment was dropped, or there is none.")
    samples, rate = sf.read(io.BytesIO(trace.encoded.audio), dtype="float32")
    before, after = _power_density(trace.signal, trace.clip.sample_rate_hz), _power_density(samples, rate)

    def plot(axes: Axes) -> None:
        curves = ((before, DROPPED, 3.5, 0.45), (after, KEPT, 1.3, 1.0))
        for (hertz, power), color, width, alpha in curves:
            axes.plot(hertz / 1000, _to_db(power.mean(0)), color=color, linewidth=width, alpha=alpha)
        axes.axvline(rate / 2000, color=LIMIT, linewidth=1.2, linestyle="--")
        axes.set(xlabel="frequency (kHz)", ylabel="power density (dBFS/Hz)", xlim=(0, before[0][-1] / 1000))
        axes.grid(axis="y")

    source = f"source, {trace.clip.sample_rate_hz:,} Hz"
    legend = page.legend({source: DROPPED, f"output, {rate:,} Hz": KEPT, "half the output's rate": LIMIT})
    gain = float(trace.row["gain_db"]) if trace.row is not None else 0.0
    applied = f"gain {format_number(gain, 1)} dB" if gain else "no gain"
    caption = f"{len(trace.signal):,} samples became {len(samples):,}; {applied}"
    return page.join(legend, page.figure(draw(plot, 470, 190), "Resampling", caption))
