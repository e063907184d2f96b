"""Compiled K-weighting: hop energies in one pass over the samples.

The recursion of a filter cannot be vectorized along time. Therefore an item is divided into 16 parts, which are
filtered side by side, one in each lane of a vector. Each part starts 0.2 s early, when the filter has no memory of what
was before. All arithmetic is in float64.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from audiopipe.kernels.compiler import CompiledFunction

LANES = 16
_BLOCK = 120


@CompiledFunction
def filter_hops(
    x: npt.NDArray[np.float32], filters: npt.NDArray[np.float64], edges: npt.NDArray[np.int64],
    warm_up: int, per_lane: int, energies: npt.NDArray[np.float64],
) -> None:  # fmt: skip
    """Add the energy of the K-weighted signal in each hop to `energies`.

    Args:
        x: samples of one channel.
        filters: b0, b1, b2, a1, a2 of the shelf and of the high-pass.
        edges: first sample of each hop, relative to the first hop of a lane; the same for all lanes.
        warm_up: hops before the first one of a lane that only settle the states.
        per_lane: hops of a lane.
        energies: of hop 0 to H - 1.

    Shape:
        - x: [T]
        - filters: [10]
        - edges: [warm_up + per_lane + 1]
        - energies: [H]
    """
    hops = len(energies)
    samples = len(x)
    b0, b1, b2, a1, a2 = filters[0], filters[1], filters[2], filters[3], filters[4]
    c0, c1, c2, d1, d2 = filters[5], filters[6], filters[7], filters[8], filters[9]
    state = np.zeros(5 * 16)
    lanes = np.zeros(120 * 16, np.float32)
    lane_edges = np.zeros(16, np.int64)
    for lane in range(16):
        lane_edges[lane] = lane * (edges[warm_up + per_lane] - edges[warm_up])
    for hop in range(warm_up + per_lane):
        for lane in range(64, 80):
            state[lane] = 0.0
        for start in range(edges[hop], edges[hop + 1], 120):
            size = min(120, edges[hop + 1] - start)
            for lane in range(16):
                first = lane_edges[lane] + start
                if first >= 0 and first + size <= samples:
                    for t in range(size):
                        lanes[16 * t + lane] = x[first + t]
                else:
                    for t in range(size):
                        inside = first + t >= 0 and first + t < samples
                        lanes[16 * t + lane] = x[first + t] if inside else np.float32(0)
            for t in range(size):
                for lane in range(16):
                    v = np.float64(lanes[16 * t + lane])
                    y = b0 * v + state[lane]
                    state[lane] = b1 * v - a1 * y + state[16 + lane]
                    state[16 + lane] = b2 * v - a2 * y
                    z = c0 * y + state[32 + lane]
                    state[32 + lane] = c1 * y - d1 * z + state[48 + lane]
                    state[48 + lane] = c2 * y - d2 * z
                    state[64 + lane] += z * z
        # Numbers below the normal range would slow down the filter in silence.
        for i in range(64):
            if abs(state[i]) < 1e-100:
                state[i] = 0.0
        if hop >= warm_up:
            for lane in range(16):
                index = lane * per_lane + hop - warm_up
                if index < hops:
                    energies[index] = state[64 + lane]
