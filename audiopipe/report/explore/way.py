"""A video's way in words and tables: how far it came, what its file says, where it was cut, what was measured."""

from __future__ import annotations

import math

import pandas as pd

from audiopipe.config import RunConfig
from audiopipe.kernels import METRICS
from audiopipe.pipeline.score import RULES
from audiopipe.report import page
from audiopipe.report.explore.trace import Trace
from audiopipe.report.figure import DROPPED, KEPT
from audiopipe.report.page import Html, esc
from audiopipe.report.quality import digits, remedy, title
from audiopipe.report.text import format_bytes, format_duration, humanize, number, percent, plural
from audiopipe.types import SegmentSource

__all__ = ["headline", "measured", "segments", "source"]

STAGES = ("fetch", "decode", "segment", "score", "encode", "write")
MOST_ROWS = 60
PREVIEW = 1500  # characters of a file beside the audio
TIMES = {
    SegmentSource.JSON: "the JSON beside the audio",
    SegmentSource.VTT: "the captions beside the audio (WebVTT)",
    SegmentSource.SRT: "the captions beside the audio (SubRip)",
    SegmentSource.VOICE: "where a voice was heard, since nothing beside the audio has times",
    SegmentSource.FIXED: "fixed windows",
}


def headline(trace: Trace) -> Html:
    """What became of the video, the stages that it came through, and what to do if it did not come through all."""
    video, rows = trace.found.video, trace.segments
    kept = int(rows["kept"].sum()) if len(rows) else 0
    cards = [
        (video.video_id, f"video · {video.language}"),
        (format_duration(trace.outline.seconds) if trace.outline.seconds else "–", "of audio decoded"),
        (f"{kept:,} / {len(rows):,}", "segments kept"),
        (format_bytes(trace.source.bytes_in) if trace.source else "–", "fetched"),
    ]
    why = page.note(f"This video: {esc(trace.found.why)}.")
    about = page.facts({"run_id": trace.found.run_id} if trace.found.run_id else {})
    return page.styled(page.join(page.cards(cards), _verdict(trace, kept), _stages(trace), why, about))


def _verdict(trace: Trace, kept: int) -> Html:
    failure, rows = trace.failure, trace.segments
    if failure is not None:
        told = [f"Stopped at <b>{esc(failure.stage)}</b>: {esc(failure.error_type)}.", esc(failure.message)]
        return page.verdict("bad", [*told, f"What to do: {page.prose(remedy(failure.error_type)).markup}."])
    if not kept:
        reasons = ", ".join(
            f"{count} {humanize(str(name))}" for name, count in rows["drop_reason"].value_counts().items()
        )
        return page.verdict("warn", ["It came through, and no segment of it was kept.", esc(reasons) or "It has none."])
    first = f"It came through: {plural(kept, 'segment')} kept of {len(rows):,}."
    dropped = rows["drop_reason"].value_counts()
    told = [f"Dropped: {esc(', '.join(f'{count} {humanize(str(name))}' for name, count in dropped.items()))}."]
    return page.verdict("good", [first, *(told if len(dropped) else [])])


def _stages(trace: Trace) -> Html:
    """`✓ fetch → ✓ decode → ✕ segment → …`"""
    stopped = trace.failure.stage if trace.failure else None
    at = STAGES.index(stopped) if stopped in STAGES else len(STAGES) if stopped is None else 0
    signs = ["good" if number < at else "bad" if number == at else "" for number in range(len(STAGES))]
    marks = {"good": "✓ ", "bad": "✕ ", "": "· "}
    steps = "".join(
        f'<span class="{sign}"><b class="sign">{marks[sign]}</b>{name}</span>'
        for name, sign in zip(STAGES, signs, strict=True)
    )
    return Html(f'<p class="chips steps">{steps}</p>')


def source(trace: Trace) -> Html:
    """The object, the audio in it, and the files beside the audio."""
    video, found, media = trace.found.video, trace.source, trace.media
    rows: list[list[str]] = [["address", video.uri]]
    if found is None:
        return page.join(page.table(["object", ""], rows, "lw"), page.note("It could not be fetched."))
    rows += [
        ["size, tag", f"{format_bytes(found.bytes_in)}, {found.etag}"],
        ["audio in it", f"{found.size:,} bytes from byte {found.offset:,} on"],
        ["length in the catalogue", format_duration(video.duration_s) if video.duration_s else "not stated"],
    ]
    if media is not None:
        channels = plural(media.channels, "channel")
        rows += [
            ["container, codec", f"{media.container}, {media.codec}"],
            ["signal", f"{media.sample_rate_hz:,} Hz, {channels}, {media.sample_format}"],
            ["declared, decoded", f"{_seconds(media.declared_s)}, {_seconds(trace.outline.seconds)}"],
        ]
    else:
        rows.append(["container, codec", "not recognised"])
    return page.join(page.table(["object", ""], rows, "lw"), *_beside(trace))


