"""Measure and resample one batch on the device, and decide which segments are kept."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from audiopipe import kernels
from audiopipe.config import RunConfig
from audiopipe.dataset.schema import METRIC_NAMES
from audiopipe.errors import TransientError
from audiopipe.pipeline.batch import Batch
from audiopipe.pipeline.device import DeviceBatch, device_lock, transfer
from audiopipe.types import Decibels, Seconds, Span

__all__ = ["ScoredClip", "drop_reason", "resolve_device", "score"]

INT16_SCALE = 32768.0
CACHED_SAMPLES = {"cpu": 1 << 18}  # of clips that become 16 bits at once, step after step; elsewhere all of a batch

Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class ScoredClip:
    """A clip's metrics in the order of `METRIC_NAMES`, and the samples to emit: [T] int16, or None where dropped.

    The clip's own samples are not kept: until it is encoded they would weigh six times as much as what comes out.
    """

    video_id: str
    index: int
    span: Span
    duration_s: Seconds
    metrics: npt.NDArray[np.float64]
    drop_reason: str | None
    samples: npt.NDArray[np.int16] | None
    gain_db: Decibels = 0.0


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


def resolve_device(config: RunConfig) -> torch.device:
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
def score(batch: Batch | DeviceBatch, config: RunConfig, device: torch.device) -> list[ScoredClip]:
    """All metrics and the resampled signal of a batch, in the order of its clips.

    Raises:
        TransientError: the device has no memory for even one clip.
    """
    fed = transfer(batch, device) if isinstance(batch, Batch) else batch
    with suppress(torch.OutOfMemoryError), device_lock(device).shared():
        return _score(fed, slice(None), config, device)
    with device_lock(device).exclusive():
        return _score_in_tiles(fed, config, device)


def _score_in_tiles(fed: DeviceBatch, config: RunConfig, device: torch.device) -> list[ScoredClip]:
    """As many clips at a time as the device has room for, which it has to itself."""
    rows = len(fed.clips)
    while True:
        # Outside the handler, whose exception keeps the failed pass's tensors alive.
        torch.cuda.empty_cache()
        try:
            tiles = [slice(start, start + rows) for start in range(0, len(fed.clips), rows)]
            return [scored for tile in tiles for scored in _score(fed, tile, config, device)]
        except torch.OutOfMemoryError:
            if rows == 1:
                raise TransientError(f"{device} has no memory for one clip; what else is running on it?") from None
        rows = -(-rows // 2)


def _score(fed: DeviceBatch, tile: slice, config: RunConfig, device: torch.device) -> list[ScoredClip]:
    clips = fed.clips[tile]
    x, lengths = fed.tile(device, tile)
    rate = clips[0].sample_rate_hz
    found, y = kernels.measure_and_resample(x, rate, config.sample_rate, lengths)
    metrics = found.to_numpy()
    reasons = [drop_reason(dict(zip(METRIC_NAMES, row, strict=True)), config) for row in metrics.tolist()]
    ends = torch.tensor([kernels.resampled_length(clip.frames, rate, config.sample_rate) for clip in clips])
    emitted = _emit(y, ends, config)
    return [
        ScoredClip(
            clip.video_id, clip.index, clip.span, clip.frames / rate, row, reason, *((None,) if reason else sound)
        )
        for clip, row, reason, sound in zip(clips, metrics, reasons, emitted, strict=True)
    ]


def _emit(y: torch.Tensor, ends: torch.Tensor, config: RunConfig) -> list[tuple[npt.NDArray[np.int16], Decibels]]:
    """Of each clip of [B, 1, T'] the samples up to its end, on the host, and the gain they were given. Spends y."""
    gains_db = torch.zeros(len(y), device=y.device)
    if config.normalize_lufs is not None:
        y.nan_to_num_()
        gains_db = _gains_db(y, ends, config, config.normalize_lufs)
        y *= 10 ** (gains_db / 20)[:, None, None]
    emitted = torch.empty(y.shape, dtype=torch.int16, device=y.device)
    rows = max(1, CACHED_SAMPLES.get(y.device.type, y.numel()) // max(1, y.shape[-1]))
    for some, target in zip(y.split(rows), emitted.split(rows), strict=True):
        target.copy_(some.nan_to_num_().mul_(INT16_SCALE).round_().clamp_(-INT16_SCALE, INT16_SCALE - 1))
    signals = emitted[:, 0].cpu().numpy()
    return [(signal[:end], gain) for signal, end, gain in zip(signals, ends.tolist(), gains_db.tolist(), strict=True)]


def _gains_db(y: torch.Tensor, ends: torch.Tensor, config: RunConfig, target_lufs: float) -> torch.Tensor:
    """[B]: to the target, or as far as the ceiling allows; 0 where a clip has no loudness."""
    found = kernels.measure(y, config.sample_rate, ends)
    gains = torch.minimum(target_lufs - found.loudness_lufs, config.true_peak_dbtp - found.true_peak_dbtp)
    return torch.where(torch.isfinite(gains), gains, 0.0)
