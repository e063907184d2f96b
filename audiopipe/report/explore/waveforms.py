"""The waveform of a video with its segments; the loudness of one segment and the filter that loudness uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from audiopipe import kernels
from audiopipe.kernels.kweighting import HIGH_PASS_48K, SHELF_48K, magnitude_db, sections
from audiopipe.report import page
from audiopipe.report.explore.trace import STEP_S, Trace
from audiopipe.report.figure import DROPPED, KEPT, LIMIT, NEUTRAL, draw
from audiopipe.report.page import Html
from audiopipe.report.text import format_duration, format_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["k_weighting", "loudness", "waveform"]

PIXELS = 700
ABSOLUTE_GATE_LUFS, RELATIVE_GATE_LU = -70.0, -10.0
NO_SIGNAL = "There is no signal to draw: the video stopped earlier, or the segment has no samples."


def waveform(trace: Trace) -> Html:
    """Draw the decoded signal and its kept and dropped segments."""
    low, high = np.array(trace.envelope.low), np.array(trace.envelope.high)
    if not len(low):
        return page.note("No audio was decoded.")
    group = -(-len(low) // PIXELS)
    edges = np.arange(0, len(low), group)
    low, high = np.minimum.reduceat(low, edges), np.maximum.reduceat(high, edges)
    times = (edges + group / 2) * STEP_S
    segments, peak = trace.segments, 1.15 * max(0.1, float(max(-low.min(), high.max())))

    def plot(axes: Axes) -> None:
        for kept, color in ((True, KEPT), (False, DROPPED)):
            rows = segments[segments["kept"] == kept] if len(segments) else segments
            for start, end in zip(rows.get("start_s", []), rows.get("end_s", []), strict=True):
                axes.axvspan(start, end, color=color, alpha=0.28, linewidth=0)
        axes.fill_between(times, low, high, color=NEUTRAL, linewidth=0.4)
        if trace.clip is not None:
            axes.plot([trace.clip.span.start_s, trace.clip.span.end_s], [peak, peak], color=LIMIT, linewidth=4)
        axes.set(xlabel="time in the video (s)", ylabel="amplitude (full scale 1)", xlim=(0, trace.envelope.seconds))
        axes.set_ylim(-peak, peak)

    legend = page.legend({"kept": KEPT, "dropped": DROPPED, "in no segment": NEUTRAL, "shown in detail": LIMIT})
    caption = f"{format_duration(trace.envelope.seconds)} decoded; minimum and maximum over time"
    return page.join(legend, page.figure(draw(plot, 1000, 170), "Waveform", caption))


def loudness(trace: Trace) -> Html:
    """Draw momentary, short-term and integrated loudness of the segment, with both gates."""
    if trace.clip is None:
        return page.note(NO_SIGNAL)
    measured = kernels.loudness(torch.from_numpy(np.ascontiguousarray(trace.clip.pcm))[None], trace.clip.sample_rate_hz)
    momentary, short_term = (values[0].numpy() for values in (measured.momentary_lufs, measured.short_term_lufs))
    integrated, gate = float(measured.integrated_lufs[0]), _relative_gate(momentary, measured.hop_s)
    seconds = trace.clip.frames / trace.clip.sample_rate_hz
    limit = trace.config.min_loudness_lufs

    def plot(axes: Axes) -> None:
        curves = ((momentary, 0.4, KEPT, "momentary"), (short_term, 3.0, DROPPED, "short-term"))
        for values, window_s, color, name in curves:
            times = np.arange(len(values)) * measured.hop_s + window_s / 2
            axes.plot(times, np.maximum(values, -90.0), color=color, linewidth=1.5, label=name)
        for value, color, name in ((integrated, LIMIT, "integrated"), (gate, NEUTRAL, "relative gate")):
            if np.isfinite(value):
                axes.axhline(value, color=color, linewidth=1.3, linestyle="--", label=name)
        axes.axhline(ABSOLUTE_GATE_LUFS, color=NEUTRAL, linewidth=1, linestyle=":")
        lowest = np.nanmin(momentary, initial=-40.0, where=np.isfinite(momentary))
        axes.set(xlabel="time in the segment (s)", ylabel="loudness (LUFS)", xlim=(0, seconds))
        axes.set_ylim(max(-80.0, float(lowest) - 6), max(-10.0, float(np.nanmax(momentary, initial=-40.0)) + 4))
        axes.grid(axis="y")

    colors = {"momentary, 0.4 s": KEPT, "short-term, 3 s": DROPPED, "integrated": LIMIT, "relative gate": NEUTRAL}
    caption = f"integrated {format_number(integrated, 1)} LUFS: the mean of the 0.4 s blocks above both gates"
    caption += f" (−70 LUFS and {format_number(gate, 1)} LUFS)"
    caption += f"; min_loudness_lufs is {format_number(limit, 1)}" if limit is not None else ""
    return page.join(page.legend(colors), page.figure(draw(plot, 470, 190), "Loudness", caption))


def _relative_gate(momentary_lufs: np.ndarray, hop_s: float) -> float:
    """Return 10 LU below the mean power of the blocks above -70 LUFS, one every 100 ms (BS.1770-5, equation 6)."""
    blocks = momentary_lufs[:: round(0.1 / hop_s)].astype(float)
    audible = blocks[blocks > ABSOLUTE_GATE_LUFS]
    return float(10 * np.log10(np.mean(10 ** (audible / 10)))) + RELATIVE_GATE_LU if len(audible) else float("nan")


def k_weighting(trace: Trace) -> Html:
    """Draw the K-weighting filter at the source's rate and as BS.1770 tabulates it for 48 kHz."""
    if trace.clip is None:
        return page.note(NO_SIGNAL)
    rate = trace.clip.sample_rate_hz
    hertz = np.geomspace(20, 0.49 * rate, 240)
    response = magnitude_db(sections(rate), hertz, rate)
    hertz_48k = hertz[hertz < 0.49 * 48_000]
    response_48k = magnitude_db((SHELF_48K, HIGH_PASS_48K), hertz_48k, 48_000)

    def plot(axes: Axes) -> None:
        axes.plot(hertz_48k, response_48k, color=DROPPED, linewidth=4, alpha=0.45)
        axes.plot(hertz, response, color=KEPT, linewidth=1.6)
        axes.set(xscale="log", xlabel="frequency (Hz)", ylabel="gain (dB)", ylim=(-20, 6))
        axes.set_xticks([20, 100, 1000, 10_000][: 4 if rate > 20_000 else 3])
        axes.set_xticklabels(["20", "100", "1000", "10,000"][: 4 if rate > 20_000 else 3])
        axes.minorticks_off()
        axes.grid()

    legend = page.legend({f"filter at {rate:,} Hz": KEPT, "BS.1770 coefficients for 48 kHz": DROPPED})
    caption = "of BS.1770-5: a high shelf for the effect of the head, and a high-pass"
    return page.join(legend, page.figure(draw(plot, 470, 190), "K-weighting", caption))
