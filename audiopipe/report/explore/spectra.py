"""One segment in frequency: spectrogram and bandwidth edge, noise floor, and what resampling left of it."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import soundfile as sf

from audiopipe.report import page
from audiopipe.report.excerpts import Excerpt, levels
from audiopipe.report.explore.sound import NO_SOUND
from audiopipe.report.explore.trace import Trace
from audiopipe.report.figure import DROPPED, KEPT, LIMIT, NEUTRAL, draw
from audiopipe.report.page import Html
from audiopipe.report.text import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["noise", "resampled", "spectrogram", "spectrum"]

FRAME_S = 0.043
FLOOR_DB = 80.0
QUIET = 2  # percent of moments that are taken for noise alone, as the metric does
Array = npt.NDArray[np.float64]


def _powers(signal: npt.NDArray[np.float32], rate_hz: int) -> tuple[Array, Array]:
    """Frequencies [N] in Hz, and the power density [F, N] of half-overlapping Hann frames, full scale 1.0."""
    size = int(2 ** round(math.log2(FRAME_S * rate_hz)))
    padded = np.pad(signal.astype(np.float64), (0, max(0, size - len(signal))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[:: size // 2]
    window = np.hanning(size)
    power = 2 * np.abs(np.fft.rfft(frames * window, axis=1)) ** 2 / (rate_hz * np.sum(window**2))
    return np.asarray(np.fft.rfftfreq(size, 1 / rate_hz), np.float64), power


def _db(power: Array) -> Array:
    decibels: Array = 10 * np.log10(np.maximum(power, 1e-20))
    return decibels


def spectrogram(trace: Trace) -> Html:
    """Of the segment at the source's rate, with the edge that `bandwidth_hz` found."""
    if trace.clip is None:
        return page.note(NO_SOUND)
    rate = trace.clip.sample_rate_hz
    excerpt = Excerpt(trace.signal[: 30 * rate], rate)
    edge = float(trace.chosen["bandwidth_hz"]) if trace.chosen is not None else math.nan
    picture = levels(excerpt)

    def onto(axes: Axes) -> None:
        extent = (0.0, len(excerpt.samples) / rate, 0.0, rate / 2000)
        axes.imshow(picture, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-FLOOR_DB, vmax=0)
        if math.isfinite(edge):
            axes.axhline(edge / 1000, color="#7fe0c0", linewidth=1.4, linestyle="--")
        axes.axhline(trace.found.config.sample_rate / 2000, color="#ffffff", linewidth=1, linestyle=":")
        axes.set(xlabel="time in the segment (s)", ylabel="frequency (kHz)", ylim=(0, rate / 2000))

    about = f"brighter is louder; dashed: where the signal ends, {number(edge)} Hz"
    about += f"; dotted: what {trace.found.config.sample_rate:,} Hz can hold"
    return page.figure(draw(onto, 470, 205), "Spectrogram", about)


def spectrum(trace: Trace) -> Html:
    """Mean spectrum and that of the quietest moments: what lies between is signal over noise, and the edge is seen."""
    if trace.clip is None:
        return page.note(NO_SOUND)
    hertz, power = _powers(trace.signal, trace.clip.sample_rate_hz)
    mean, quiet = _db(power.mean(0)), _db(np.percentile(power, QUIET, axis=0))
    edge = float(trace.chosen["bandwidth_hz"]) if trace.chosen is not None else math.nan

    def onto(axes: Axes) -> None:
        axes.fill_between(hertz / 1000, quiet, mean, color=KEPT, alpha=0.2, linewidth=0)
        axes.plot(hertz / 1000, mean, color=KEPT, linewidth=1.3)
        axes.plot(hertz / 1000, quiet, color=NEUTRAL, linewidth=1.1)
        if math.isfinite(edge):
            axes.axvline(edge / 1000, color=LIMIT, linewidth=1.4, linestyle="--")
        axes.set(xlabel="frequency (kHz)", ylabel="power density (dBFS/Hz)", xlim=(0, hertz[-1] / 1000))
        axes.set_ylim(max(-170.0, float(quiet.min()) - 5), float(mean.max()) + 5)
        axes.grid(axis="y")

    key = page.legend({"mean": KEPT, f"quietest {QUIET} % of moments": NEUTRAL, "where the signal ends": LIMIT})
    about = f"ends at {number(edge)} Hz of {trace.clip.sample_rate_hz / 2:,.0f} Hz"
    return page.join(key, page.figure(draw(onto, 470, 190), "Spectrum", about))


