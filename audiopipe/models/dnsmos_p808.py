"""DNSMOS P.808: predicts the overall quality of windows of 9 s from a mel spectrogram of 120 bands.

The spectrogram is librosa's with its defaults (Slaney's mel scale and norm, a periodic Hann window, zeros beyond both
ends), as matrix products. Windows that start every second share all frames but their first and last one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, max_pool2d, pad

from audiopipe.models.dnsmos_windows import FRAMES, HOP_FRAMES, RATE_HZ

__all__ = ["P808", "mel_matrix"]

FRAME, HOP, BINS, MELS = 321, 160, 161, 120
SECOND = RATE_HZ
LAST_FRAME = (FRAMES - 2) * HOP  # first sample of a window's last frame, which lacks its last sample
MIN_POWER, RANGE_DB = 1e-10, 80.0
LAYERS, POOLED_LAYERS = (5, 6, 7, 8, 9), (5, 6, 8)
DENSE = (3, 4, 5)
STEP_ROWS = 30  # pooled rows that a CPU computes at a time
CPU_WINDOWS = 1  # windows that a CPU computes at a time, so that their layers stay in its caches


class P808(nn.Module):
    """A network that maps windows to a rating.

    Args:
        weights: the initializers of `model_v8.onnx`.
        half: compute the convolutions in float16, which is for GPUs.
    """

    outputs = 1

    def __init__(self, weights: Mapping[str, Tensor], half: bool = False) -> None:
        super().__init__()
        time = torch.arange(FRAME, dtype=torch.float64)
        angle = 2 * torch.pi / FRAME * torch.outer(time, torch.arange(BINS, dtype=torch.float64))
        hann = 0.5 - 0.5 * torch.cos(2 * torch.pi / FRAME * time)
        half_frame = slice(1, FRAME // 2 + 1)
        for part, function in (("cosine", torch.cos), ("sine", torch.sin)):
            self.register_buffer(f"{part}_basis", (hann[:, None] * function(angle))[half_frame].float())
        self.register_buffer("mel", mel_matrix().float())
        for layer in LAYERS:
            weight, bias = weights[f"conv2d_{layer}/kernel:0"], weights[f"conv2d_{layer}/bias:0"]
            weight = weight.contiguous(memory_format=torch.channels_last)
            self.register_buffer(f"weight_{layer}", weight.half() if half else weight)
            self.register_buffer(f"bias_{layer}", bias.half() if half else bias)
        first = weights[f"conv2d_{LAYERS[0]}/kernel:0"]
        pooled = first.new_zeros(4, 4, 4, len(first))
        for output, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            pooled[row : row + 3, column : column + 3, output] = first[:, 0].permute(1, 2, 0)
        self.register_buffer("pooled_weight", pooled.view(16, -1))
        for layer in DENSE:
            for part, label in (("MatMul", "matrix"), ("BiasAdd", "offset")):
                value = weights[f"mos_estimator_small_1/dense_{layer}/{part}/ReadVariableOp/resource:0"]
                self.register_buffer(f"{label}_{layer}", value)

    def forward(self, samples: Tensor, count: int, period: int = 0) -> Tensor:
        """Rate all windows of spans.

        Args:
            count: the windows of each span.
            period: not used; repeated frames cost little here.
        Shape:
            - samples: [N, 16000 * (count - 1) + 144160], float32 with full scale 1.0
            - output: [N, count, 1], float64
        """
        levels = self._levels(samples, count)
        size = CPU_WINDOWS if self._is_cpu else len(levels)
        raw = torch.cat([self._decide(_normalize(part)) for part in levels.split(size)])
        return raw.view(len(samples), count, self.outputs).double()

    @property
    def _is_cpu(self) -> bool:
        return bool(self.get_buffer("mel").device.type == "cpu")

    def _levels(self, samples: Tensor, count: int) -> Tensor:
        """Compute the mel bands of all windows in dB: [N, samples] -> [N * count, FRAMES, MELS]"""
        seconds = samples.unfold(1, FRAME, SECOND)[:, :count]
        first = pad(seconds[..., : FRAME - HOP], (HOP, 0))
        last = pad(samples[:, LAST_FRAME:].unfold(1, FRAME - 1, SECOND)[:, :count], (0, 1))
        middle = self._mel_db(samples.unfold(1, FRAME, HOP)).unfold(1, FRAMES - 2, HOP_FRAMES)[:, :count]
        rows = [self._mel_db(first)[:, :, None], middle.transpose(2, 3), self._mel_db(last)[:, :, None]]
        return torch.cat(rows, dim=2).flatten(0, 1)

    def _mel_db(self, frames: Tensor) -> Tensor:
        """Compute the mel bands of frames in dB: [..., FRAME] -> [..., MELS]"""
        # The window is 0 at the first sample and symmetric around it, so samples at equal distances share a product.
        after, before = frames[..., 1 : FRAME // 2 + 1], frames[..., FRAME // 2 + 1 :].flip(-1)
        real, imaginary = (
            (after + before) @ self.get_buffer("cosine_basis"),
            (after - before) @ self.get_buffer("sine_basis"),
        )
        return 10 * ((real.square() + imaginary.square()) @ self.get_buffer("mel")).clamp(min=MIN_POWER).log10()

    def _decide(self, x: Tensor) -> Tensor:
        """Apply the layers: [N, FRAMES, MELS] -> [N, 1]"""
        x = self._pool_first(x) if self._is_cpu else self._layer(x[:, None], LAYERS[0])
        for layer in LAYERS[1:]:
            x = self._layer(x, layer)
        x = x.amax((2, 3)).float()
        for layer in DENSE:
            x = torch.addmm(self.get_buffer(f"offset_{layer}"), x, self.get_buffer(f"matrix_{layer}"))
            x = x.relu_() if layer != DENSE[-1] else x
        return x

    def _layer(self, x: Tensor, layer: int) -> Tensor:
        weight, bias = self.get_buffer(f"weight_{layer}"), self.get_buffer(f"bias_{layer}")
        x = conv2d(x.to(weight.dtype), weight, bias, padding=1)
        return (max_pool2d(x, 2) if layer in POOLED_LAYERS else x).relu_()

    def _pool_first(self, x: Tensor) -> Tensor:
        """Do the same as the first layer and its pooling, in products that stay in a CPU's caches.

        The 2 x 2 outputs that a maximum is taken of depend on 4 x 4 inputs: [N, FRAMES, MELS] -> [N, 32, 450, 60]
        """
        weight, bias = self.get_buffer("pooled_weight"), self.get_buffer(f"bias_{LAYERS[0]}")
        patches = pad(x, (1, 1, 1, 1)).unfold(1, 4, 2).unfold(2, 4, 2)
        out = x.new_empty(*patches.shape[:3], len(bias))
        for image, target in zip(patches, out, strict=True):
            for part, rows in zip(image.split(STEP_ROWS), target.split(STEP_ROWS), strict=True):
                first, second, third, fourth = (
                    (part.reshape(-1, 16) @ weight).view(*rows.shape[:2], -1).chunk(4, dim=-1)
                )
                torch.maximum(torch.maximum(first, second, out=rows), torch.maximum(third, fourth), out=rows)
        return out.add_(bias).relu_().permute(0, 3, 1, 2)


def mel_matrix() -> Tensor:
    """Return the weights of frequencies in Slaney's mel bands from 0 to 8 kHz, each of area 1: [BINS, MELS] float64"""
    top = _to_mel(torch.tensor(RATE_HZ / 2, dtype=torch.float64))
    edges = _to_hz(torch.linspace(0.0, float(top), MELS + 2, dtype=torch.float64))
    frequencies = torch.arange(BINS, dtype=torch.float64) * RATE_HZ / FRAME
    distances = edges[:, None] - frequencies
    widths = edges.diff()[:, None]
    rising, falling = -distances[:-2] / widths[:-1], distances[2:] / widths[1:]
    return (torch.minimum(rising, falling).clamp(min=0.0) * 2 / (edges[2:] - edges[:-2])[:, None]).T.contiguous()


# Linear up to 1 kHz, 15 mel, logarithmic above: 27 bands from 1 to 6.4 kHz.
HZ_PER_MEL, BREAK_HZ, LOG_STEP = 200 / 3, 1000.0, torch.log(torch.tensor(6.4, dtype=torch.float64)) / 27


def _to_mel(hz: Tensor) -> Tensor:
    return torch.where(hz < BREAK_HZ, hz / HZ_PER_MEL, BREAK_HZ / HZ_PER_MEL + (hz / BREAK_HZ).log() / LOG_STEP)


def _to_hz(mel: Tensor) -> Tensor:
    knee = BREAK_HZ / HZ_PER_MEL
    return torch.where(mel < knee, mel * HZ_PER_MEL, BREAK_HZ * (LOG_STEP * (mel - knee)).exp())


def _normalize(levels: Tensor) -> Tensor:
    """Refer levels to the maximum of their window, limit their range, and scale them: [N, FRAMES, MELS]"""
    relative = levels - levels.amax((1, 2), keepdim=True)
    return (relative.clamp(min=-RANGE_DB) + RANGE_DB / 2) / (RANGE_DB / 2)
