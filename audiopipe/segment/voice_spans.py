"""Turn the probability of speech in each frame into the times of segments, as the frames arrive.

Speech begins with a frame at `voice_threshold` or above. It ends when frames have been below the threshold minus
`voice_hysteresis` for `voice_gap_s`: probabilities in between neither begin nor end speech, and shorter gaps do not end
it. Speech of less than `voice_min_s` is ignored. Each segment is padded by `voice_pad_s` on both sides. A segment that
would exceed `max_segment_s` is cut at its longest pause so far, or at that length if it has no pause.

The rules are those of Silero's `get_speech_timestamps`, without its dependence on later frames.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from audiopipe.config import RunConfig
from audiopipe.types import Seconds, Span

__all__ = ["SpeechSegmenter"]

MIN_PAUSE_S = 0.098  # shorter silence is within a word (a closed lip), not a place to cut
MIN_EXIT_THRESHOLD = 0.01

Frames = int


class SpeechSegmenter:
    """The segments of one stream. Frames are counted from its start."""

    def __init__(self, config: RunConfig, frame_s: Seconds) -> None:
        self.frame_s = frame_s
        self.enter_threshold = config.voice_threshold
        self.exit_threshold = max(config.voice_threshold - config.voice_hysteresis, MIN_EXIT_THRESHOLD)
        self.gap, self.shortest = config.voice_gap_s / frame_s, config.voice_min_s / frame_s
        self.pad_s = config.voice_pad_s
        self.longest = max(1, math.floor((config.max_segment_s - 2 * config.voice_pad_s) / frame_s))
        self.position: Frames = 0
        self.is_speech = False  # by threshold and hysteresis
        self.start: Frames | None = None  # of the current segment
        self.lead_s: Seconds = 0.0  # padding before the current segment
        self.gap_start: Frames | None = None  # of the current gap
        self.last_end_s: Seconds = 0.0  # of the last segment, with its padding
        self.pauses: list[tuple[Frames, Frames]] = []  # of the current segment, long enough to cut there

    @property
    def horizon_s(self) -> Seconds:
        """The time before which no later segment begins."""
        if self.start is not None:
            return self.start * self.frame_s - self.lead_s
        return self.position * self.frame_s - self.pad_s

    def push(self, probabilities: npt.NDArray[np.float32]) -> Iterator[Span]:
        """Take the probabilities of the next frames and yield the segments that end within them, in order."""
        is_low = probabilities < self.exit_threshold
        for first, last, is_speech in self._runs(probabilities >= self.enter_threshold, is_low):
            offset = self.position
            if is_speech:
                yield from self._add_speech(offset + first, offset + last)
            elif self.start is not None:
                low_frames = np.flatnonzero(is_low[first:last]) + offset + first
                yield from self._add_silence(offset + first, offset + last, low_frames)
            self.is_speech = is_speech
        self.position += len(probabilities)

    def finish(self, end_s: Seconds) -> Iterator[Span]:
        """Yield the segment that ends with the audio, if any."""
        if self.start is not None and end_s / self.frame_s - self.start > self.shortest:
            yield self._span(end_s)
        self.start = None

    def _runs(self, is_high: npt.NDArray[np.bool_], is_low: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int, bool]]:
        """Yield runs [first, last) of frames with or without speech; frames neither high nor low continue a run."""
        decided = np.where(is_high | is_low, np.arange(len(is_high)), -1)
        latest = np.maximum.accumulate(decided)
        speech = np.where(latest >= 0, is_high[latest], self.is_speech)
        bounds = [0, *(np.flatnonzero(np.diff(speech)) + 1).tolist(), len(speech)]
        for first, last in itertools.pairwise(bounds):
            if last > first:
                yield first, last, bool(speech[first])

    def _add_speech(self, first: Frames, last: Frames) -> Iterator[Span]:
        """Begin or continue a segment with speech in frames [first, last), and cut it while it is too long."""
        if self.start is None:
            self._begin(first, min(self.pad_s, first * self.frame_s - self.last_end_s))
        elif self.gap_start is not None and (first - self.gap_start) * self.frame_s > MIN_PAUSE_S:
            self.pauses.append((self.gap_start, first))
        self.gap_start = None
        while self.start is not None and last - self.start > self.longest:
            yield from self._cut()

    def _add_silence(self, first: Frames, last: Frames, low_frames: npt.NDArray[np.int64]) -> Iterator[Span]:
        """End the segment if, within frames [first, last) without speech, its gap or the segment becomes too long.

        Args:
            low_frames: those of the frames that are below the exit threshold.
        """
        assert self.start is not None
        self.gap_start = first if self.gap_start is None else self.gap_start
        latest = self.start + self.longest
        ends = low_frames[low_frames >= self.gap_start + self.gap]
        if len(ends) and ends[0] <= latest:
            yield from self._end(self.gap_start, self.pad_s)
        elif last > latest:
            yield from self._end(self.gap_start, min(self.pad_s, (latest - self.gap_start) * self.frame_s))
        else:
            return
        self.start = self.gap_start = None

    def _begin(self, start: Frames, lead_s: Seconds) -> None:
        self.start, self.lead_s = start, lead_s
        self.pauses = [pause for pause in self.pauses if pause[0] > start]

    def _end(self, end: Frames, trail_s: Seconds) -> Iterator[Span]:
        assert self.start is not None
        if end - self.start > self.shortest:
            self.last_end_s = end * self.frame_s + trail_s
            yield self._span(self.last_end_s)

    def _span(self, end_s: Seconds) -> Span:
        assert self.start is not None
        return Span(round(self.start * self.frame_s - self.lead_s, 6), round(end_s, 6))

    def _cut(self) -> Iterator[Span]:
        """End the segment at its longest pause and begin the next one after it."""
        assert self.start is not None
        latest = self.start + self.longest
        pauses = [pause for pause in self.pauses if pause[0] <= latest]
        end, start = max(pauses, key=lambda pause: pause[1] - pause[0], default=(latest, latest))
        pad_s = min(self.pad_s, (start - end) * self.frame_s / 2)
        yield from self._end(end, pad_s)
        self._begin(start, pad_s)
