"""Signal-to-noise ratio without a reference: speech comes and goes in every band, stationary noise stays.

So the quietest moments of each band are noise alone. Their level is a low order statistic of a sum of about
independent exponential variables, whose distance from the mean is known; undoing it gives the noise in the band, and
the sum over bands the noise in the signal (R. Martin's minimum statistics, 2001, but of low order).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

BAND_BINS = 32
_LOW_EDGES = (0, 2, 4, 8, 16)
SNR_RANGE_DB = (-20.0, 100.0)
_QUANTILE = 0.02
_SMOOTHED = 3  # frames in a running mean
_MIN_MOMENTS = 8
# Independent values per bin of a Hann spectrum, and in three half-overlapping frames for each one in one of them.
_PER_BIN, _PER_MEAN = 1 / 1.5, 1 + 0.9 * (_SMOOTHED - 1)


def _edges(bins: int) -> list[int]:
    """Bands of 32 bins; below the first of them octaves, since noise is rarely flat down there."""
    return [*_LOW_EDGES, *range(BAND_BINS, bins, BAND_BINS), bins]


@lru_cache(maxsize=32)
def _low_bands(dtype: torch.dtype, device: torch.device) -> Tensor:
    """What takes the first 32 bins to the bands below the first even one: [32, 5]"""
    edge = torch.tensor([*_LOW_EDGES, BAND_BINS], device=device)
    k = torch.arange(BAND_BINS, device=device)[:, None]
    return ((k >= edge[:-1]) & (k < edge[1:])).to(dtype)


def band_powers(power: Tensor) -> Tensor:
    """Sums over the bands: [b, F, N] -> [b, K, F]"""
    whole = power.shape[-1] // BAND_BINS * BAND_BINS
    low = power[..., :BAND_BINS] @ _low_bands(power.dtype, power.device)
    even = power[..., BAND_BINS:whole].unflatten(-1, (-1, BAND_BINS)).sum(-1)
    rest = [power[..., whole:].sum(-1, keepdim=True)] if whole < power.shape[-1] else []
    return torch.cat([low, even, *rest], -1).mT


def _quantile_over_mean(rank: Tensor, count: Tensor, bins: int) -> Tensor:
    """Expected ratio of the order statistic `rank` of `count` noise powers [B, 1] to their mean: [B, K].

    The powers are gamma distributed, their cube root about normal (Wilson and Hilferty, 1931).
    """
    edges = torch.tensor(_edges(bins), dtype=torch.float64)
    width = edges.diff()
    width[0] -= 0.5  # DC and Nyquist are real: half as free as the others
    width[-1] -= 0.5
    shape = width * _PER_BIN * _PER_MEAN
    z = torch.special.ndtri((rank + 0.6) / (count + 0.2))
    ratio: Tensor = (1 - 1 / (9 * shape) + z / (3 * shape.sqrt())).clamp(min=0.1) ** 3
    return ratio


def snr_db(bands: Tensor, lengths: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Level of the signal over its stationary noise.

    Args:
        bands (Tensor): `band_powers` of centred frames.
        lengths (Tensor): samples of each item, on the host.
    Shape:
        [B, K, F], [B] -> [B] float64: from -20 to 100 dB, NaN for silence or less than 8 running means
    """
    frame = torch.arange(bands.shape[2])
    # Frames that lie inside the audio: noise in one that reaches beyond would seem too low.
    first, last = -(-(n_fft // 2) // hop_length), (lengths - n_fft // 2) // hop_length
    count = (last - first + 2 - _SMOOTHED).clamp(min=0)
    enough = count >= _MIN_MOMENTS
    if not bool(enough.any()):
        return torch.full(bands.shape[:1], torch.nan, dtype=torch.float64, device=bands.device)
    inside = ((frame >= first) & (frame <= last[:, None])).to(bands.device)[:, None]
    total = torch.where(inside, bands, 0.0).double().sum((1, 2)) / inside.sum((1, 2))
    inner = torch.where(inside, bands, torch.inf)
    means = (inner[..., :-2] + inner[..., 1:-1] + inner[..., 2:]) / _SMOOTHED
    rank = (_QUANTILE * (count - 1).clamp(min=0) + 0.5).floor().long()
    lowest = means.topk(int(rank.max()) + 1, dim=-1, largest=False).values.double()
    quiet = lowest.gather(-1, rank.to(bands.device)[:, None, None].expand(*bands.shape[:2], 1))[..., 0]
    bins = (n_fft // 2) + 1
    expected = _quantile_over_mean(rank[:, None], count[:, None], bins).to(bands.device)
    noise = (quiet / expected).sum(-1)
    low, high = (10 ** (db / 10) for db in SNR_RANGE_DB)
    ratio = ((total - noise).clamp(min=0) / noise).clamp(low, high)
    return torch.where(enough.to(bands.device) & (total > 0), 10 * ratio.log10(), torch.nan)
