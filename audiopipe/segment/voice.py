"""Voice activity as a stage: decoded blocks of several videos in, clips of speech out.

The videos that take turns in the pipeline are heard together: a round is up to `ROUND_BLOCKS` blocks of each, and one
pass of the network over all of them. Which blocks make a round depends on the order of the events alone, so the
probabilities, and with them the times, are the same in every run on the same kind of device.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from audiopipe import kernels
from audiopipe.config import RunConfig
from audiopipe.models.silero_vad import FRAME, RATE_HZ, State, voice_model
from audiopipe.segment.cut import Cutter
from audiopipe.segment.voice_spans import VoiceTimes
from audiopipe.types import Clip, Pcm

__all__ = ["AudioBlock", "EndOfStream", "clips", "listen"]

Other = TypeVar("Other")
Timed = Callable[[], AbstractContextManager[None]]

ROUND_BLOCKS = 16  # the decoder's, of three seconds each
ROUND_BYTES = 64 << 20  # of all videos of a round, at most: with many channels and high rates it is shorter
MARGIN_S = 0.02  # more than the resampler's filter reaches, at any rate
INT16_SCALE = 32768.0


@dataclass(frozen=True, slots=True)
class AudioBlock:
    """The next samples [C, T] of a video whose times are to be found in its audio."""

    video_id: str
    sample_rate_hz: int
    pcm: Pcm = field(repr=False)


@dataclass(frozen=True, slots=True)
class EndOfStream(Generic[Other]):
    """The end of such a video. `settle` is told how many clips it gave, and its own events take this one's place."""

    video_id: str
    settle: Callable[[int], Iterator[Other]] = field(repr=False)


def listen(
    events: Iterable[AudioBlock | EndOfStream[Other] | Other],
    config: RunConfig,
    device: torch.device,
    measure: Timed = nullcontext,
) -> Iterator[Clip | Other]:
    """Replace the blocks of videos by clips of the speech in them; other events pass through at once.

    Args:
        timed: entered around the work itself.
    """
    streams: dict[str, _Stream] = {}
    for event in events:
        if isinstance(event, AudioBlock):
            stream = streams.get(event.video_id)
            full = sum(one.waiting_bytes for one in streams.values()) + event.pcm.nbytes > ROUND_BYTES
            if full or (stream and len(stream.waiting) >= ROUND_BLOCKS):
                yield from _round(streams, measure)
            if stream is None:
                stream = streams[event.video_id] = _Stream(event, config, device)
            stream.append(event.pcm)
        elif isinstance(event, EndOfStream):
            if ended := streams.get(event.video_id):
                ended.over = True
                yield from _round(streams, measure)
                del streams[event.video_id]
            yield from event.settle(ended.cutter.clips if ended else 0)
        else:
            yield event


def clips(
    video_id: str, blocks: Iterable[Pcm], sample_rate_hz: int, config: RunConfig, device: torch.device
) -> Iterator[Clip]:
    """Clips of the speech in one video alone."""
    heard = (AudioBlock(video_id, sample_rate_hz, block) for block in blocks)
    over: EndOfStream[Clip] = EndOfStream(video_id, lambda count: iter(()))
    return listen(itertools.chain(heard, [over]), config, device)


def _round(streams: dict[str, _Stream], measure: Timed) -> list[Clip]:
    """Hear what waits of all streams, and cut what has become known by it."""
    with measure():
        heard = [(stream, wave) for stream in streams.values() if len(wave := stream.frames())]
        if heard:
            model = voice_model(heard[0][0].device)
            found, states = model([wave for _, wave in heard], [stream.state for stream, _ in heard])
            parts = np.split(torch.cat(found).cpu().numpy(), np.cumsum([len(part) for part in found])[:-1])
            for (stream, _), state, part in zip(heard, states, parts, strict=True):
                stream.state, stream.probabilities = state, part
        return [clip for stream in streams.values() for clip in stream.cut()]


class _Stream:
    """One video under way."""

    def __init__(self, first: AudioBlock, config: RunConfig, device: torch.device) -> None:
        self.device = device
        self.cutter = Cutter(first.video_id, first.sample_rate_hz, config)
        self.times = VoiceTimes(config, FRAME / RATE_HZ)
        self.state: State = voice_model(device).start()
        self.waiting: list[Pcm] = []
        self.over = False
        self.probabilities = np.empty(0, np.float32)
        self._rate = _Rate(first.sample_rate_hz)
        self._rest = torch.empty(0, device=device)  # less than a frame

    @property
    def waiting_bytes(self) -> int:
        return sum(block.nbytes for block in self.waiting)

    def append(self, block: Pcm) -> None:
        self.waiting.append(block)
        self.cutter.append(block)

    def frames(self) -> Tensor:
        """What waits as whole frames at 16 kHz; at the end of the audio zeros fill the last one, as Silero has it."""
        blocks, self.waiting = self.waiting, []
        samples = np.concatenate(blocks, axis=-1) if blocks else np.empty((1, 0), np.float32)
        x = torch.from_numpy(samples).to(self.device)
        x = x / INT16_SCALE if x.dtype == torch.int16 else x.nan_to_num(0.0, 0.0, 0.0)
        wave = torch.cat([self._rest, self._rate.convert(x.mean(0), self.over)])
        if self.over:
            wave = torch.nn.functional.pad(wave, (0, -len(wave) % FRAME))
        whole = len(wave) // FRAME * FRAME
        self._rest = wave[whole:].clone()
        return wave[:whole]

    def cut(self) -> list[Clip]:
        spans = list(self.times.push(self.probabilities)) if len(self.probabilities) else []
        self.probabilities = self.probabilities[:0]
        if self.over:
            spans += self.times.finish(self.cutter.end_s)
        return list(self.cutter.cut(spans, self.times.horizon_s))


class _Rate:
    """A stream's blocks at 16 kHz, without seams: what lies within the filter's reach of a block's end comes later."""

    def __init__(self, from_rate: int) -> None:
        self.from_rate = from_rate
        common = math.gcd(from_rate, RATE_HZ)
        self.up, self.down = RATE_HZ // common, from_rate // common  # a period of both: their samples coincide there
        self.margin = math.ceil(MARGIN_S * from_rate / self.down)  # in periods
        self._tail = torch.empty(0)
        self._told = 0  # periods of the tail that have been given out already

    def convert(self, block: Tensor, last: bool) -> Tensor:
        """The next samples [T] in, those [T'] that they settle out; at the `last` block all that there is."""
        x = torch.cat([self._tail.to(block.device), block])
        first = self._told * self.up
        if last:
            return kernels.resample(x, self.from_rate, RATE_HZ)[first:] if len(x) else x
        kept = len(x) // self.down - 2 * self.margin  # where the next tail begins
        if kept < 0:
            self._tail = x
            return x[:0]
        self._tail, self._told = x[kept * self.down :].clone(), self.margin
        return kernels.resample(x, self.from_rate, RATE_HZ)[first : (kept + self.margin) * self.up]
