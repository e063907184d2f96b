"""Detect voice activity in decoded blocks of several videos and cut clips of speech.

The videos that take turns in the pipeline are processed together: a round is up to `ROUND_BLOCKS` blocks of each video,
and one pass of the network over all of them. The blocks of a round depend only on the order of the events, so the
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
from audiopipe.models.silero_vad import FRAME, RATE_HZ, State, load_voice_model
from audiopipe.segment.cut import Cutter
from audiopipe.segment.voice_spans import SpeechSegmenter
from audiopipe.types import Clip, Pcm

__all__ = ["AudioBlock", "EndOfStream", "cut_speech", "speech_clips"]

OtherEvent = TypeVar("OtherEvent")
Measure = Callable[[], AbstractContextManager[None]]

ROUND_BLOCKS = 16  # blocks of the decoder, three seconds each
ROUND_BYTES = 64 << 20  # for all videos of a round: many channels and high rates make it shorter
MAX_LEVEL = 8.0  # a damaged sample of 1e30 must not change what the network finds after it
MARGIN_S = 0.02  # more than the filter of the resampler reaches at any rate


@dataclass(frozen=True, slots=True)
class AudioBlock:
    """The next samples [C, T] of a video in which speech is to be detected; its clips count from `first_index`."""

    video_id: str
    sample_rate_hz: int
    pcm: Pcm = field(repr=False)
    first_index: int = 0


@dataclass(frozen=True, slots=True)
class EndOfStream(Generic[OtherEvent]):
    """The end of such a video. `finish` is called with the number of clips, and returns events that replace this."""

    video_id: str
    finish: Callable[[int], Iterator[OtherEvent]] = field(repr=False)


def cut_speech(
    events: Iterable[AudioBlock | EndOfStream[OtherEvent] | OtherEvent],
    config: RunConfig,
    device: torch.device,
    measure: Measure = nullcontext,
) -> Iterator[Clip | OtherEvent]:
    """Replace the blocks of videos by clips of the speech in them; pass other events through at once.

    Args:
        measure: returns a context that is entered for the work itself.
    """
    streams: dict[str, _Stream] = {}
    for event in events:
        if isinstance(event, AudioBlock):
            stream = streams.get(event.video_id)
            waiting_bytes = sum(other.waiting_bytes for other in streams.values())
            if waiting_bytes + event.pcm.nbytes > ROUND_BYTES or (stream and len(stream.waiting) >= ROUND_BLOCKS):
                yield from _run_round(streams, measure)
            if stream is None:
                stream = streams[event.video_id] = _Stream(event, config, device)
            stream.append(event.pcm)
        elif isinstance(event, EndOfStream):
            if ended := streams.get(event.video_id):
                ended.has_ended = True
                yield from _run_round(streams, measure)
                del streams[event.video_id]
            yield from event.finish(ended.cutter.clips if ended else 0)
        else:
            yield event


def speech_clips(
    video_id: str, blocks: Iterable[Pcm], sample_rate_hz: int, config: RunConfig, device: torch.device
) -> Iterator[Clip]:
    """Cut clips of the speech in a single video."""
    audio = (AudioBlock(video_id, sample_rate_hz, block) for block in blocks)
    end: EndOfStream[Clip] = EndOfStream(video_id, lambda count: iter(()))
    return cut_speech(itertools.chain(audio, [end]), config, device)


def _run_round(streams: dict[str, _Stream], measure: Measure) -> list[Clip]:
    """Run the network over the waiting blocks of all streams, and cut the speech that it finds."""
    with measure():
        waves = [(stream, wave) for stream in streams.values() if len(wave := stream.take_wave())]
        if waves:
            model = load_voice_model(waves[0][0].device)
            outputs, states = model([wave for _, wave in waves], [stream.state for stream, _ in waves])
            sizes = [len(output) for output in outputs]
            parts = np.split(torch.cat(outputs).cpu().numpy(), np.cumsum(sizes)[:-1])
            for (stream, _), state, part in zip(waves, states, parts, strict=True):
                stream.state, stream.probabilities = state, part
        return [clip for stream in streams.values() for clip in stream.cut()]


class _Stream:
    """A video in progress."""

    def __init__(self, first: AudioBlock, config: RunConfig, device: torch.device) -> None:
        self.device = device
        self.cutter = Cutter(first.video_id, first.sample_rate_hz, config, first.first_index)
        self.segmenter = SpeechSegmenter(config, FRAME / RATE_HZ)
        self.state: State = load_voice_model(device).start()
        self.waiting: list[Pcm] = []
        self.has_ended = False
        self.probabilities = np.empty(0, np.float32)
        self._resampler = _StreamResampler(first.sample_rate_hz)
        self._remainder = torch.empty(0, device=device)  # less than a frame

    @property
    def waiting_bytes(self) -> int:
        return sum(block.nbytes for block in self.waiting)

    def append(self, block: Pcm) -> None:
        self.waiting.append(block)
        self.cutter.append(block)

    def take_wave(self) -> Tensor:
        """Return the waiting blocks as whole frames at 16 kHz; the last frame of the audio is zero-padded, as Silero
        does."""
        blocks, self.waiting = self.waiting, []
        samples = np.concatenate(blocks, axis=-1) if blocks else np.empty((1, 0), np.float32)
        x = torch.from_numpy(samples).to(self.device)
        x = x / kernels.INT16_FULL_SCALE if x.dtype == torch.int16 else x.nan_to_num(0.0).clamp(-MAX_LEVEL, MAX_LEVEL)
        wave = torch.cat([self._remainder, self._resampler.convert(x.mean(0), self.has_ended)])
        if self.has_ended:
            wave = torch.nn.functional.pad(wave, (0, -len(wave) % FRAME))
        whole = len(wave) // FRAME * FRAME
        self._remainder = wave[whole:].clone()
        return wave[:whole]

    def cut(self) -> list[Clip]:
        """Cut the segments that the latest probabilities end."""
        spans = list(self.segmenter.push(self.probabilities)) if len(self.probabilities) else []
        self.probabilities = self.probabilities[:0]
        if self.has_ended:
            spans += self.segmenter.finish(self.cutter.end_s)
        return list(self.cutter.cut(spans, self.segmenter.horizon_s))


class _StreamResampler:
    """Resamples consecutive blocks to 16 kHz without seams.

    Samples within the filter's reach of the end of a block are returned with the next block.
    """

    def __init__(self, from_rate: int) -> None:
        self.from_rate = from_rate
        common = math.gcd(from_rate, RATE_HZ)
        self.up, self.down = RATE_HZ // common, from_rate // common  # a period at both rates: there samples coincide
        self.margin = math.ceil(MARGIN_S * from_rate / self.down)  # in periods
        self._tail = torch.empty(0)
        self._returned = 0  # periods of the tail that have been returned already

    def convert(self, block: Tensor, is_last: bool) -> Tensor:
        """Take the next samples [T]; return the samples [T'] that they complete, or all that are left at the end."""
        x = torch.cat([self._tail.to(block.device), block])
        first = self._returned * self.up
        if is_last:
            return kernels.resample(x, self.from_rate, RATE_HZ)[first:] if len(x) else x
        tail_start = len(x) // self.down - 2 * self.margin
        if tail_start < 0:
            self._tail = x
            return x[:0]
        self._tail, self._returned = x[tail_start * self.down :].clone(), self.margin
        return kernels.resample(x, self.from_rate, RATE_HZ)[first : (tail_start + self.margin) * self.up]
