"""Convolve images of 3 x 3 on a CPU with half the multiplications: Winograd's F(4, 3) along the first axis.

Four rows of the output need six convolutions of 1 x 3 instead of twelve, between two transforms of additions. The
points are 0, 1, -1, 2, -2 and infinity (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks").
The largest error is about three times that of a direct convolution in float32. oneDNN, which PyTorch calls, has only
direct convolutions.
"""

from __future__ import annotations

import torch
from torch import Tensor, add, nn

__all__ = ["TimeWinograd"]

ROWS, POINTS = 4, 6
# Rows: the points; columns: the three taps.
WEIGHT_TRANSFORM = (
    (1 / 4, 0.0, 0.0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0.0, 0.0, 1.0),
)


class TimeWinograd(nn.Module):
    """A 3 x 3 convolution of [rows, columns, channels], with zeros left and right of each row, none above and below.

    Args:
        weight: [C_out, C_in, 3, 3]
        bias: [C_out]
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        transform = torch.tensor(WEIGHT_TRANSFORM, dtype=torch.float64)
        weights = torch.einsum("pk,oikf->poif", transform, weight.double()).to(weight.dtype)
        for point in range(POINTS):
            part = weights[point][:, :, None].contiguous(memory_format=torch.channels_last)
            self.register_buffer(f"weight_{point}", part, persistent=False)
        self.register_buffer("bias", bias.clone(), persistent=False)

    def forward(self, x: Tensor, out: Tensor) -> Tensor:
        """Convolve into `out` and return it.

        Shape:
            - x: [4 * n + 2, F, C_in], contiguous
            - out: [4 * n, F, C_out], contiguous
        """
        tiles = len(out) // ROWS
        d = [x[first : first + ROWS * (tiles - 1) + 1 : ROWS] for first in range(POINTS)]
        rows = out.view(tiles, ROWS, *out.shape[1:])
        # A transformed input is convolved at once, while it is in the cache; three buffers serve all of them.
        buffers = x.new_empty(3, tiles, *x.shape[1:])
        even, odd = add(d[4], d[2], alpha=-4, out=buffers[0]), add(d[3], d[1], alpha=-4, out=buffers[1])
        m1 = self._convolve(add(even, odd, out=buffers[2]), 1)
        m2 = self._convolve(even.sub_(odd), 2)
        even, odd = add(d[4], d[2], alpha=-1, out=buffers[0]), add(d[3], d[1], alpha=-1, out=buffers[1])
        m3 = self._convolve(add(even, odd, alpha=2, out=buffers[2]), 3)
        m4 = self._convolve(even.sub_(odd, alpha=2), 4)
        # The bias is in m1, which each row of the output has once.
        sum_1, difference_1 = m1 + m2, m1.sub_(m2)
        sum_2, difference_2 = add(m3, m4, out=m2), m3.sub_(m4)
        add(difference_1, difference_2, alpha=2, out=rows[:, 1])
        add(sum_1, sum_2, alpha=4, out=rows[:, 2])
        m0 = self._convolve(add(d[4], d[2], alpha=-5, out=buffers[0]).add_(d[0], alpha=4), 0)
        add(m0.add_(sum_1), sum_2, out=rows[:, 0])
        m5 = self._convolve(add(d[5], d[3], alpha=-5, out=buffers[0]).add_(d[1], alpha=4), 5)
        add(difference_1.add_(m5), difference_2, alpha=8, out=rows[:, 3])
        return out

    def _convolve(self, x: Tensor, point: int) -> Tensor:
        """Convolve each row: [n, F, C_in] -> [n, F, C_out]"""
        bias = self.get_buffer("bias") if point == 1 else None
        image = x.permute(2, 0, 1)[None]
        return torch.conv2d(image, self.get_buffer(f"weight_{point}"), bias, padding=(0, 1))[0].permute(1, 2, 0)
