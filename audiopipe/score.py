"""Measure and resample one batch on the device, and decide which segments are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from audiopipe import kernels
from audiopipe.batch import Batch
from audiopipe.config import RunConfig
from audiopipe.types import Clip

__all__ = ["METRIC_NAMES", "ScoredClip", "drop_reason", "score", "score_device"]

METRIC_NAMES: tuple[str, ...] = tuple(kernels.METRICS)
INT16_SCALE = 32768.0

Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class ScoredClip:
    """A clip's metrics in the order of `METRIC_NAMES`, and the samples to emit: [T] int16, or None where dropped."""

    clip: Clip
    metrics: npt.NDArray[np.float64]
    drop_reason: str | None
    samples: npt.NDArray[np.int16] | None


# In this order, so that the reason given is the plainest one that applies. A comparison with NaN is False: a metric
# that does not exist condemns nobody.
RULES: tuple[tuple[str, str, str, Callable[[float, float], bool]], ...] = (
    ("too_quiet", "loudness_lufs", "min_loudness_lufs", lambda value, limit: value < limit),
    ("too_loud", "loudness_lufs", "max_loudness_lufs", lambda value, limit: value > limit),
    ("clipped", "clipping_ratio", "max_clipping_ratio", lambda value, limit: value > limit),
    ("mostly_silence", "silence_ratio", "max_silence_ratio", lambda value, limit: value > limit),
    ("noisy", "snr_db", "min_snr_db", lambda value, limit: value < limit),
    ("narrow_band", "bandwidth_hz", "min_bandwidth_hz", lambda value, limit: value < limit),
)


def score_device(config: RunConfig) -> torch.device:
    """The device that the config asks for; 'auto' is CUDA where there is one."""
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


def drop_reason(values: Values, config: RunConfig) -> str | None:
    """The first rule that a segment with these metrics breaks."""
    for reason, metric, field, breaks in RULES:
        limit = getattr(config, field)
        if limit is not None and breaks(values[metric], limit):
            return reason
    return None


@torch.inference_mode()
def score(batch: Batch, config: RunConfig, device: torch.device) -> list[ScoredClip]:
    """All metrics and the resampled signal of a batch, in the order of its clips."""
    samples, lengths = batch.collate()
    x, n = _to_device(samples, device), _to_device(lengths, device)
    metrics = kernels.measure(x, batch.sample_rate_hz, n).stack().cpu().numpy()
    reasons = [drop_reason(dict(zip(METRIC_NAMES, row, strict=True)), config) for row in metrics.tolist()]
    emitted, emitted_lengths = _emit(x, n, batch.sample_rate_hz, config.sample_rate)
    return [
        ScoredClip(clip, row, reason, None if reason else signal[:length])
        for clip, row, reason, signal, length in zip(
            batch.clips, metrics, reasons, emitted.numpy(), emitted_lengths.tolist(), strict=True
        )
    ]


def _to_device(array: npt.NDArray[np.generic], device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)


def _emit(x: torch.Tensor, lengths: torch.Tensor, from_rate: int, to_rate: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mono signal [B, T'] int16 at the output's rate, on the host, and its lengths [B]."""
    if x.shape[1] > 1:
        x = (x / INT16_SCALE if x.dtype == torch.int16 else x).mean(1, keepdim=True)
    y = kernels.resample(x, from_rate, to_rate, lengths).squeeze(1)
    y = torch.nan_to_num(y).mul_(INT16_SCALE).round_().clamp_(-INT16_SCALE, INT16_SCALE - 1)
    return y.to(torch.int16).cpu(), torch.as_tensor(kernels.resampled_length(lengths, from_rate, to_rate)).cpu()