def noise(trace: Trace) -> Html:
    """Level over time, and the level of the stationary noise that `snr_db` implies."""
    row = trace.chosen
    if trace.clip is None or row is None:
        return page.note(NO_SOUND)
    rate, snr = trace.clip.sample_rate_hz, float(row["snr_db"])
    hertz, power = _powers(trace.signal, rate)
    level = _db(power.sum(1) * hertz[1])
    whole = float(_db(np.array(power.sum(1).mean() * hertz[1])))
    floor = whole - 10 * math.log10(1 + 10 ** (snr / 10)) if math.isfinite(snr) else math.nan
    at = np.arange(len(level)) * (len(hertz) - 1) / rate

    def onto(axes: Axes) -> None:
        axes.plot(at, level, color=KEPT, linewidth=1.2)
        axes.axhline(whole, color=DROPPED, linewidth=1.3, linestyle="--")
        if math.isfinite(floor):
            axes.axhline(floor, color=NEUTRAL, linewidth=1.3, linestyle="--")
            axes.axhspan(-200, floor, color=NEUTRAL, alpha=0.18, linewidth=0)
        low = np.nanmin([floor, float(np.percentile(level, 2))]) - 6
        axes.set(xlabel="time in the segment (s)", ylabel="level (dBFS)", xlim=(0, at[-1]))
        axes.set_ylim(max(low, -120.0), float(level.max()) + 4)
        axes.grid(axis="y")

    key = page.legend({"level": KEPT, "mean level": DROPPED, "noise floor": NEUTRAL})
    about = f"{number(snr, 1)} dB between the signal's mean and the floor, which each band's quietest moments tell"
    return page.join(key, page.figure(draw(onto, 470, 190), "Noise floor", about))


def resampled(trace: Trace) -> Html:
    """The spectrum before and after: below the new limit the two are one line."""
    if trace.clip is None or trace.written is None or trace.written.audio is None:
        return page.note("Nothing was resampled: the segment was dropped, or there is none.")
    emitted, rate = sf.read(io.BytesIO(trace.written.audio), dtype="float32")
    before, after = _powers(trace.signal, trace.clip.sample_rate_hz), _powers(emitted, rate)

    def onto(axes: Axes) -> None:
        lines = ((before, DROPPED, 3.5, 0.45), (after, KEPT, 1.3, 1.0))
        for (hertz, power), colour, width, alpha in lines:
            axes.plot(hertz / 1000, _db(power.mean(0)), color=colour, linewidth=width, alpha=alpha)
        axes.axvline(rate / 2000, color=LIMIT, linewidth=1.2, linestyle="--")
        axes.set(xlabel="frequency (kHz)", ylabel="power density (dBFS/Hz)", xlim=(0, before[0][-1] / 1000))
        axes.grid(axis="y")

    key = page.legend(
        {f"source, {trace.clip.sample_rate_hz:,} Hz": DROPPED, f"emitted, {rate:,} Hz": KEPT, "half of it": LIMIT}
    )
    gain = float(trace.chosen["gain_db"]) if trace.chosen is not None else 0.0
    told = f", and {number(gain, 1)} dB of gain were applied" if gain else "; no gain was applied"
    about = f"{len(trace.signal):,} samples became {len(emitted):,}{told}"
    return page.join(key, page.figure(draw(onto, 470, 190), "Resampled", about))
