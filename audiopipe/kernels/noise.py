"""Signal-to-noise ratio without a reference, from the quietest frames of each frequency band.

Speech pauses in every band, stationary noise does not, so the quietest frames of a band contain only noise. Their level
is a low order statistic of a sum of roughly independent exponential variables, whose expected ratio to the mean is
known. Dividing by that ratio gives the noise of the band; the sum over bands is the noise of the signal. This is a
variant of R. Martin's minimum statistics (2001) that uses a low quantile in place of the minimum.
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
# Number of independent values per bin of a Hann spectrum, and of three half-overlapping frames relative to one frame.
_PER_BIN, _PER_MEAN = 1 / 1.5, 1 + 0.9 * (_SMOOTHED - 1)


def _band_edges(bins: int) -> list[int]:
    """Return the edges of the bands: 32 bins each, and octaves in the first 32 bins, where noise is rarely flat."""
    return [*_LOW_EDGES, *range(BAND_BINS, bins, BAND_BINS), bins]


@lru_cache(maxsize=32)
def _low_bands_matrix(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return the matrix that sums the first 32 bins into octave bands: [32, 5]"""
    edge = torch.tensor([*_LOW_EDGES, BAND_BINS], device=device)
    k = torch.arange(BAND_BINS, device=device)[:, None]
    return ((k >= edge[:-1]) & (k < edge[1:])).to(dtype)


def band_powers(power: Tensor) -> Tensor:
    """Sum the bins of each band: [b, F, N] -> [b, K, F]"""
    whole = power.shape[-1] // BAND_BINS * BAND_BINS
    low = power[..., :BAND_BINS] @ _low_bands_matrix(power.dtype, power.device)
    even = power[..., BAND_BINS:whole].unflatten(-1, (-1, BAND_BINS)).sum(-1)
    rest = [power[..., whole:].sum(-1, keepdim=True)] if whole < power.shape[-1] else []
    return torch.cat([low, even, *rest], -1).mT


def _expected_quantile_ratio(rank: Tensor, count: Tensor, bins: int) -> Tensor:
    """Compute the expected ratio of the order statistic `rank` of `count` noise powers to their mean.

    The powers are gamma distributed; their cube root is approximately normal (Wilson and Hilferty, 1931).

    Shape:
        - rank, count: [B, 1]
        - output: [B, K]
    """
    edges = torch.tensor(_band_edges(bins), dtype=torch.float64)
    width = edges.diff()
    width[0] -= 0.5  # the DC and Nyquist bins are real, so they have half the degrees of freedom
    width[-1] -= 0.5
    shape = width * _PER_BIN * _PER_MEAN
    z = torch.special.ndtri((rank + 0.6) / (count + 0.2))
    ratio: Tensor = (1 - 1 / (9 * shape) + z / (3 * shape.sqrt())).clamp(min=0.1) ** 3
    return ratio


def compute_snr_db(bands: Tensor, lengths: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Compute the ratio of the signal to its stationary noise in dB.

    Args:
        bands (Tensor): `band_powers` of centered frames.
        lengths (Tensor): samples of each item, on the host.
        n_fft (int): samples of a frame.
        hop_length (int): samples between frames.
    Shape:
        - bands: [B, K, F]
        - lengths: [B]
        - output: [B] float64
    Returns:
        From -20 to 100 dB; NaN for silence and for fewer than 8 running means.
    """
    frame = torch.arange(bands.shape[2])
    # Use only frames that lie inside the audio: the zeros in the others would make their noise seem lower.
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
    expected = _expected_quantile_ratio(rank[:, None], count[:, None], bins).to(bands.device)
    noise = (quiet / expected).sum(-1)
    low, high = (10 ** (db / 10) for db in SNR_RANGE_DB)
    ratio = ((total - noise).clamp(min=0) / noise).clamp(low, high)
    return torch.where(enough.to(bands.device) & (total > 0), 10 * ratio.log10(), torch.nan)
