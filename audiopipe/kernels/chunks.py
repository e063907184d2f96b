"""Audio in stretches of whole pieces, and the peaks of blocks of 32 samples: what peaks and levels both begin with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from audiopipe.kernels.audio import MARGIN, Audio

BLOCK = 32
PIECE = 1024  # samples, so few that float32 adds whole numbers up exactly
REACH = 256  # samples of what is around a stretch: what the finest interpolation of the true peak looks at


@dataclass(frozen=True)
class Chunk:
    """Samples `start` to `start + 32 K` of all items, zero where an item has ended; K is a multiple of 32.

    `around` [b, C, W] holds what lies on both sides too: `before` samples, and at least 256 after it; W is a multiple
    of 32. `peaks` [b, C, K] is each block's highest value.
    """

    start: int
    around: Tensor
    before: int
    peaks: Tensor

    @classmethod
    def of(cls, start: int, around: Tensor, before: int, length: int) -> Chunk:
        magnitude = around[..., before : before + length].abs()
        return cls(start, around, before, magnitude.unflatten(-1, (-1, BLOCK)).amax(-1))

    @property
    def samples(self) -> Tensor:
        """[b, C, 32 K]; do not write."""
        return self.around[..., self.before : self.before + self.stop - self.start]

    @property
    def stop(self) -> int:
        return self.start + BLOCK * self.peaks.shape[-1]


def chunks(audio: Audio) -> Iterator[Chunk]:
    """The audio in order, one tile a stretch; the last one ends within a piece after the audio's end."""
    if audio.padded is not None:
        yield Chunk.of(0, audio.padded, MARGIN, max(_in_pieces(audio.n_samples), PIECE))
        return
    for start, stop in audio.spans(PIECE):
        length = _in_pieces(stop - start)
        yield Chunk.of(start, audio.read(start - REACH, start + length + REACH).contiguous(), REACH, length)


def _in_pieces(samples: int) -> int:
    return -(-samples // PIECE) * PIECE
