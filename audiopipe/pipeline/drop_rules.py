"""The rules by which a segment is dropped for a metric of its signal."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["MAX_PEAK_DBFS", "NOT_FINITE", "RULES", "DropRule"]

NOT_FINITE = "not_finite"  # has samples that are NaN, infinite or above `MAX_PEAK_DBFS`
# 1,000 times full scale. No codec overshoots that far: such samples are damage, and audio of integers in a float file.
MAX_PEAK_DBFS = 60.0


class DropRule(NamedTuple):
    """Drops a segment for `reason` if `breaks(metric, limit)`; the limit is the config's `field`, None for no limit."""

    reason: str
    metric: str
    field: str
    breaks: Callable[[float, float], bool]


# The first rule that applies gives the reason, so the plainest come first. A comparison with NaN is False, so that no
# segment is dropped for a metric that does not exist.
RULES: tuple[DropRule, ...] = (
    DropRule("too_quiet", "loudness_lufs", "min_loudness_lufs", operator.lt),
    DropRule("too_loud", "loudness_lufs", "max_loudness_lufs", operator.gt),
    DropRule("clipped", "clipping_ratio", "max_clipping_ratio", operator.gt),
    DropRule("mostly_silence", "silence_ratio", "max_silence_ratio", operator.gt),
    DropRule("noisy", "snr_db", "min_snr_db", operator.lt),
    DropRule("narrow_band", "bandwidth_hz", "min_bandwidth_hz", operator.lt),
)
