"""Choose the source of a video's times: the catalog, JSON, captions, voice activity (`voice.py`), or fixed windows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from audiopipe.config import RunConfig
from audiopipe.errors import BadSegments
from audiopipe.segment.captions import read_captions
from audiopipe.segment.catalog_spans import file_span, read_catalog_spans
from audiopipe.segment.cut import fixed_windows
from audiopipe.segment.documents import read_json
from audiopipe.segment.merge import merge_spans
from audiopipe.segment.timestamp_map import FILE_CLOCK, MediaClock
from audiopipe.segment.transcript import Transcript, bound_text, end_with_audio
from audiopipe.types import CaptionFile, SegmentSource, Span

__all__ = ["ChosenSpans", "choose_spans"]


@dataclass(frozen=True)
class ChosenSpans:
    """The times to cut a video at: a list in the order of the file, or endless windows; None for voice activity.

    `note` is for the row of the video.
    """

    source: SegmentSource
    spans: Iterable[Span] | None
    note: str | None = None


def choose_spans(
    config: RunConfig,
    document: bytes | None,
    captions: CaptionFile | None,
    clock: MediaClock = FILE_CLOCK,
    rows: str | None = None,
) -> ChosenSpans:
    """Choose the times to cut a video at, as `segments` of the config says; `merge_captions` may join captions.

    'auto' takes the catalog's, else JSON, else captions, else voice activity; the others force a source. A file without
    segments counts as no file. A text of the catalog for a whole file makes one segment of the file.

    Args:
        config: the run's.
        document: the JSON next to the audio.
        captions: the captions next to the audio.
        clock: that of the media, for captions that refer to it.
        rows: the catalog's segments of the video.

    Raises:
        BadSegments: a file exists and cannot be read ('auto' does not skip a broken file), or the forced source has no
            times.
    """
    choice = config.segments
    note: str | None = None
    if choice in ("auto", "catalog") and (transcript := read_catalog_spans(rows, clock.end_s)):
        return ChosenSpans(SegmentSource.CATALOG, _merge(transcript, config, clock))
    whole = file_span(rows)
    if choice == "file" or (whole is not None and choice in ("auto", "catalog")):
        return ChosenSpans(SegmentSource.FILE, [whole or Span(0.0, math.inf)])
    if choice in ("auto", "json") and document is not None:
        if transcript := read_json(document):
            return ChosenSpans(SegmentSource.JSON, _merge(transcript, config, clock))
        note = "JSON: it has no segments"
    if choice in ("auto", "captions") and captions is not None:
        if transcript := read_captions(captions, clock):
            moved_s = transcript.moved_s
            note = f"captions: X-TIMESTAMP-MAP moves them by {moved_s:.3f} s" if moved_s else note
            return ChosenSpans(captions.format, _merge(transcript, config, clock), note)
        note = f"captions: {captions.name} has no text"
    if choice in ("auto", "voice"):
        return ChosenSpans(SegmentSource.VOICE, None, note)
    if choice == "fixed":
        return ChosenSpans(SegmentSource.FIXED, fixed_windows(config.window_s))
    raise BadSegments(f"there are no segment times in {choice}, which segments='{choice}' requires; use 'auto' instead")


def _merge(transcript: Transcript, config: RunConfig, clock: MediaClock) -> Sequence[Span]:
    """Join captions if the config says so, and check how many there are.

    Raises:
        BadSegments: there are more than `max_segments`, or joined ones have more text than any segment.
    """
    spans: Sequence[Span] = transcript if clock.end_s is None else end_with_audio(transcript, clock.end_s)
    if config.merge_captions == "on" or (config.merge_captions == "auto" and transcript.automatic):
        spans = merge_spans(spans, config.min_segment_s, config.max_segment_s)
        for span in spans:
            bound_text(1, len(span.text or ""), span.start_s)
    if len(spans) > config.max_segments:
        raise BadSegments(f"it has {len(spans)} segments, more than max_segments ({config.max_segments})")
    return spans
