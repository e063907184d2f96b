"""Audio in stretches of whole blocks of 32 samples, with their peaks: what peaks and levels both begin with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from audiopipe.kernels.audio import Audio

BLOCK = 32
MARGIN = 256  # samples of what is around a stretch: what the finest interpolation of the true peak looks at


@dataclass(frozen=True)
class Stretch:
    """Samples `start` to `start + 32 K` of all items, zero where an item has ended.

    `around` [b, C, 256 + 32 K + 256] holds what lies on both sides too, `peaks` [b, C, K] each block's highest value.
    """

    start: int
    around: Tensor
    peaks: Tensor

    @property
    def samples(self) -> Tensor:
        """[b, C, 32 K]; do not write."""
        return self.around[..., MARGIN:-MARGIN]

    @property
    def stop(self) -> int:
        return self.start + BLOCK * self.peaks.shape[-1]


def stretches(audio: Audio) -> Iterator[Stretch]:
    """The audio in order, one tile a stretch; the last one ends at or less than 32 samples after the audio's end."""
    for start, stop in audio.spans(BLOCK):
        end = start + -(-(stop - start) // BLOCK) * BLOCK
        around = audio.read(start - MARGIN, end + MARGIN).contiguous()
        magnitude = around[..., MARGIN:-MARGIN].abs()
        yield Stretch(start, around, magnitude.unflatten(-1, (-1, BLOCK)).amax(-1))
