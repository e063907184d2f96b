"""A video's stages in tables: how far it got, its file, its segments and their metrics."""

from __future__ import annotations

import math
from collections import Counter

import pandas as pd

from audiopipe.metrics import METRICS
from audiopipe.report import page
from audiopipe.report.explore.trace import Trace
from audiopipe.report.figure import DROPPED, KEPT
from audiopipe.report.metric_labels import format_metric, metric_name, metric_title
from audiopipe.report.page import Html, esc
from audiopipe.report.quality import remedy
from audiopipe.report.text import format_bytes, format_duration, format_percent, humanize, pluralize
from audiopipe.report.thresholds import Threshold, active_thresholds
from audiopipe.types import SegmentSource

__all__ = ["headline", "metrics", "segments", "source"]

STEPS = ("fetch", "decode", "segment", "score", "encode", "write")
MAX_ROWS = 60
PREVIEW_CHARACTERS = 1500
SEGMENT_SOURCES = {
    SegmentSource.CATALOG: "the catalog",
    SegmentSource.FILE: "the catalog: the file is one segment",
    SegmentSource.JSON: "the JSON of the video",
    SegmentSource.VTT: "the captions of the video (WebVTT)",
    SegmentSource.SRT: "the captions of the video (SubRip)",
    SegmentSource.JSON3: "the captions of the video (YouTube's json3)",
    SegmentSource.SRV: "the captions of the video (YouTube's XML)",
    SegmentSource.TTML: "the captions of the video (TTML)",
    SegmentSource.VOICE: "voice activity, since the video has neither JSON nor captions with times",
    SegmentSource.FIXED: "fixed windows",
}


def headline(trace: Trace) -> Html:
    """Show the result, the stages that the video passed, and what to do if it failed."""
    video, rows = trace.video, trace.segments
    kept = int(rows["kept"].sum()) if len(rows) else 0
    cards = [
        (video.video_id, f"video · {video.language}"),
        (format_duration(trace.envelope.seconds) if trace.envelope.seconds else "–", "of audio decoded"),
        (f"{kept:,} / {len(rows):,}", "segments kept"),
        (format_bytes(trace.source.bytes_in) if trace.source else "–", "fetched"),
    ]
    reason = page.note(f"Why this video: {esc(trace.chosen.reason)}.")
    run = page.embed_metadata({"run_id": trace.chosen.run_id} if trace.chosen.run_id else {})
    return page.with_styles(page.join(page.cards(cards), _verdict(trace, kept), _stage_chips(trace), reason, run))


def _verdict(trace: Trace, kept: int) -> Html:
    failure, rows = trace.failure, trace.segments
    if failure is not None:
        stopped = f"Stopped at <b>{esc(failure.stage)}</b>: {esc(failure.error_type)}."
        advice = f"What to do: {page.inline_code(remedy(failure.error_type)).markup}."
        return page.verdict("bad", [stopped, esc(failure.message), advice])
    drops = Counter(rows["drop_reason"].dropna()) if len(rows) else Counter[str]()
    reasons = esc(", ".join(f"{count} {humanize(reason)}" for reason, count in drops.most_common()))
    if not kept:
        dropped = f"Dropped: {reasons}." if reasons else "It has no segments."
        return page.verdict("warn", ["The video passed every stage, but no segment was kept.", dropped])
    passed = f"The video passed every stage: {pluralize(kept, 'segment')} kept of {len(rows):,}."
    return page.verdict("good", [passed, *([f"Dropped: {reasons}."] if reasons else [])])


def _stage_chips(trace: Trace) -> Html:
    """Draw `✓ fetch → ✓ decode → ✕ segment → …`."""
    stage = trace.failure.stage if trace.failure else None
    stopped = STEPS.index(stage) if stage in STEPS else len(STEPS) if stage is None else 0
    states = ["good" if number < stopped else "bad" if number == stopped else "" for number in range(len(STEPS))]
    marks = {"good": "✓ ", "bad": "✕ ", "": "· "}
    chips = "".join(
        f'<span class="{state}"><b class="sign">{marks[state]}</b>{name}</span>'
        for name, state in zip(STEPS, states, strict=True)
    )
    return Html(f'<p class="chips steps">{chips}</p>')


def source(trace: Trace) -> Html:
    """Show the object, the audio in it, and the JSON and captions in the same tar."""
    video, fetched, media = trace.video, trace.source, trace.media
    rows: list[list[str]] = [["address", video.shown_uri]]
    if fetched is None:
        return page.join(page.table(["object", ""], rows, "lw"), page.note("The object could not be fetched."))
    rows += [
        ["size, etag", f"{format_bytes(fetched.bytes_in)}, {fetched.etag}"],
        ["position of the audio", f"{fetched.size:,} bytes from byte {fetched.offset:,}"],
        ["duration in the catalog", format_duration(video.duration_s) if video.duration_s else "not stated"],
    ]
    if media is not None:
        channels = pluralize(media.channels, "channel")
        rows += [
            ["container, codec", f"{media.container}, {media.codec}"],
            ["signal", f"{media.sample_rate_hz:,} Hz, {channels}, {media.sample_format}"],
            ["declared, decoded", f"{_seconds(media.declared_s)}, {_seconds(trace.envelope.seconds)}"],
        ]
    else:
        rows.append(["container, codec", "not recognized"])
    return page.join(page.table(["object", ""], rows, "lw"), *_sidecars(trace))


