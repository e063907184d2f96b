"""Where to cut a video, and the cutting, while the decoder is still at work.

`spans` chooses the source of the times: the JSON beside the audio, else the captions, else what `voice.py` hears, else
fixed windows. `cut` walks over the decoded blocks once and yields a clip for every span, in order of start; what is not
worth decoding further comes out without samples and with the reason. It never holds more than the longest admissible
span and one block. `Cutter` does the same for times that become known later than their samples.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from audiopipe.config import RunConfig
from audiopipe.errors import BadSegments
from audiopipe.segment.captions import FARTHEST_S, is_invalid, read_captions, read_json
from audiopipe.types import Clip, Pcm, Seconds, SegmentSource, Span

__all__ = ["BAD_TIMES", "PAST_END", "TOO_LONG", "TOO_SHORT", "Cutter", "cut", "spans", "windows"]

# Why a span is dropped before it is measured.
BAD_TIMES = "bad_times"  # `times.senseless`: not numbers, backwards, or over before the audio starts
PAST_END = "past_end"  # starts after the audio's end, or has text of which a part lies there
TOO_SHORT = "too_short"  # less than `min_segment_s`, also because the audio ends
TOO_LONG = "too_long"  # more than `max_segment_s`

END_TOLERANCE_S = 0.5  # a text may end this far past the audio: codec delay and rounding, not a missing word


def spans(
    choice: str, document: bytes | None, captions: tuple[str, bytes] | None, window_s: Seconds
) -> tuple[SegmentSource, Iterable[Span] | None]:
    """The times to cut a video at, and where they come from.

    Args:
        choice: `RunConfig.segments`: 'auto' takes JSON, else captions, else voice activity; the others force one.
        document: the JSON beside the audio.
        captions: 'vtt' or 'srt', and the file.
        window_s: length of a fixed window.

    Returns the source; and a list in the order of the file, or `windows`, which has no end. Both are for `cut`. None
    for voice activity: its times are in the audio.

    Raises `BadSegments` if a file is there and cannot be read (what is wrong is never passed over for the next
    source), or if the choice forces a source that has no times. A file without segments is as good as none.
    """
    if choice in ("auto", "json") and document is not None and (listed := read_json(document)):
        return SegmentSource.JSON, listed
    if choice in ("auto", "captions") and captions is not None:
        kind = SegmentSource(captions[0])
        if listed := read_captions(kind, captions[1]):
            return kind, listed
    if choice in ("auto", "voice"):
        return SegmentSource.VOICE, None
    if choice == "fixed":
        return SegmentSource.FIXED, windows(window_s)
    raise BadSegments(f"no segment times in {choice}, which segments='{choice}' demands; 'auto' would do without")


def windows(window_s: Seconds) -> Iterator[Span]:
    """Windows side by side, without end; `cut` stops at the audio's."""
    return (Span(i * window_s, (i + 1) * window_s) for i in itertools.count())


def cut(
    video_id: str, blocks: Iterable[Pcm], times: Iterable[Span], sample_rate_hz: int, config: RunConfig
) -> Iterator[Clip]:
    """Clips of a decoded stream, one for each span, as soon as the span's end has arrived.

    Args:
        blocks: consecutive samples, [C, T] with any T, int16 or float32. All are consumed, whatever the spans, so that
            the decoder sees its own end. A block must not be written to again: a clip may be a view of it.
        times: a sequence in any order, overlaps allowed; or an iterator in order of start, which may be endless and
            ends with the audio.

    Yields clips in order of start, then end; `index` is the position in that order. A clip's span is what its samples
    are: a negative start becomes 0, an end past the audio's becomes the audio's. A dropped one keeps its span as it
    was given and has `pcm` [C, 0].
    """
    listed = isinstance(times, Sequence)
    ordered = enumerate(sorted(times, key=_order) if listed else times)
    queue = (_Cut(index, span, sample_rate_hz, config) for index, span in ordered)
    held = _Held()
    head = next(queue, None)
    for block in blocks:
        held.append(block)
        while head is not None and head.ready <= held.end:
            yield head.clip(video_id, sample_rate_hz, held)
            head = next(queue, None)
        held.forget(held.end if head is None else head.start)
    for left in itertools.chain([head] if head else [], queue):
        if not listed and left.start >= held.end:
            break
        left.finish(held.end, sample_rate_hz, config)
        yield left.clip(video_id, sample_rate_hz, held)


