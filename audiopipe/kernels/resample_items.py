"""Resample with compiled functions, item by item."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from audiopipe.kernels.audio import Audio
from audiopipe.kernels.compiled_resample import resample_blocks
from audiopipe.kernels.fft_plan import FftPlan, plan_fft
from audiopipe.kernels.low_pass import filter_reach, frequency_response

__all__ = ["resample_items"]

_REACHES = 12  # a block is at least this many times as long as the reach of the filter


class _Plan(NamedTuple):
    """The transforms of blocks of input and output, and the gains of the bins.

    A block gives the outputs from `offset` on, `output_step` in number; the first block starts `lead` outputs before
    the signal, which are a whole number of input samples.
    """

    forward: FftPlan
    backward: FftPlan
    gains: npt.NDArray[np.float32]
    input_step: int
    output_step: int
    offset: int
    lead: int


@lru_cache(maxsize=32)
def _plan(up: int, down: int) -> _Plan | None:
    """Plan the conversion by up / down; return None if the transforms have no passes for it."""
    reach = filter_reach(up, down)
    offset = math.ceil(reach * up / down)
    overlap = -(-2 * offset // up)
    overlap += -overlap % (8 // math.gcd(8, up))  # a block gives a multiple of 8 outputs
    k = 1 << math.ceil(math.log2(max(8, 4 * overlap, _REACHES * reach / down)))
    forward, backward = plan_fft(k * down), plan_fft(k * up)
    if forward is None or backward is None:
        return None
    gains = (frequency_response(k, up, down) / backward.size).float().numpy()
    steps = (k - overlap) * down, (k - overlap) * up
    return _Plan(forward, backward, gains, *steps, offset, -(-offset // up) * up)


def resample_items(tile: Audio, from_rate: int, to_rate: int, y: Tensor) -> bool:
    """Compute `resample_into` with compiled functions; return whether they can."""
    common = math.gcd(from_rate, to_rate)
    up, down = to_rate // common, from_rate // common
    plan = None if up == down else _plan(up, down)
    if plan is None and up != down:
        return False
    # An empty batch has a tile of one empty item and no output.
    for target, x in zip(y, tile.items(), strict=False):
        end = -(-x.shape[1] * to_rate // from_rate)
        target[:, end:] = 0
        rows = [x] if len(target) == 1 else list(x[:, None])
        for output, row in zip(target[:, :end], rows, strict=True):
            if plan is None:
                torch.mean(torch.from_numpy(row), 0, out=output)
                continue
            resample_blocks(
                row, plan.forward.size, plan.forward.radices, plan.forward.factors, plan.forward.order, plan.gains,
                plan.backward.size, plan.backward.radices, plan.backward.factors, plan.backward.order, plan.input_step,
                plan.output_step, plan.offset, plan.lead * down // up, output.numpy(),
            )  # fmt: skip
    return True
