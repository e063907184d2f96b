"""From the probability of speech in each frame to the times of segments, while the frames still come.

Speech begins with a frame at `voice_threshold` or above. It goes on until frames have been below the threshold less
`voice_hysteresis` for `voice_gap_s`, so that what lies in between neither begins nor ends anything and shorter gaps are
no ends. Speech of less than `voice_min_s` is none. Each piece is padded by `voice_pad_s` on both sides. One that would
grow longer than `max_segment_s` is cut at its longest pause so far, and where it has none, at that length.

The rules are those of Silero's `get_speech_timestamps`, less its dependence on what comes later.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from audiopipe.config import RunConfig
from audiopipe.types import Seconds, Span

__all__ = ["VoiceTimes"]

PAUSE_S = 0.098  # shorter silence is a closed lip, not a place to cut
LOWEST_EXIT = 0.01

Frames = int


class VoiceTimes:
    """The segments of one stream. Frames are counted from its start."""

    def __init__(self, config: RunConfig, frame_s: Seconds) -> None:
        self.frame_s = frame_s
        self.enter = config.voice_threshold
        self.exit = max(config.voice_threshold - config.voice_hysteresis, LOWEST_EXIT)
        self.gap, self.shortest = config.voice_gap_s / frame_s, config.voice_min_s / frame_s
        self.pad_s = config.voice_pad_s
        self.longest = max(1, math.floor((config.max_segment_s - 2 * config.voice_pad_s) / frame_s))
        self.position: Frames = 0
        self.speaking = False  # by threshold and hysteresis
        self.start: Frames | None = None  # of the segment under way
        self.lead_s: Seconds = 0.0  # its padding
        self.quiet: Frames | None = None  # where the gap under way began
        self.ended_s: Seconds = 0.0  # the last segment, with its padding
        self.pauses: list[tuple[Frames, Frames]] = []  # in the segment under way, long enough to be cut in

    @property
    def horizon_s(self) -> Seconds:
        """No segment that is still to come begins before this."""
        if self.start is not None:
            return self.start * self.frame_s - self.lead_s
        return self.position * self.frame_s - self.pad_s

    def push(self, probabilities: npt.NDArray[np.float32]) -> Iterator[Span]:
        """The segments that end within the next frames, in order."""
        low = probabilities < self.exit
        for first, last, speaking in self._runs(probabilities >= self.enter, low):
            offset = self.position
            if speaking:
                yield from self._speech(offset + first, offset + last)
            elif self.start is not None:
                yield from self._silence(
                    offset + first, offset + last, np.flatnonzero(low[first:last]) + offset + first
                )
            self.speaking = speaking
        self.position += len(probabilities)

    def finish(self, end_s: Seconds) -> Iterator[Span]:
        """The segment that the end of the audio ends."""
        if self.start is not None and end_s / self.frame_s - self.start > self.shortest:
            yield self._span(end_s)
        self.start = None

    def _runs(self, high: npt.NDArray[np.bool_], low: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int, bool]]:
        """Stretches [first, last) of frames of speech or of none. What is neither high nor low stays what it was."""
        told = np.where(high | low, np.arange(len(high)), -1)
        latest = np.maximum.accumulate(told)
        speech = np.where(latest >= 0, high[latest], self.speaking)
        bounds = [0, *(np.flatnonzero(np.diff(speech)) + 1).tolist(), len(speech)]
        for first, last in itertools.pairwise(bounds):
            if last > first:
                yield first, last, bool(speech[first])

    def _speech(self, first: Frames, last: Frames) -> Iterator[Span]:
        if self.start is None:
            self._open(first, min(self.pad_s, first * self.frame_s - self.ended_s))
        elif self.quiet is not None and (first - self.quiet) * self.frame_s > PAUSE_S:
            self.pauses.append((self.quiet, first))
        self.quiet = None
        while self.start is not None and last - self.start > self.longest:
            yield from self._cut()

    def _silence(self, first: Frames, last: Frames, lows: npt.NDArray[np.int64]) -> Iterator[Span]:
        """Frames without speech, the quietest of them at `lows`: the end, if the gap or the segment is long by then."""
        assert self.start is not None
        self.quiet = first if self.quiet is None else self.quiet
        latest = self.start + self.longest
        told = lows[lows >= self.quiet + self.gap]
        if len(told) and told[0] <= latest:
            yield from self._close(self.quiet, self.pad_s)
        elif last > latest:
            yield from self._close(self.quiet, min(self.pad_s, (latest - self.quiet) * self.frame_s))
        else:
            return
        self.start = self.quiet = None

    def _open(self, start: Frames, lead_s: Seconds) -> None:
        self.start, self.lead_s = start, lead_s
        self.pauses = [pause for pause in self.pauses if pause[0] > start]

    def _close(self, end: Frames, trail_s: Seconds) -> Iterator[Span]:
        assert self.start is not None
        if end - self.start > self.shortest:
            self.ended_s = end * self.frame_s + trail_s
            yield self._span(self.ended_s)

    def _span(self, end_s: Seconds) -> Span:
        assert self.start is not None
        return Span(round(self.start * self.frame_s - self.lead_s, 6), round(end_s, 6))

    def _cut(self) -> Iterator[Span]:
        """End the segment at its longest pause and begin the next after it."""
        assert self.start is not None
        latest = self.start + self.longest
        pauses = [pause for pause in self.pauses if pause[0] <= latest]
        end, start = max(pauses, key=lambda pause: pause[1] - pause[0], default=(latest, latest))
        pad_s = min(self.pad_s, (start - end) * self.frame_s / 2)
        yield from self._close(end, pad_s)
        self._open(start, pad_s)
