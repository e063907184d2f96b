"""What a segment becomes: encoded audio, its JSON, its line of the manifest; and whether the output has the same."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import soundfile as sf

from audiopipe.kernels import METRICS
from audiopipe.media.encode import encode
from audiopipe.report import page
from audiopipe.report.excerpts import Excerpt, player
from audiopipe.report.explore.trace import Trace
from audiopipe.report.page import Html, esc
from audiopipe.report.text import format_bytes, number, percent, plural
from audiopipe.store.parquet import read_table

__all__ = ["compared", "encoded", "records"]


def encoded(trace: Trace) -> Html:
    """The size of the encoded segment, a player, and what decoding it again gives."""
    if trace.written is None or trace.written.audio is None:
        return page.note("Nothing was encoded: the segment was dropped, or there is none.")
    data, config = trace.written.audio, trace.found.config
    samples, rate = sf.read(io.BytesIO(data), dtype="int16")
    seconds, raw = len(samples) / rate, 2 * len(samples)
    rows = [
        ["codec, rate", f"{config.audio_format}, {rate:,} Hz, mono, 16 bits"],
        ["length", f"{seconds:.3f} s, {len(samples):,} samples"],
        ["size", f"{format_bytes(len(data))}: {percent(len(data), raw)} of the samples' own {format_bytes(raw)}"],
        ["bit rate", f"{8 * len(data) / seconds / 1000:,.0f} kbit/s"],
        ["round trip", _round_trip(samples, rate, config.audio_format)],
    ]
    sound = Html(player(Excerpt.of(data), esc(f"segment {trace.number}")))
    return page.join(Html(f'<div class="sample">{sound.markup}</div>'), page.table(["encoded", ""], rows, "lw"))


def _round_trip(samples: Any, rate: int, audio_format: str) -> str:
    """Encode what was decoded once more: nothing may change where the codec is lossless."""
    again, _ = sf.read(io.BytesIO(encode(samples, rate, audio_format)), dtype="int16")
    if np.array_equal(again, samples):
        return "every sample comes back as it was"
    shared = min(len(again), len(samples))
    left, right = samples[:shared].astype(float), again[:shared].astype(float)
    noise = float(np.mean((left - right) ** 2))
    told = number(10 * math.log10(max(float(np.mean(left**2)), 1e-9) / max(noise, 1e-9)), 1)
    return f"lossy: a second round lies {told} dB below the signal ({len(again) - len(samples):+d} samples)"


def records(trace: Trace) -> Html:
    """The JSON beside the audio in the tar, and the line of the NeMo manifest."""
    if trace.written is None or trace.written.sidecar is None:
        video = {} if trace.written is None else trace.written.video
        if not video:
            return page.note("Nothing is written of it.")
        told = {name: value for name, value in video.items() if not isinstance(value, bytes)}
        return Html("<h4>Its row of the videos' table</h4>" + _json(told))
    sidecar, manifest = _json(trace.written.sidecar), _json(trace.written.manifest or {})
    return Html(f"<h4>JSON in the tar</h4>{sidecar}<h4>Row of the manifest</h4>{manifest}")


def _json(body: dict[str, Any]) -> str:
    return f"<pre>{esc(json.dumps(body, indent=1, ensure_ascii=False, default=str))}</pre>"


def compared(trace: Trace) -> Html:
    """Whether the output holds what came out now: decisions of all segments, and how far metrics lie apart."""
    found = trace.found
    if found.store is None:
        return page.note("There is no output to compare with: the video is from a catalogue.")
    if found.commit is None:
        return page.note(f"Shard {esc(found.shard.name)} is not committed yet: there is nothing to compare with.")
    names = {item.name.rsplit("/", 1)[-1].split("_")[0]: item.name for item in found.commit.objects}
    theirs = _rows(read_table(found.store.read(names["segments"])).to_pandas(), found.video.video_id)
    letters = {letter.video_id: letter.error_type for letter in found.commit.result.dead_letters}
    then, now = letters.get(found.video.video_id), trace.failure.error_type if trace.failure else None
    if then or now:
        same = then == now
        said = f"the output has it as {then or 'done'}, now it is {now or 'done'}"
        return page.verdict("good" if same else "warn", [f"{'The same' if same else 'Not the same'}: {esc(said)}."])
    return _agreement(trace.segments, theirs)


def _rows(table: pd.DataFrame, video_id: str) -> pd.DataFrame:
    return table[table["video_id"] == video_id].set_index("segment", drop=False)


def _agreement(traced: pd.DataFrame, stored: pd.DataFrame) -> Html:
    shared = traced.index.intersection(stored.index)
    changed = int((traced.loc[shared, "drop_reason"].fillna("") != stored.loc[shared, "drop_reason"].fillna("")).sum())
    metrics = list(METRICS)
    left, right = traced.loc[shared, metrics].to_numpy(float), stored.loc[shared, metrics].to_numpy(float)
    apart = np.nan_to_num(np.abs(left - right), nan=0.0, posinf=0.0) / np.maximum(1.0, np.abs(np.nan_to_num(right)))
    most = float(apart.max(initial=0.0))
    same = len(shared) == len(traced) and not changed
    if len(traced) != len(stored):
        told = f"Not the same: {plural(len(traced), 'segment')} now, {len(stored):,} in the output."
        return page.verdict("warn", [told, "Its source has changed since, or another version has made it."])
    told = f"{'The same' if same else 'Not the same'} as in the output: {plural(len(shared), 'segment')} compared, "
    told += f"{changed:,} with another decision."
    return page.verdict("good" if same else "warn", [told, f"Metrics differ by at most {most:.1g} of their value."])
