"""A video's waveform with its segments, and of one segment the loudness and the filter that it is measured through."""

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
from audiopipe.report.text import format_duration, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["loudness", "waveform", "weighting"]

PIXELS = 700
ABSOLUTE_GATE_LUFS, RELATIVE_GATE_LU = -70.0, -10.0
NO_SOUND = "There is no sound to draw: the video stopped before, or the segment has no samples."


def waveform(trace: Trace) -> Html:
    """The decoded signal, segments kept, dropped and left out."""
    low, high = np.array(trace.outline.low), np.array(trace.outline.high)
    if not len(low):
        return page.note("Nothing was decoded.")
    group = -(-len(low) // PIXELS)
    edges = np.arange(0, len(low), group)
    low, high = np.minimum.reduceat(low, edges), np.maximum.reduceat(high, edges)
    at = (edges + group / 2) * STEP_S
    rows, peak = trace.segments, 1.15 * max(0.1, float(max(-low.min(), high.max())))

    def onto(axes: Axes) -> None:
        for kept, colour in ((True, KEPT), (False, DROPPED)):
            mine = rows[rows["kept"] == kept] if len(rows) else rows
            for start, end in zip(mine.get("start_s", []), mine.get("end_s", []), strict=True):
                axes.axvspan(start, end, color=colour, alpha=0.28, linewidth=0)
        axes.fill_between(at, low, high, color=NEUTRAL, linewidth=0.4)
        if trace.clip is not None:
            axes.plot([trace.clip.span.start_s, trace.clip.span.end_s], [peak, peak], color=LIMIT, linewidth=4)
        axes.set(xlabel="time in the video (s)", ylabel="amplitude (full scale 1)", xlim=(0, trace.outline.seconds))
        axes.set_ylim(-peak, peak)

    key = page.legend({"kept": KEPT, "dropped": DROPPED, "in no segment": NEUTRAL, "looked at below": LIMIT})
    about = f"{format_duration(trace.outline.seconds)} decoded; highest and lowest sample of each moment"
    return page.join(key, page.figure(draw(onto, 1000, 170), "Waveform", about))


def loudness(trace: Trace) -> Html:
    """Momentary and short-term loudness of the chosen segment, its integrated loudness and both gates."""
    if trace.clip is None:
        return page.note(NO_SOUND)
    found = kernels.loudness(torch.from_numpy(np.ascontiguousarray(trace.clip.pcm))[None], trace.clip.sample_rate_hz)
    momentary, short = (values[0].numpy() for values in (found.momentary_lufs, found.short_term_lufs))
    whole, gate = float(found.integrated_lufs[0]), _relative_gate(momentary, found.hop_s)
    seconds = trace.clip.frames / trace.clip.sample_rate_hz
    limit = trace.found.config.min_loudness_lufs

    def onto(axes: Axes) -> None:
        for values, window, colour, name in ((momentary, 0.4, KEPT, "momentary"), (short, 3.0, DROPPED, "short-term")):
            at = np.arange(len(values)) * found.hop_s + window / 2
            axes.plot(at, np.maximum(values, -90.0), color=colour, linewidth=1.5, label=name)
        for value, colour, name in ((whole, LIMIT, "integrated"), (gate, NEUTRAL, "relative gate")):
            if np.isfinite(value):
                axes.axhline(value, color=colour, linewidth=1.3, linestyle="--", label=name)
        axes.axhline(ABSOLUTE_GATE_LUFS, color=NEUTRAL, linewidth=1, linestyle=":")
        lowest = np.nanmin(momentary, initial=-40.0, where=np.isfinite(momentary))
        axes.set(xlabel="time in the segment (s)", ylabel="loudness (LUFS)", xlim=(0, seconds))
        axes.set_ylim(max(-80.0, float(lowest) - 6), max(-10.0, float(np.nanmax(momentary, initial=-40.0)) + 4))
        axes.grid(axis="y")

    key = {"momentary, 0.4 s": KEPT, "short-term, 3 s": DROPPED, "integrated": LIMIT, "relative gate": NEUTRAL}
    about = f"integrated {number(whole, 1)} LUFS: the mean of the 0.4 s blocks above both gates"
    about += f" (−70 LUFS and {number(gate, 1)} LUFS)"
    about += f"; min_loudness_lufs is {number(limit, 1)}" if limit is not None else ""
    return page.join(page.legend(key), page.figure(draw(onto, 470, 190), "Loudness", about))


def _relative_gate(momentary_lufs: np.ndarray, hop_s: float) -> float:
    """10 LU below the mean power of the blocks above -70 LUFS, one every 100 ms (BS.1770-5, equation 6)."""
    blocks = momentary_lufs[:: round(0.1 / hop_s)].astype(float)
    audible = blocks[blocks > ABSOLUTE_GATE_LUFS]
    return float(10 * np.log10(np.mean(10 ** (audible / 10)))) + RELATIVE_GATE_LU if len(audible) else float("nan")


def weighting(trace: Trace) -> Html:
    """The K-weighting that loudness is measured through, at the source's rate and as tabulated for 48 kHz."""
    if trace.clip is None:
        return page.note(NO_SOUND)
    rate = trace.clip.sample_rate_hz
    hertz = np.geomspace(20, 0.49 * rate, 240)
    mine = magnitude_db(sections(rate), hertz, rate)
    table = hertz[hertz < 0.49 * 48_000]
    tabulated = magnitude_db((SHELF_48K, HIGH_PASS_48K), table, 48_000)

    def onto(axes: Axes) -> None:
        axes.plot(table, tabulated, color=DROPPED, linewidth=4, alpha=0.45)
        axes.plot(hertz, mine, color=KEPT, linewidth=1.6)
        axes.set(xscale="log", xlabel="frequency (Hz)", ylabel="gain (dB)", ylim=(-20, 6))
        axes.set_xticks([20, 100, 1000, 10_000][: 4 if rate > 20_000 else 3])
        axes.set_xticklabels(["20", "100", "1000", "10,000"][: 4 if rate > 20_000 else 3])
        axes.minorticks_off()
        axes.grid()

    key = page.legend({f"the filter at {rate:,} Hz": KEPT, "BS.1770's table, for 48 kHz": DROPPED})
    about = "the ear's weighting of BS.1770-5: a shelf for the head, a high-pass for the low end"
    return page.join(key, page.figure(draw(onto, 470, 190), "K-weighting", about))
