"""Choose a channel where the channels of a file cancel in their mean.

If one channel is the other inverted (a cable with crossed wires), the mean is silence. The decoder counts the blocks in
which that is so (`channel_meter.py`); a file is decoded a second time only if there are enough of them.
"""

from __future__ import annotations

import math

from audiopipe.media.messages import ChannelCounts

__all__ = ["choose_channel", "is_canceling"]

MIN_SHARE = 0.1  # of the blocks with sound


def is_canceling(counts: ChannelCounts) -> bool:
    """Check whether the mean cancels in a tenth of the blocks with sound, or in more."""
    return counts.canceling > 0 and counts.canceling >= MIN_SHARE * counts.sounding


def choose_channel(counts: ChannelCounts) -> int | None:
    """Return the channel that replaces a mean that cancels, in the whole file; None if the mean is to stay.

    It is the channel that is quiet in the fewest blocks, the louder one of two. It must be quiet in less than half as
    many blocks as the mean: a dialog with one speaker on each channel would lose one of them.
    """
    channels = range(len(counts.quiet))
    best = min(channels, key=lambda channel: (counts.quiet[channel], -_level(counts.energies[channel]), channel))
    return best if 2 * counts.quiet[best] < counts.canceling else None


def _level(energy: float) -> float:
    """Return decibels in steps of 0.1, so that channels of the same level are equal."""
    return round(10 * math.log10(max(energy, 1e-12)), 1)