def _seconds(value: float | None) -> str:
    return "not stated" if value is None else f"{value:,.2f} s"


def _beside(trace: Trace) -> list[Html]:
    assert trace.source is not None
    document, captions = trace.source.document, trace.source.captions
    files = [("JSON", document)] if document is not None else []
    files += [(f"captions ({captions[0]})", captions[1])] if captions else []
    return [
        Html(
            f"<details><summary>{esc(name)} beside the audio, {format_bytes(len(data))}</summary>"
            f"<pre>{esc(data[:PREVIEW].decode('utf-8', 'replace'))}{'…' * (len(data) > PREVIEW)}</pre></details>"
        )
        for name, data in files
    ] or [page.note("There is no JSON and there are no captions beside the audio.")]


def segments(trace: Trace) -> Html:
    """Every segment with the metrics that a threshold asks for, and the decision. What breaks a limit is marked."""
    rows, config = trace.segments, trace.found.config
    if not len(rows):
        return page.note("There are no segments to show: the video stopped before, or all of it was refused.")
    # A metric may have a limit on either side: one column then.
    limits = [rule for rule in RULES if getattr(config, rule[2]) is not None]
    shown = list(dict.fromkeys(metric for _, metric, _, _ in limits))
    table = [_segment(row, shown, config) for _, row in rows.head(MOST_ROWS).iterrows()]
    head = ["", "from", "to", "decision", *(title(metric) for metric in shown), "text"]
    limit = ["", "", "", "limit", *(_limit(metric, config) for metric in shown), ""]
    where = TIMES[SegmentSource(str(rows["segment_times"].iloc[0]))]
    more = f" The first {MOST_ROWS} of {len(rows):,} are listed." if len(rows) > MOST_ROWS else ""
    note = f"Times come from {where} (<code>segments={esc(config.segments)}</code>).{more}"
    return page.join(page.note(note), page.table(head, table, "r  l" + " " * len(shown) + "w", limit))


def _segment(row: pd.Series, shown: list[str], config: RunConfig) -> list[str | Html]:
    decision = f'<b style="color:{KEPT}">kept</b>' if row["kept"] else _reason(row)
    text = row["text"] if isinstance(row["text"], str) else "–"
    cells = [_value(metric, float(row[metric]), breaks(metric, float(row[metric]), config)) for metric in shown]
    return [str(row["segment"]), f"{row['start_s']:.2f} s", f"{row['end_s']:.2f} s", Html(decision), *cells, text]


def _reason(row: pd.Series) -> str:
    return f'<b style="color:{DROPPED}">{esc(humanize(str(row["drop_reason"])))}</b>'


def breaks(metric: str, value: float, config: RunConfig) -> bool:
    """Whether a metric lies outside any of its limits."""
    rules = [(field, test) for _, name, field, test in RULES if name == metric]
    limits = ((getattr(config, field), test) for field, test in rules)
    return any(limit is not None and test(value, limit) for limit, test in limits)


def _value(metric: str, value: float, broken: bool) -> str | Html:
    told = number(value, digits(metric))
    return Html(f'<b style="color:{DROPPED}">{esc(told)} ✕</b>') if broken else told


def _limit(metric: str, config: RunConfig) -> str:
    told = [
        f"{'≥' if field.startswith('min_') else '≤'} {getattr(config, field):g}"
        for _, name, field, _ in RULES
        if name == metric and getattr(config, field) is not None
    ]
    return ", ".join(told).replace("-", "−")


def measured(trace: Trace) -> Html:
    """All metrics of the chosen segment: what each is, its value, and its limit."""
    row, config = trace.chosen, trace.found.config
    if row is None:
        return page.note("No segment has been measured.")
    table = []
    for metric, (unit, about) in METRICS.items():
        value = float(row[metric])
        shown = _value(metric, value, breaks(metric, value, config))
        told = about if math.isfinite(value) else f"{about}; does not exist here"
        table.append([title(metric).removesuffix(f" ({unit})"), shown, "" if unit == "1" else unit])
        table[-1] += [_limit(metric, config) or "–", told]
    share = percent(float(row["duration_s"]), trace.outline.seconds)
    what = f"Segment {row['segment']}, {row['start_s']:.2f} to {row['end_s']:.2f} s, {share} of the video: "
    what += "kept." if row["kept"] else f"dropped as <b>{esc(humanize(str(row['drop_reason'])))}</b>."
    note = page.note(f"{what} Choose another with the parameter <code>segment</code>.")
    return page.join(note, page.table(["metric", "value", "unit", "limit", "meaning"], table, "l llw"))
