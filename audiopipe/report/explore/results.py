"""The output of one segment: encoded audio, JSON and manifest row; and a comparison with the stored output."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd
import soundfile as sf

from audiopipe.media.encode import encode
from audiopipe.metrics import METRICS
from audiopipe.report import page
from audiopipe.report.excerpts import Excerpt, player
from audiopipe.report.explore.trace import Trace
from audiopipe.report.page import Html, esc
from audiopipe.report.text import format_bytes, format_number, format_percent, pluralize

__all__ = ["comparison", "encoding", "records"]


def encoding(trace: Trace) -> Html:
    """Show the size of the encoded segment, a player, and whether decoding it is exact."""
    if trace.encoded is None:
        return page.note("Nothing was encoded: the segment was dropped, or there is none.")
    audio, config = trace.encoded.audio, trace.config
    samples, rate = sf.read(io.BytesIO(audio), dtype="int16")
    seconds, pcm_bytes = len(samples) / rate, 2 * len(samples)
    rows = [
        ["codec, rate", f"{config.audio_format}, {rate:,} Hz, mono, 16 bits"],
        ["length", f"{seconds:.3f} s, {len(samples):,} samples"],
        [
            "size",
            f"{format_bytes(len(audio))}: {format_percent(len(audio), pcm_bytes)} of {format_bytes(pcm_bytes)} of PCM",
        ],
        ["bit rate", f"{8 * len(audio) / seconds / 1000:,.0f} kbit/s"],
        ["round trip", _round_trip(samples, rate, config.audio_format)],
    ]
    audio_player = f'<div class="sample">{player(Excerpt.decode(audio), esc(f"segment {trace.segment}"))}</div>'
    return page.join(Html(audio_player), page.table(["encoded", ""], rows, "lw"))


def _round_trip(samples: npt.NDArray[np.int16], rate: int, audio_format: str) -> str:
    """Encode the decoded samples again and compare: a lossless codec changes nothing."""
    decoded, _ = sf.read(io.BytesIO(encode(samples, rate, audio_format)), dtype="int16")
    if np.array_equal(decoded, samples):
        return "lossless: every sample is equal"
    shared = min(len(decoded), len(samples))
    signal = samples[:shared].astype(float)
    noise = float(np.mean((signal - decoded[:shared].astype(float)) ** 2))
    snr = format_number(10 * math.log10(max(float(np.mean(signal**2)), 1e-9) / max(noise, 1e-9)), 1)
    difference = len(decoded) - len(samples)
    return f"lossy: encoding again adds noise {snr} dB below the signal ({difference:+d} samples)"


def records(trace: Trace) -> Html:
    """Show the segment's JSON in the tar and its row of the NeMo manifest; without a segment, the video's row."""
    if trace.encoded is not None:
        sidecar, manifest = _json(trace.encoded.sidecar), _json(trace.encoded.manifest)
        return Html(f"<h4>JSON in the tar</h4>{sidecar}<h4>Row of the manifest</h4>{manifest}")
    if trace.result is None:
        return page.note("Nothing was written.")
    row = {name: value for name, value in trace.result.video.items() if not isinstance(value, bytes)}
    return Html("<h4>Row of the table of videos</h4>" + _json(row))


def _json(body: Mapping[str, object]) -> str:
    return f"<pre>{esc(json.dumps(body, indent=1, ensure_ascii=False, default=str))}</pre>"


def comparison(trace: Trace) -> Html:
    """Compare the trace with the stored output: the decisions of all segments, and the metrics."""
    dataset, shard, video_id = trace.chosen.dataset, trace.chosen.shard.name, trace.video.video_id
    if dataset is None:
        return page.note("There is no output to compare with: the video is from a catalog.")
    if shard not in dataset.commits:
        return page.note(f"Shard {esc(shard)} is not committed yet: there is nothing to compare with.")
    letters = {letter.video_id: letter.error_type for letter in dataset.commits[shard].result.dead_letters}
    stored, traced = letters.get(video_id), trace.failure.error_type if trace.failure else None
    if stored or traced:
        text = f"in the output the video is {stored or 'done'}, now it is {traced or 'done'}"
        return _verdict(stored == traced, f": {esc(text)}.")
    rows = dataset.select_shards([shard]).to_pandas()
    return _compare_segments(trace.segments, rows[rows["video_id"] == video_id].set_index("segment", drop=False))


def _verdict(same: bool, text: str, detail: str = "") -> Html:
    first = f"{'Same result' if same else 'Different result'}{text}"
    return page.verdict("good" if same else "warn", [first, *([detail] if detail else [])])


def _compare_segments(traced: pd.DataFrame, stored: pd.DataFrame) -> Html:
    if len(traced) != len(stored):
        text = f": {pluralize(len(traced), 'segment')} now, {len(stored):,} in the output."
        return _verdict(False, text, "The source has changed since, or another version made the output.")
    shared = traced.index.intersection(stored.index)
    left, right = (rows.loc[shared, "drop_reason"].fillna("") for rows in (traced, stored))
    changed = int((left != right).sum())
    text = f" as in the output: {pluralize(len(shared), 'segment')} compared, {changed:,} with another decision."
    difference = _largest_difference(traced.loc[shared], stored.loc[shared])
    detail = f"Metrics differ by at most {difference:.1g} of their value." if difference else "All metrics are equal."
    return _verdict(len(shared) == len(traced) and not changed, text, detail)


def _largest_difference(traced: pd.DataFrame, stored: pd.DataFrame) -> float:
    """Return the largest relative difference of any metric; below 1, the absolute one."""
    left, right = (rows[list(METRICS)].to_numpy(float) for rows in (traced, stored))
    difference = np.nan_to_num(np.abs(left - right), nan=0.0, posinf=0.0)
    return float((difference / np.maximum(1.0, np.abs(np.nan_to_num(right)))).max(initial=0.0))
