"""Cut a video at the times that `choose.py` chooses, while the decoder is still working.

`cut` iterates over the decoded blocks once and yields a clip for every span, in order of start; a dropped span has a
reason and no samples. It never holds more than the longest permitted span and one block. `Cutter` does the same for
times that become known later than their samples, `cut_file` for a whole file.
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
from audiopipe.segment.drop_reasons import BAD_TIMES, PAST_END, TOO_LONG, TOO_SHORT
from audiopipe.segment.transcript import MAX_TIME_S, is_invalid
from audiopipe.types import Clip, Pcm, Seconds, Span

__all__ = [
    "Cutter",
    "cut",
    "cut_file",
    "fixed_windows",
    "refuse_excess",
]

END_TOLERANCE_S = 0.5  # text may end this much after the audio: codec delay and rounding, not a missing word


def refuse_excess(times: Iterable[Span], audio_s: Seconds, config: RunConfig) -> None:
    """Refuse a list of spans that cover the audio more often than `max_segment_time_ratio` allows.

    Spans that are dropped for their times do not count, nor does what lies outside of the audio.

    Raises:
        BadSegments: the spans have more time in total.
    """
    if not isinstance(times, Sequence):
        return  # windows do not overlap
    limit_s = config.max_segment_time_ratio * audio_s
    total_s = sum(_time_within(span, audio_s, config) for span in times)
    if total_s > limit_s + END_TOLERANCE_S:
        raise BadSegments(
            f"its {len(times)} segments have {total_s:.1f} s in total, and its audio {audio_s:.1f} s; the limit is "
            f"max_segment_time_ratio ({config.max_segment_time_ratio:g}) times the audio"
        )


def _time_within(span: Span, audio_s: Seconds, config: RunConfig) -> Seconds:
    if is_invalid(span) or span.duration_s > config.max_segment_s:
        return 0.0
    return max(0.0, min(span.end_s, audio_s) - max(span.start_s, 0.0))


def fixed_windows(window_s: Seconds) -> Iterator[Span]:
    """Yield adjacent windows without end; `cut` stops at the end of the audio."""
    return (Span(i * window_s, (i + 1) * window_s) for i in itertools.count())


def cut(
    video_id: str, blocks: Iterable[Pcm], times: Iterable[Span], sample_rate_hz: int, config: RunConfig
) -> Iterator[Clip]:
    """Yield a clip of a decoded stream for each span as soon as the end of the span is decoded.

    Clips come in order of start, then end; `index` is the position in that order. The span of a clip is that of its
    samples: a negative start becomes 0, an end after the audio becomes the end of the audio. A dropped clip has `pcm`
    [C, 0] and keeps the given span, but for one that is too short because the audio ends: it ends with the audio.

    Args:
        blocks: consecutive samples, [C, T] with any T, int16 or float32. All are consumed, whatever the spans, so that
            the decoder reaches its end. A block must not be changed later: a clip may be a view of it.
        times: a sequence in any order, with overlaps; or an iterator in order of start, which may be endless and ends
            with the audio.
    """
    is_list = isinstance(times, Sequence)
    ordered = enumerate(sorted(times, key=_sort_key) if is_list else times)
    queue = (_PendingClip(index, span, sample_rate_hz, config) for index, span in ordered)
    buffer = _BlockBuffer()
    head = next(queue, None)
    for block in blocks:
        buffer.append(block)
        while head is not None and head.needed_end <= buffer.end:
            yield head.to_clip(video_id, sample_rate_hz, buffer)
            head = next(queue, None)
        buffer.discard_before(buffer.end if head is None else head.start)
    for pending in itertools.chain([head] if head else [], queue):
        if not is_list and pending.start >= buffer.end:
            break
        pending.end_audio(buffer.end, sample_rate_hz, config)
        yield pending.to_clip(video_id, sample_rate_hz, buffer)


def cut_file(video_id: str, blocks: Iterable[Pcm], span: Span, sample_rate_hz: int, config: RunConfig) -> Clip:
    """Return a whole stream as one clip; dropped, without samples, if it is too short or too long.

    Args:
        blocks: as of `cut`; no more than the longest permitted segment is held.
        span: that of the file, whose end is not known.
    """
    buffer = _BlockBuffer()
    for block in blocks:
        buffer.append(block)
        if _length_problem(buffer.end, sample_rate_hz, config) == TOO_LONG:
            buffer.discard_before(buffer.end)
    pending = _PendingClip(0, replace(span, end_s=buffer.end / sample_rate_hz), sample_rate_hz, config)
    return pending.to_clip(video_id, sample_rate_hz, buffer)


class Cutter:
    """Cuts a stream whose spans, in order of start, become known after their samples.

    Args:
        video_id, sample_rate_hz, config: as of `cut`.
        first_index: the index of the first clip.
    """

    def __init__(self, video_id: str, sample_rate_hz: int, config: RunConfig, first_index: int = 0) -> None:
        self.video_id, self.sample_rate_hz, self.config = video_id, sample_rate_hz, config
        self.clips, self._first_index = 0, first_index
        self._buffer = _BlockBuffer()

    @property
    def end_s(self) -> Seconds:
        """The end of the samples so far."""
        return self._buffer.end / self.sample_rate_hz

    def append(self, block: Pcm) -> None:
        """Append the next samples, [C, T]."""
        self._buffer.append(block)

    def cut(self, times: Iterable[Span], horizon_s: Seconds) -> Iterator[Clip]:
        """Yield clips of spans within the samples so far, then discard samples before the horizon."""
        for span in times:
            pending = _PendingClip(self._first_index + self.clips, span, self.sample_rate_hz, self.config)
            pending.end_audio(self._buffer.end, self.sample_rate_hz, self.config)
            self.clips += 1
            yield pending.to_clip(self.video_id, self.sample_rate_hz, self._buffer)
        self._buffer.discard_before(_to_frame(horizon_s, self.sample_rate_hz))


class _PendingClip:
    """A span in frames [start, stop), with the reason to drop it, if any."""

    __slots__ = ("index", "reason", "span", "start", "stop")

    def __init__(self, index: int, span: Span, rate: int, config: RunConfig) -> None:
        self.index, self.span = index, span
        self.start, self.stop = _to_frame(span.start_s, rate), _to_frame(span.end_s, rate)
        self.reason = BAD_TIMES if is_invalid(span) else _length_problem(self.stop - self.start, rate, config)

    @property
    def needed_end(self) -> int:
        """The frame up to which samples are needed; for a dropped span its first, which proves that audio is there."""
        return self.stop if self.reason is None else self.start + 1

    def end_audio(self, end: int, rate: int, config: RunConfig) -> None:
        """Shorten or drop the span at the end of the audio, frame `end`."""
        if self.reason == BAD_TIMES:
            return
        excess = self.stop - end
        if self.start >= end:
            self.reason = PAST_END
        elif self.reason is None and excess > 0:
            loses_words = self.span.text is not None and excess > END_TOLERANCE_S * rate
            self.stop = end
            self.reason = PAST_END if loses_words else _length_problem(end - self.start, rate, config)
            if self.reason == TOO_SHORT:  # because the audio ends
                self.span = replace(self.span, end_s=end / rate)

    def to_clip(self, video_id: str, rate: int, buffer: _BlockBuffer) -> Clip:
        if self.reason is not None:
            return Clip(video_id, self.index, self.span, rate, buffer.empty, self.reason)
        span = self.span
        if span.start_s < 0 or self.stop == buffer.end < _to_frame(span.end_s, rate):
            span = replace(span, start_s=max(0.0, span.start_s), end_s=min(span.end_s, self.stop / rate))
        return Clip(video_id, self.index, span, rate, buffer.read(self.start, self.stop))


class _BlockBuffer:
    """The blocks that a pending span may still need. Frames are counted from the start of the audio."""

    def __init__(self) -> None:
        self.blocks: deque[tuple[int, Pcm]] = deque()
        self.end = 0
        self.empty: Pcm = np.empty((1, 0), np.int16)

    def append(self, block: Pcm) -> None:
        self.blocks.append((self.end, block))
        self.end += block.shape[-1]
        self.empty = np.empty((block.shape[0], 0), block.dtype)

    def discard_before(self, frame: int) -> None:
        while self.blocks and self.blocks[0][0] + self.blocks[0][1].shape[-1] <= frame:
            self.blocks.popleft()

    def read(self, start: int, stop: int) -> Pcm:
        """Return frames [start, stop): a view of a block, unless that would keep more than twice its size in memory."""
        parts = [
            (block, block[:, max(0, start - first) : stop - first])
            for first, block in itertools.takewhile(lambda item: item[0] < stop, self.blocks)
            if first + block.shape[-1] > start
        ]
        if len(parts) > 1:
            return np.concatenate([part for _, part in parts], axis=-1)
        block, part = parts[0]
        return part if 2 * part.shape[-1] >= block.shape[-1] else part.copy()


def _sort_key(span: Span) -> tuple[Seconds, Seconds]:
    """Return start and end, with NaN last."""
    start, end = (math.inf if math.isnan(time) else time for time in (span.start_s, span.end_s))
    return start, end


def _to_frame(time_s: Seconds, rate: int) -> int:
    """Return the frame nearest to a time, at least 0; NaN lies after all audio."""
    return round((MAX_TIME_S if math.isnan(time_s) else min(max(time_s, 0.0), MAX_TIME_S)) * rate)


def _length_problem(frames: int, rate: int, config: RunConfig) -> str | None:
    """Return `TOO_SHORT`, `TOO_LONG` or None.

    One frame of tolerance: adjacent windows differ by one where the rate does not divide their length.
    """
    if frames < 1 or frames < config.min_segment_s * rate - 1:
        return TOO_SHORT
    return TOO_LONG if frames > config.max_segment_s * rate + 1 else None
