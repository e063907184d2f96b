"""Split audio into chunks, each with the peaks of its blocks of 32 samples; true peak and levels share them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from audiopipe.kernels.audio import MARGIN, Audio

BLOCK = 32
SUM_BLOCK = 1024  # samples; float32 sums of so few whole numbers are exact
REACH = 256  # samples around a chunk that the finest interpolation of the true peak reads


@dataclass(frozen=True)
class Chunk:
    """The samples from `start` to `start + 32 K` of all items, zero after the end of an item; K is a multiple of 32.

    Args:
        start: first sample of the chunk.
        context: the chunk with the samples around it.
        offset: samples of `context` before the chunk; at least `REACH` follow it.
        peaks: highest magnitude of each block of 32 samples.
    Shape:
        - context: [b, C, W], W a multiple of 32
        - peaks: [b, C, K]
    """

    start: int
    context: Tensor
    offset: int
    peaks: Tensor

    @classmethod
    def of(cls, start: int, context: Tensor, offset: int, length: int) -> Chunk:
        magnitude = context[..., offset : offset + length].abs()
        return cls(start, context, offset, magnitude.unflatten(-1, (-1, BLOCK)).amax(-1))

    @property
    def samples(self) -> Tensor:
        """Return the samples [b, C, 32 K]; do not write to them."""
        return self.context[..., self.offset : self.offset + self.stop - self.start]

    @property
    def stop(self) -> int:
        return self.start + BLOCK * self.peaks.shape[-1]


def chunks(audio: Audio) -> Iterator[Chunk]:
    """Yield the audio in order as chunks of at most one tile; the last ends less than `SUM_BLOCK` after the audio."""
    if audio.padded is not None:
        yield Chunk.of(0, audio.padded, MARGIN, max(_round_up(audio.n_samples), SUM_BLOCK))
        return
    for start, stop in audio.spans(SUM_BLOCK):
        length = _round_up(stop - start)
        yield Chunk.of(start, audio.read(start - REACH, start + length + REACH).contiguous(), REACH, length)


def _round_up(samples: int) -> int:
    return -(-samples // SUM_BLOCK) * SUM_BLOCK
