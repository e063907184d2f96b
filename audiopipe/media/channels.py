"""Mix the channels of decoded blocks, and find files whose channels cancel in the mean.

If one channel is the other inverted (a cable with crossed wires), their mean is silence. Whether that is so is known at
the end of the file: the energies of the channels and of their mean are summed up on the way.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiopipe.types import Pcm

__all__ = ["ChannelMixer"]

CANCELLATION_DB = -20.0  # level of the mean below the channels; channels without correlation are 3 dB apart for stereo
SAMPLED = 7  # energies are those of each seventh sample: a hundredth of a decibel is not needed
FULL_SCALE = {np.dtype(np.int16): 32768.0, np.dtype(np.float32): 1.0}
MAX_SAMPLE = 1000.0  # samples above are damaged, and do not count


class ChannelMixer:
    """Mixes consecutive blocks of a file to the mean of its channels.

    Args:
        keeps_layout: blocks keep their channels.
        channel: the channel to take in place of the mean.
    """

    def __init__(self, channels: int, keeps_layout: bool, channel: int | None) -> None:
        self._keeps_layout, self._channel = keeps_layout, channel
        self._frames = 0
        # Of each channel, and of the mean as the last.
        self._sums = np.zeros(channels + 1)
        self._energies = np.zeros(channels + 1)

    def mix(self, block: Pcm) -> Pcm:
        """Mix [C, T] to [1, T], or to [C, T] if the layout is kept.

        The mean is float32 with full scale 1.0, and so is that of int16; a single channel keeps its type.
        """
        if self._channel is not None:
            return np.ascontiguousarray(block[self._channel : self._channel + 1])
        if len(block) == 1:
            return block
        self._add(block)
        if self._keeps_layout:
            return block
        mean = block[:1].astype(np.float32)
        for row in block[1:]:
            mean += row
        mean *= np.float32(1 / (len(block) * FULL_SCALE[block.dtype]))
        return mean

    def _add(self, block: Pcm) -> None:
        """Add a block to the energies."""
        part = block[:, ::SAMPLED].astype(np.float64) / FULL_SCALE[block.dtype]
        if block.dtype != np.int16:
            part[~(np.abs(part) <= MAX_SAMPLE)] = 0  # NaN as well
        values = np.concatenate([part, part.mean(0, keepdims=True)])
        self._frames += values.shape[1]
        self._sums += values.sum(1)
        self._energies += np.einsum("ct,ct->c", values, values)

    def find_substitute(self) -> int | None:
        """Return the loudest channel if the mean of all blocks so far is 20 dB below the channels, else None.

        A constant offset does not count.
        """
        if not self._frames:
            return None
        powers: npt.NDArray[np.float64] = self._energies / self._frames - (self._sums / self._frames) ** 2
        of_channels, of_mean = powers[:-1], powers[-1]
        cancels = of_mean <= 10 ** (CANCELLATION_DB / 10) * of_channels.mean() and of_channels.max() > 0
        return int(of_channels.argmax()) if cancels else None