def _seconds(value: float | None) -> str:
    return "not stated" if value is None else f"{value:,.2f} s"


def _sidecars(trace: Trace) -> list[Html]:
    assert trace.source is not None
    document, captions = trace.source.document, trace.source.captions
    files = [("JSON", document)] if document is not None else []
    files += [(f"Captions ({captions.format})", captions.data)] if captions else []
    return [
        Html(
            f"<details><summary>{esc(name)}, {format_bytes(len(data))}</summary>"
            f"<pre>{esc(data[:PREVIEW_CHARACTERS].decode('utf-8', 'replace'))}"
            f"{'…' * (len(data) > PREVIEW_CHARACTERS)}</pre></details>"
        )
        for name, data in files
    ] or [page.note("The video has neither JSON nor captions.")]


def segments(trace: Trace) -> Html:
    """List every segment with the decision and the metrics that have a threshold. Values outside a limit are marked."""
    rows = trace.segments
    if not len(rows):
        return page.note("There are no segments: the video stopped earlier, or every segment was rejected.")
    thresholds = active_thresholds(trace.config.model_dump())
    # A metric with a minimum and a maximum has one column.
    columns = list(dict.fromkeys(threshold.metric for threshold in thresholds))
    table = [_segment(row, columns, thresholds) for _, row in rows.head(MAX_ROWS).iterrows()]
    head = ["", "from", "to", "decision", *map(metric_title, columns), "text"]
    limits = ["", "", "", "limit", *(_limits(metric, thresholds) for metric in columns), ""]
    times = SEGMENT_SOURCES[SegmentSource(str(rows["segment_times"].iloc[0]))]
    more = f" The first {MAX_ROWS} of {len(rows):,} are listed." if len(rows) > MAX_ROWS else ""
    note = f"Times come from {times} (<code>segments={esc(trace.config.segments)}</code>).{more}"
    return page.join(page.note(note), page.table(head, table, "r  l" + " " * len(columns) + "w", limits))


def _segment(row: pd.Series, columns: list[str], thresholds: list[Threshold]) -> list[str | Html]:
    reason = "kept" if row["kept"] else esc(humanize(str(row["drop_reason"])))
    decision = Html(f'<b style="color:{KEPT if row["kept"] else DROPPED}">{reason}</b>')
    text = row["text"] if isinstance(row["text"], str) else "–"
    values = [_value(metric, float(row[metric]), thresholds) for metric in columns]
    return [str(row["segment"]), f"{row['start_s']:.2f} s", f"{row['end_s']:.2f} s", decision, *values, text]


def _value(metric: str, value: float, thresholds: list[Threshold]) -> str | Html:
    text = format_metric(metric, value)
    if any(threshold.drops(value) for threshold in thresholds if threshold.metric == metric):
        return Html(f'<b style="color:{DROPPED}">{esc(text)} ✕</b>')
    return text


def _limits(metric: str, thresholds: list[Threshold]) -> str:
    limits = [
        f"{'≥' if threshold.is_minimum else '≤'} {threshold.limit:g}"
        for threshold in thresholds
        if threshold.metric == metric
    ]
    return ", ".join(limits).replace("-", "−")


def metrics(trace: Trace) -> Html:
    """List all metrics of the segment: value, unit, limit and meaning."""
    row, thresholds = trace.row, active_thresholds(trace.config.model_dump())
    if row is None:
        return page.note("No segment was measured.")
    table: list[list[str | Html]] = []
    for metric, (unit, meaning) in METRICS.items():
        value = float(row[metric])
        about = meaning if math.isfinite(value) else f"{meaning}; not defined for this segment"
        cells = [metric_name(metric), _value(metric, value, thresholds), "" if unit == "1" else unit]
        table.append([*cells, _limits(metric, thresholds) or "–", about])
    share = format_percent(float(row["duration_s"]), trace.envelope.seconds)
    text = f"Segment {row['segment']}, {row['start_s']:.2f} to {row['end_s']:.2f} s, {share} of the video: "
    text += "kept." if row["kept"] else f"dropped as <b>{esc(humanize(str(row['drop_reason'])))}</b>."
    note = page.note(f"{text} Set the parameter <code>segment</code> to see another.")
    return page.join(note, page.table(["metric", "value", "unit", "limit", "meaning"], table, "l llw"))