class Cutter:
    """Clips of a stream whose spans, in order of start, become known after their samples have come.

    Args:
        video_id, sample_rate_hz, config: as of `cut`.
    """

    def __init__(self, video_id: str, sample_rate_hz: int, config: RunConfig) -> None:
        self.video_id, self.rate, self.config = video_id, sample_rate_hz, config
        self.clips = 0
        self._held = _Held()

    @property
    def end_s(self) -> Seconds:
        """Of the samples that have come."""
        return self._held.end / self.rate

    def append(self, block: Pcm) -> None:
        """Take the next samples, [C, T]."""
        self._held.append(block)

    def cut(self, times: Iterable[Span], horizon_s: Seconds) -> Iterator[Clip]:
        """Clips of spans that lie within what has come; what lies before the horizon is not needed after them."""
        for span in times:
            one = _Cut(self.clips, span, self.rate, self.config)
            one.finish(self._held.end, self.rate, self.config)
            self.clips += 1
            yield one.clip(self.video_id, self.rate, self._held)
        self._held.forget(_frame(horizon_s, self.rate))


class _Cut:
    """A span in frames [start, stop), and why it is dropped, if it is."""

    __slots__ = ("index", "reason", "span", "start", "stop")

    def __init__(self, index: int, span: Span, rate: int, config: RunConfig) -> None:
        self.index, self.span = index, span
        self.start, self.stop = _frame(span.start_s, rate), _frame(span.end_s, rate)
        self.reason = BAD_TIMES if is_invalid(span) else _misfit(self.stop - self.start, rate, config)

    @property
    def ready(self) -> int:
        """How many frames must have arrived. A dropped one waits for its first, which shows that there is audio."""
        return self.stop if self.reason is None else self.start + 1

    def finish(self, end: int, rate: int, config: RunConfig) -> None:
        """Settle what the end of the audio, at frame `end`, leaves of it."""
        if self.reason == BAD_TIMES:
            return
        beyond = self.stop - end
        if self.start >= end:
            self.reason = PAST_END
        elif self.reason is None and beyond > 0:
            cut_off = self.span.text is not None and beyond > END_TOLERANCE_S * rate
            self.stop = end
            self.reason = PAST_END if cut_off else _misfit(end - self.start, rate, config)

    def clip(self, video_id: str, rate: int, held: _Held) -> Clip:
        if self.reason is not None:
            return Clip(video_id, self.index, self.span, rate, held.nothing, self.reason)
        span = self.span
        if span.start_s < 0 or self.stop == held.end < _frame(span.end_s, rate):
            span = replace(span, start_s=max(0.0, span.start_s), end_s=min(span.end_s, self.stop / rate))
        return Clip(video_id, self.index, span, rate, held.take(self.start, self.stop))


class _Held:
    """The blocks that a pending span may still need. Frames are counted from the start of the audio."""

    def __init__(self) -> None:
        self.blocks: deque[tuple[int, Pcm]] = deque()
        self.end = 0
        self.nothing: Pcm = np.empty((1, 0), np.int16)

    def append(self, block: Pcm) -> None:
        self.blocks.append((self.end, block))
        self.end += block.shape[-1]
        self.nothing = np.empty((block.shape[0], 0), block.dtype)

    def forget(self, before: int) -> None:
        while self.blocks and self.blocks[0][0] + self.blocks[0][1].shape[-1] <= before:
            self.blocks.popleft()

    def take(self, start: int, stop: int) -> Pcm:
        """Frames [start, stop), which are held. A view of a block, unless that would keep alive over twice its size."""
        parts = [
            (block, block[:, max(0, start - first) : stop - first])
            for first, block in itertools.takewhile(lambda item: item[0] < stop, self.blocks)
            if first + block.shape[-1] > start
        ]
        if len(parts) > 1:
            return np.concatenate([part for _, part in parts], axis=-1)
        block, part = parts[0]
        return part if 2 * part.shape[-1] >= block.shape[-1] else part.copy()


def _order(span: Span) -> tuple[Seconds, Seconds]:
    """Start, then end; what has none comes last."""
    start, end = (math.inf if math.isnan(time) else time for time in (span.start_s, span.end_s))
    return start, end


def _frame(time_s: Seconds, rate: int) -> int:
    """The frame nearest to a time, from 0 up; a time that is none lies beyond all audio."""
    return round((FARTHEST_S if math.isnan(time_s) else min(max(time_s, 0.0), FARTHEST_S)) * rate)


def _misfit(frames: int, rate: int, config: RunConfig) -> str | None:
    """Too short or too long, with a frame of grace: windows side by side differ by one where they do not divide."""
    if frames < 1 or frames < config.min_segment_s * rate - 1:
        return TOO_SHORT
    return TOO_LONG if frames > config.max_segment_s * rate + 1 else None
