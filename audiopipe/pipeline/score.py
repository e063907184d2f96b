"""Measure and resample one batch on the device, and decide which segments are kept."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch

from audiopipe import kernels
from audiopipe.config import RunConfig
from audiopipe.dataset.schema import METRIC_NAMES
from audiopipe.errors import BrokenWorker
from audiopipe.pipeline.batch import Batch
from audiopipe.pipeline.device import DeviceBatch, transfer
from audiopipe.pipeline.device_memory import limit_device_memory
from audiopipe.pipeline.drop_rules import MAX_PEAK_DBFS, NOT_FINITE, RULES
from audiopipe.pipeline.tiles import run_in_tiles
from audiopipe.types import Clip, Decibels, Seconds, Span, Value

__all__ = ["ScoredClip", "drop_reason", "resolve_device", "score"]

# Conversion to 16 bits takes several steps: on a CPU it is done for as many samples at a time as its caches hold.
CACHED_SAMPLES = {"cpu": 1 << 18}

Values = dict[str, float]


@dataclass(frozen=True, slots=True)
class ScoredClip:
    """A clip's metrics in the order of `METRIC_NAMES`, and the samples to emit: [T] int16, or None.

    A clip that was dropped has samples for other scorers and to be written with `keep_dropped`, unless some are not
    finite. The source samples are not kept: until the clip is encoded, they would need six times the memory of
    `samples`.
    """

    video_id: str
    index: int
    span: Span
    duration_s: Seconds
    metrics: npt.NDArray[np.float64]
    drop_reason: str | None
    samples: npt.NDArray[np.int16] | None
    gain_db: Decibels = 0.0
    scores: dict[str, Value] = field(default_factory=dict)


def resolve_device(config: RunConfig) -> torch.device:
    """Return the device that the config selects; 'auto' is CUDA if there is a device.

    Of a GPU's memory this process gets the part of one worker.

    Raises:
        BrokenWorker: the worker was given a GPU, but PyTorch cannot use it. On its CPU it would be slow, and compute
            other last bits than the other workers.
    """
    device = _choose_device(config)
    if device.type == "cuda":
        limit_device_memory(device)
    return device


def _choose_device(config: RunConfig) -> torch.device:
    if config.device == "auto":
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        if torch.cuda.is_available():
            return torch.device("cuda")
        if given not in ("", "-1", "NoDevFiles"):
            raise BrokenWorker(
                f"PyTorch {torch.__version__} cannot use the GPU that this worker was given (CUDA_VISIBLE_DEVICES="
                f"{given}): install NVIDIA's driver 580 or newer, or set device='cpu'"
            )
        return torch.device("cpu")
    return torch.device(config.device)


def drop_reason(values: Values, config: RunConfig) -> str | None:
    """Return the reason of the first rule that a segment with these metrics breaks, or None.

    `NOT_FINITE` comes first: the kernels return NaN for all metrics of a segment with a sample that is not finite.
    """
    if math.isnan(values["dc_offset"]) or values["sample_peak_dbfs"] > MAX_PEAK_DBFS:
        return NOT_FINITE
    for rule in RULES:
        limit = getattr(config, rule.field)
        if limit is not None and rule.breaks(values[rule.metric], limit):
            return rule.reason
    return None


@torch.inference_mode()
def score(batch: Batch | DeviceBatch, config: RunConfig, device: torch.device) -> list[ScoredClip]:
    """Compute the metrics and the resampled signal of a batch's clips, in their order.

    Raises:
        WorkerFailure: the device does not have the memory for one clip.
    """
    whole = transfer(batch, device) if isinstance(batch, Batch) else batch
    return run_in_tiles(len(whole.clips), lambda tile: _score(whole, tile, config, device), device)


def _score(batch: DeviceBatch, tile: slice, config: RunConfig, device: torch.device) -> list[ScoredClip]:
    clips = batch.clips[tile]
    x, lengths = batch.tile(device, tile)
    rate = clips[0].sample_rate_hz
    measured, y = kernels.measure_and_resample(x, rate, config.sample_rate, lengths)
    metrics = measured.to_numpy()
    reasons = [drop_reason(dict(zip(METRIC_NAMES, row, strict=True)), config) for row in metrics.tolist()]
    ends = torch.tensor([kernels.resampled_length(clip.frames, rate, config.sample_rate) for clip in clips])
    emitted = _emit(y, ends, config)
    needs_dropped = bool(config.learned_scorers) or config.keep_dropped
    for row, clip, reason in zip(metrics, clips, reasons, strict=True):
        if reason == NOT_FINITE:
            row[:] = _measure_finite(clip)
    return [
        ScoredClip(
            video_id=clip.video_id,
            index=clip.index,
            span=clip.span,
            duration_s=clip.frames / rate,
            metrics=row,
            drop_reason=reason,
            samples=samples if reason is None or (reason != NOT_FINITE and needs_dropped) else None,
            gain_db=0.0 if reason and not config.keep_dropped else gain_db,
        )
        for clip, row, reason, (samples, gain_db) in zip(clips, metrics, reasons, emitted, strict=True)
    ]


def _measure_finite(clip: Clip) -> npt.NDArray[np.floating]:
    """Compute the metrics of a clip with 0 in place of its samples that are not finite; NaN if it has no others.

    One such sample must not hide what the rest of the segment is like.
    """
    limit = 10 ** (MAX_PEAK_DBFS / 20)
    is_finite = np.abs(clip.pcm) <= limit  # false for NaN
    if not is_finite.any():
        return np.full(len(METRIC_NAMES), np.nan)
    finite = torch.from_numpy(np.where(is_finite, clip.pcm, 0).astype(np.float32))
    metrics: npt.NDArray[np.floating] = kernels.measure(finite[None], clip.sample_rate_hz).to_numpy()[0]
    return metrics


def _emit(y: torch.Tensor, ends: torch.Tensor, config: RunConfig) -> list[tuple[npt.NDArray[np.int16], Decibels]]:
    """Convert [B, 1, T'] to 16 bits; return each clip's samples up to its end, on the host, and its gain.

    Overwrites `y`.
    """
    gains_db = torch.zeros(len(y), device=y.device)
    if config.normalize_lufs is not None:
        y.nan_to_num_()
        gains_db = _gains_db(y, ends, config, config.normalize_lufs)
        y *= 10 ** (gains_db / 20)[:, None, None]
    emitted = torch.empty(y.shape, dtype=torch.int16, device=y.device)
    rows = max(1, CACHED_SAMPLES.get(y.device.type, y.numel()) // max(1, y.shape[-1]))
    for tile, target in zip(y.split(rows), emitted.split(rows), strict=True):
        target.copy_(
            tile.nan_to_num_()
            .mul_(kernels.INT16_FULL_SCALE)
            .round_()
            .clamp_(-kernels.INT16_FULL_SCALE, kernels.INT16_FULL_SCALE - 1)
        )
    signals = emitted[:, 0].cpu().numpy()
    return [(signal[:end], gain) for signal, end, gain in zip(signals, ends.tolist(), gains_db.tolist(), strict=True)]


def _gains_db(y: torch.Tensor, ends: torch.Tensor, config: RunConfig, target_lufs: float) -> torch.Tensor:
    """Compute the gains [B] to the target, limited by `true_peak_dbtp`; 0 for a clip without loudness."""
    metrics = kernels.measure(y, config.sample_rate, ends)
    gains = torch.minimum(target_lufs - metrics.loudness_lufs, config.true_peak_dbtp - metrics.true_peak_dbtp)
    return torch.where(torch.isfinite(gains), gains, 0.0)
