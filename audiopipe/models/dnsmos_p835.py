"""DNSMOS P.835: predicts the quality of speech, of the background, and overall, of windows of 9.01 s.

Frames of 20 ms every 10 ms go through a Fourier transform, log power, seven 3 x 3 convolutions and three dense layers.
96 % of the operations are in front of the first pooling, and windows that start every second share most of them: they
start a whole, even number of frames apart. So the first four convolutions and the first pooling are computed once for
all windows of a span, and for each window only the rows near its ends again, where the network sees zeros instead of
the neighboring frames. In the same way the repetitions of a short segment share them, if it has whole frames.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d

from audiopipe.models.dnsmos_windows import FRAMES, HOP_FRAMES
from audiopipe.models.winograd import TimeWinograd

__all__ = ["P835"]

HOP, FRAME, BINS = 160, 320, 161  # samples between frames, samples of a frame, frequencies
POOLED_BINS = BINS // 2
MIN_POWER, LN_10 = 1e-12, 2.3025851
SHARED, LAYERS = 4, 7  # convolutions in front of the first pooling, and all
POOLED_LAYERS = (4, 5)  # of the others, those that a pooling follows
EDGE_FRAMES, EDGE_ROWS = 8, 2  # four convolutions reach four rows: two pooled rows, which depend on eight frames
DENSE = ("dense", "dense_1", "dense_3")
STEP_ROWS = 64  # rows that a CPU computes at a time, so that they stay in its caches
# Coefficients of x^2, x and 1 from an output to a rating, in speechmos/dnsmos.py (those that are not personalized).
RATINGS = (
    (-0.08397278, 1.22083953, 0.0052439),  # speech
    (-0.13166888, 1.60915514, -0.39604546),  # background
    (-0.06766283, 1.11546468, 0.04602535),  # overall
)


class P835(nn.Module):
    """A network that maps windows to three ratings: speech, background, overall.

    Args:
        weights: the initializers of `sig_bak_ovr.onnx`.
        half: compute the convolutions in float16, which is for GPUs.
    """

    outputs = 3

    def __init__(self, weights: Mapping[str, Tensor], half: bool = False) -> None:
        super().__init__()
        self.half_precision = half
        parts = [weights[f"time2freq/stft-{part}/kernel:0"][:, :, 0] for part in ("real", "imag")]
        self.register_buffer("basis", torch.cat(parts).T.contiguous())
        for layer in range(LAYERS):
            name = f"conv2d_{layer}" if layer else "conv2d"
            weight, bias = weights[f"{name}/kernel:0"], weights[f"{name}/bias:0"]
            weight = weight.contiguous(memory_format=torch.channels_last)
            self.register_buffer(f"weight_{layer}", weight.half() if half else weight)
            self.register_buffer(f"bias_{layer}", bias.half() if half else bias)
        self.register_buffer("first_matrix", weights["conv2d/kernel:0"].flatten(1).T.contiguous())
        self.winograd = nn.ModuleList(
            TimeWinograd(weights[f"conv2d_{layer}/kernel:0"], weights[f"conv2d_{layer}/bias:0"])
            for layer in range(1, SHARED)
        )
        for layer, name in enumerate(DENSE):
            for part, label in (("MatMul", "matrix"), ("BiasAdd", "offset")):
                value = weights[f"mos_estimator_logpow/{name}/{part}/ReadVariableOp/resource:0"]
                self.register_buffer(f"{label}_{layer}", value)
        self.register_buffer("ratings", torch.tensor(RATINGS, dtype=torch.float64).T.contiguous())

    def forward(self, samples: Tensor, count: int, period: int = 0) -> Tensor:
        """Rate all windows of spans.

        Args:
            count: the windows of each span.
            period: the frames after which the samples of each span repeat, an even number; 0 if they do not.
        Shape:
            - samples: [N, 16000 * (count - 1) + 144160], float32 with full scale 1.0
            - output: [N, count, 3], float64
        """
        frames = self._log_power(samples)
        pooled = self._pool_period(frames, period) if period else self._pool_span(frames)
        size = 1 if self._is_cpu else count
        outputs = []
        for windows in self._cut_windows(frames, pooled, count, bool(period)).split(size, dim=1):
            outputs.append(self._decide(windows.flatten(0, 1)).view(len(samples), -1, self.outputs))
        raw = torch.cat(outputs, dim=1).double()
        square, linear, constant = self.get_buffer("ratings")
        ratings: Tensor = (square * raw + linear) * raw + constant
        return ratings

    @property
    def _is_cpu(self) -> bool:
        return bool(self.get_buffer("basis").device.type == "cpu")

    def _log_power(self, samples: Tensor) -> Tensor:
        """Compute the logarithm of the power of each frame: [N, samples] -> [N, T, BINS]"""
        real, imaginary = (samples.unfold(1, FRAME, HOP) @ self.get_buffer("basis")).split(BINS, dim=-1)
        log_power: Tensor = (real.square() + imaginary.square()).clamp(min=MIN_POWER).log() / LN_10
        return log_power

    def _layer(self, x: Tensor, layer: int) -> Tensor:
        return conv2d(x, self.get_buffer(f"weight_{layer}"), self.get_buffer(f"bias_{layer}"), padding=1)

    def _convolve(self, frames: Tensor) -> Tensor:
        """Apply the convolutions up to the first pooling, with zeros around: [N, T, BINS] -> [N, T/2, 80, 32]"""
        x = frames[:, None].to(self.get_buffer("weight_0").dtype)
        for layer in range(SHARED - 1):
            x = self._layer(x, layer).relu_()
        return max_pool2d(self._layer(x, SHARED - 1), 2).relu_().permute(0, 2, 3, 1)

    def _pool_span(self, frames: Tensor) -> Tensor:
        """Do the same as `_convolve`, the faster way on this device."""
        return torch.stack([self._step_through(x) for x in frames]) if self._is_cpu else self._convolve(frames)

    def _pool_period(self, frames: Tensor, period: int) -> Tensor:
        """Do the same as `_pool_span` for frames that repeat, apart from the last rows, which a window has not."""
        rows = period // 2
        pooled = self._pool_span(frames[:, : period + EDGE_FRAMES])
        repeated = torch.arange(frames.shape[1] // 2 - EDGE_ROWS, device=frames.device) % rows + EDGE_ROWS
        return torch.cat([pooled[:, :EDGE_ROWS], pooled[:, repeated]], dim=1)

    def _cut_windows(self, frames: Tensor, pooled: Tensor, count: int, has_no_end: bool) -> Tensor:
        """Cut windows from the rows of spans and compute the rows at their ends: [N, T/2, 80, 32] -> [N, count, ...]"""
        if count == 1 and not has_no_end:
            return pooled[:, None]
        starts, ends = self._convolve_edges(frames, count)
        inner = pooled[:, EDGE_ROWS:].unfold(1, FRAMES // 2 - 2 * EDGE_ROWS, HOP_FRAMES // 2)[:, :count]
        return torch.cat([starts, inner.movedim(-1, 2), ends], dim=2)

    def _convolve_edges(self, frames: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Apply the convolutions to the first and last frames of each window: two of [N, count, EDGE_ROWS, 80, 32]"""
        starts = frames.unfold(1, EDGE_FRAMES, HOP_FRAMES)[:, :count]
        ends = frames[:, FRAMES - EDGE_FRAMES :].unfold(1, EDGE_FRAMES, HOP_FRAMES)[:, :count]
        patches = torch.stack([starts, ends]).transpose(-1, -2)
        rows = self._convolve(patches.flatten(0, 2)).unflatten(0, patches.shape[:3])
        return rows[0, :, :, :EDGE_ROWS], rows[1, :, :, -EDGE_ROWS:]

    def _step_through(self, frames: Tensor) -> Tensor:
        """Compute the same as `_convolve` for one span in steps of a few rows: [T, BINS] -> [T/2, 80, 32]

        Each layer is a row late, since it needs the row after. The last two rows of a layer are kept for the next step.
        """
        length = len(frames)
        padded = frames.new_zeros(length + STEP_ROWS + 4, BINS + 2)
        padded[2 : 2 + length, 1:-1] = frames
        channels = [len(self.get_buffer(f"bias_{layer}")) for layer in range(1, SHARED)]
        second, third = (frames.new_zeros(STEP_ROWS + 2, BINS, number) for number in channels[:2])
        last = frames.new_empty(STEP_ROWS, BINS, channels[2])
        pooled = frames.new_empty(length // 2 + 1, POOLED_BINS, channels[2])
        # Rows first - 1 to first + rows of layer 0, first of layer 1, first - 1 of layer 2, first - 2 of layer 3.
        for first in range(0, length + 2, STEP_ROWS):
            rows = min(STEP_ROWS, (length + 2 - first + 3) // 4 * 4)
            x = self._first_layer(padded[first : first + rows + 4])
            _clear_outside(x, first - 1, length)
            self.winograd[0](x, second[2 : rows + 2]).relu_()
            _clear_outside(second[2 : rows + 2], first, length)
            self.winograd[1](second[: rows + 2], third[2 : rows + 2]).relu_()
            _clear_outside(third[2 : rows + 2], first - 1, length)
            self.winograd[2](third[: rows + 2], last[:rows])
            for buffer in (second, third):
                buffer[:2] = buffer[rows : rows + 2].clone()
            target = pooled[first // 2 :][: rows // 2]
            target.copy_(_pool(last[:rows])[: len(target)])
        return pooled[1:]

    def _first_layer(self, rows: Tensor) -> Tensor:
        """Apply the first convolution without padding, as a product: [n + 2, BINS + 2] -> [n, BINS, 128]"""
        patches = rows.unfold(0, 3, 1).unfold(1, 3, 1)
        x = torch.addmm(self.get_buffer("bias_0"), patches.reshape(-1, 9), self.get_buffer("first_matrix"))
        return x.relu_().view(*patches.shape[:2], -1)

    def _decide(self, windows: Tensor) -> Tensor:
        """Apply the layers after the first pooling: [N, 450, 80, 32] -> [N, 3]"""
        x = windows.permute(0, 3, 1, 2)
        for layer in range(SHARED, LAYERS):
            x = self._layer(x, layer)
            x = (max_pool2d(x, 2) if layer in POOLED_LAYERS else x).relu_()
        x = x.amax((2, 3)).float()
        for layer in range(len(DENSE)):
            x = torch.addmm(self.get_buffer(f"offset_{layer}"), x, self.get_buffer(f"matrix_{layer}"))
            x = x.relu_() if layer < len(DENSE) - 1 else x
        return x


def _clear_outside(x: Tensor, first: int, length: int) -> None:
    """Set the rows of a step that are before the first or after the last frame of the span to zero."""
    x[: max(0, -first)] = 0.0
    x[max(0, length - first) :] = 0.0


def _pool(x: Tensor) -> Tensor:
    """Take the maximum of 2 x 2 values and of zero: [n, BINS, C] -> [n / 2, BINS / 2, C]"""
    rows = torch.maximum(x[::2, : 2 * POOLED_BINS], x[1::2, : 2 * POOLED_BINS])
    return torch.maximum(rows[:, ::2], rows[:, 1::2]).relu_()
