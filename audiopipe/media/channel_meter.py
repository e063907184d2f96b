"""Count the parts of a file in which the channels cancel in their mean, while it is decoded.

A decoder process has no numpy, whose threads its forks would inherit. Sums of squares of a few samples by `math.dist`
cost 3 % of the decoding of AAC, and less of other codecs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

import av

from audiopipe.media.messages import ChannelCounts

__all__ = ["ChannelMeter"]

BLOCK_SAMPLES = 32768
RUN, PERIOD = 16, 2048  # 16 samples of each 2048 are measured
# A channel, or the mean, is quiet where it is 10 dB below the mean of independent channels of the same power.
QUIET = 10 ** (-10 / 10)
SOUND = 10 ** (-60 / 10)  # blocks below do not count
MAX_SAMPLE = 1000.0  # louder samples are damaged
CODES: Mapping[str, Literal["B", "h", "i", "f", "d"]] = {"u8": "B", "s16": "h", "s32": "i", "flt": "f", "dbl": "d"}
SCALES = {"u8": 128.0, "s16": 32768.0, "s32": 2.0**31, "flt": 1.0, "dbl": 1.0}


@dataclass
class ChannelMeter:
    """Measures frames block by block.

    Args:
        channels: of the file; frames with another number are ignored.
    """

    channels: int
    counts: ChannelCounts = field(init=False)
    _runs: list[list[float]] = field(init=False)
    _samples: int = 0
    _scale: float = 1.0

    def __post_init__(self) -> None:
        self.counts = ChannelCounts(0, 0, [0] * self.channels, [0.0] * self.channels)
        self._runs = [[] for _ in range(self.channels)]

    def add(self, frame: av.AudioFrame) -> None:
        """Measure a frame; a block ends with the frame that completes it."""
        name = frame.format.name.removesuffix("p")
        if frame.layout.nb_channels != self.channels or name not in CODES:
            return
        self._scale = SCALES[name]
        is_planar, samples, planes = frame.format.is_planar, frame.samples, frame.planes
        step = 1 if is_planar else self.channels
        for channel, runs in enumerate(self._runs):
            plane = memoryview(planes[channel if is_planar else 0]).cast("B").cast(CODES[name])
            first = 0 if is_planar else channel
            for start in range(0, samples, PERIOD):
                runs.extend(plane[first + start * step : min(start + RUN, samples) * step : step].tolist())
        self._samples += samples
        if self._samples >= BLOCK_SAMPLES:
            self._end_block()

    def add_chunk(self, frame: object) -> None:
        """Measure a frame as a block."""
        assert isinstance(frame, av.AudioFrame)
        self.add(frame)
        self._end_block()

    def finish(self) -> ChannelCounts:
        """End the last block, and return the counts."""
        self._end_block()
        return self.counts

    def _end_block(self) -> None:
        if self._samples:
            self._count()
        self._runs = [[] for _ in range(self.channels)]
        self._samples = 0

    def _energy(self, channel: int, zeros: list[float]) -> float:
        """Return the sum of the squares of a channel, without damaged samples."""
        limit = MAX_SAMPLE * self._scale
        energy = math.dist(self._runs[channel], zeros) ** 2
        if energy < limit**2:  # false for NaN
            return energy
        self._runs[channel] = [value if abs(value) < limit else 0.0 for value in self._runs[channel]]
        return math.dist(self._runs[channel], zeros) ** 2

    def _count(self) -> None:
        length = len(self._runs[0])
        zeros = [0.0] * length
        squares = [self._energy(channel, zeros) for channel in range(self.channels)]
        sums = [sum(run) for run in self._runs]
        # The square of a sum is the number of its terms times their squares, less the squares of all differences.
        differences = sum(math.dist(first, second) ** 2 for first, second in combinations(self._runs, 2))
        unit = length * self._scale**2
        powers = [
            max(0.0, square / unit - (total / length / self._scale) ** 2)
            for square, total in zip(squares, sums, strict=True)
        ]
        offset = sum(sums) / length / self._scale / self.channels
        mean = (self.channels * sum(squares) - differences) / unit / self.channels**2 - offset**2
        level = sum(powers) / self.channels
        if level < SOUND:
            return
        limit = QUIET * level / self.channels
        self.counts.sounding += 1
        self.counts.canceling += mean < limit
        for channel, power in enumerate(powers):
            self.counts.quiet[channel] += power < limit
            self.counts.energies[channel] += power
