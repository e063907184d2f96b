"""Find files whose channels cancel in their mean.

If one channel is the other inverted (a cable with crossed wires), the mean is silence. The mean of such a file is
quiet, so only files with a quiet mean are decoded a second time to compare it with the channels.
"""

from __future__ import annotations

import numpy as np

from audiopipe.config import RunConfig
from audiopipe.media.decode import RecordCpu, decode
from audiopipe.media.fetch import Source
from audiopipe.types import Media, Pcm

__all__ = ["ChannelLevels", "find_substitute"]

CANCELLATION = 10 ** (-20 / 10)  # power of the mean relative to the channels; 1/2 for stereo without correlation
# -28 dBFS. Channels whose RMS over a whole file is above -8 dBFS do not occur in speech.
QUIET_POWER = 10 ** (-28 / 10)
RUN, PERIOD = 64, 2048  # powers are those of 64 samples in 2048, as all would cost a tenth of the decoding of AAC
FULL_SCALE = {np.dtype(np.int16): 32768.0, np.dtype(np.float32): 1.0}
MAX_SAMPLE = 1000.0  # samples above are damaged, and do not count


class ChannelLevels:
    """The powers of the channels of consecutive blocks, and of their mean. A constant offset does not count."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        # Of each channel, and of the mean as the last.
        self._sums, self._energies = np.zeros(channels + 1), np.zeros(channels + 1)

    def add(self, block: Pcm) -> None:
        """Add the next samples, [C, T]."""
        whole = block.shape[1] // PERIOD * PERIOD
        runs = block[:, :whole].reshape(len(block), -1, PERIOD)[:, :, :RUN].reshape(len(block), -1)
        part = np.concatenate([runs, block[:, whole:][:, :RUN]], 1, dtype=np.float64)
        part /= FULL_SCALE[block.dtype]
        part[~(np.abs(part) <= MAX_SAMPLE)] = 0  # NaN as well
        values = np.concatenate([part, part.mean(0, keepdims=True)])
        self._count += values.shape[1]
        self._sums += values.sum(1)
        self._energies += np.einsum("ct,ct->c", values, values)

    def is_quiet(self) -> bool:
        """Check whether the mean is so quiet that the channels may cancel in it."""
        return bool(self._powers()[-1] < QUIET_POWER)

    def find_substitute(self) -> int | None:
        """Return the loudest channel if the mean is 20 dB below the channels, else None."""
        powers = self._powers()
        if powers[-1] > CANCELLATION * powers[:-1].mean() or not powers.max() > 0:
            return None
        return int(powers[:-1].argmax())

    def _powers(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        count = max(1, self._count)
        return self._energies / count - (self._sums / count) ** 2


def find_substitute(
    source: Source, media: Media, config: RunConfig, record_cpu_s: RecordCpu | None = None
) -> int | None:
    """Decode the whole file, and return its loudest channel if the channels cancel in their mean, else None.

    Raises:
        VideoError: as `decode`.
    """
    levels = ChannelLevels(media.channels)
    for block in decode(source, media, config, record_cpu_s=record_cpu_s, channels=media.channels):
        levels.add(block)
    return levels.find_substitute()
