"""Microsoft's DNSMOS networks with their original weights, evaluated on many segments and all their windows at once.

P.835 predicts the quality of speech, of the background, and overall (ITU-T P.835), P.808 the overall quality (ITU-T
P.808). The weights are those of the package `speechmos` 0.0.1.1 (MIT), read from its ONNX files without importing it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from audiopipe.kernels.float32 import full_float32
from audiopipe.models.dnsmos_p808 import P808
from audiopipe.models.dnsmos_p835 import P835
from audiopipe.models.dnsmos_windows import FRAMES, HOP_FRAMES, WindowSpan, cut_span, list_spans
from audiopipe.models.onnx_weights import read_onnx_weights

__all__ = ["Dnsmos", "load_dnsmos"]

P835_FILE, P808_FILE = "sig_bak_ovr.onnx", "model_v8.onnx"
SHA256 = {
    P835_FILE: "269fbebdb513aa23cddfbb593542ecc540284a91849ac50516870e1ac78f6edd",
    P808_FILE: "9246480c58567bc6affd4200938e77eef49468c8bc7ed3776d109c07456f6e91",
}
# Frames in a pass. A GPU needs 124 kB for each; a CPU takes one span at a time, and its results never depend on others.
PASS_FRAMES = {"cpu": 1, "cuda": 16_000}


@cache
def load_dnsmos(device: torch.device, half: bool = False) -> Dnsmos:
    """Load both networks to a device; cached for the life of the process.

    Args:
        half: compute convolutions in float16, which is for GPUs.

    Raises:
        ModuleNotFoundError: the package `speechmos` is not installed.
        ValueError: its weights are not those of version 0.0.1.1.
    """
    return Dnsmos(half).to(device).eval().requires_grad_(False)


def _read_weights(name: str) -> dict[str, Tensor]:
    spec = find_spec("speechmos")  # finds the folder and imports nothing
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'speechmos'", name="speechmos")
    path = Path(spec.submodule_search_locations[0]) / "dnsmos_models" / name
    if sha256(path.read_bytes()).hexdigest() != SHA256[name]:
        raise ValueError(f"{path} is not the file of speechmos 0.0.1.1: install that version")
    return read_onnx_weights(path)


class Dnsmos(nn.Module):
    """Both networks; each maps segments to the mean rating of their windows."""

    def __init__(self, half: bool = False) -> None:
        super().__init__()
        self.p835 = P835(_read_weights(P835_FILE), half)
        self.p808 = P808(_read_weights(P808_FILE), half)

    @torch.inference_mode()
    def forward(self, waves: Sequence[Tensor]) -> Tensor:
        """Rate segments of any lengths: speech, background and overall by P.835, overall by P.808.

        A segment with a NaN is rated NaN; the others do not change.

        Args:
            waves: the samples of each segment at 16 kHz, float32 with full scale 1.0, on the device of the networks.
        Shape:
            - waves: [T] each, T > 0
            - output: [B, 4], float64 on the CPU

        Raises:
            torch.OutOfMemoryError: the GPU has too little memory for a pass.
        """
        return torch.cat([_rate_segments(network, waves) for network in (self.p835, self.p808)], dim=1)

    @torch.inference_mode()
    def rate_p835(self, waves: Sequence[Tensor]) -> Tensor:
        """Rate segments by P.835 alone: [B, 3]"""
        return _rate_segments(self.p835, waves)

    @torch.inference_mode()
    def rate_p808(self, waves: Sequence[Tensor]) -> Tensor:
        """Rate segments by P.808 alone: [B, 1]"""
        return _rate_segments(self.p808, waves)


def _rate_segments(network: P835 | P808, waves: Sequence[Tensor]) -> Tensor:
    """Return the mean rating of each segment's windows: [B, outputs]"""
    groups = defaultdict[tuple[int, int], list[WindowSpan]](list)
    for span in list_spans([len(wave) for wave in waves]):
        groups[span.count, span.period].append(span)
    sums = torch.zeros(len(waves), network.outputs, dtype=torch.float64)
    counts = torch.zeros(len(waves), 1, dtype=torch.float64)
    with full_float32(networks=True):
        for (count, period), spans in groups.items():
            size = _spans_in_pass(count, waves[0].device)
            for first in range(0, len(spans), size):
                part = spans[first : first + size]
                ratings = network(torch.stack([cut_span(waves[span.segment], span) for span in part]), count, period)
                for span, total in zip(part, ratings.sum(1).cpu(), strict=True):
                    sums[span.segment] += total
                    counts[span.segment] += count
    return sums / counts


def _spans_in_pass(count: int, device: torch.device) -> int:
    frames = FRAMES + HOP_FRAMES * (count - 1)
    return max(1, PASS_FRAMES.get(device.type, PASS_FRAMES["cuda"]) // frames)
