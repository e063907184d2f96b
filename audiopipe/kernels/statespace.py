"""The K-weighting filter as matrix products over chunks of samples.

With the filter's four states s at the start of a chunk x of 32 samples, the output of the chunk is x times one matrix
plus s times another. Each chunk adds an increment to the states, and a blocked scan (`_scan_states`) carries the states
from chunk to chunk. No step is sequential per sample, and CPU and GPU run the same few large products.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from audiopipe.kernels.audio import GROUP_SAMPLES
from audiopipe.kernels.kweighting import Array, Section, sections

CHUNK = 32
N_STATES = 4
# Chunks per product at the first level of the scan, and blocks per product at each level above.
GROUP, _BLOCK = GROUP_SAMPLES // CHUNK, 32


class StateSpace(NamedTuple):
    """A linear system: s[n+1] = A s[n] + B x[n];  y[n] = C s[n] + D x[n]."""

    a: Array
    b: Array
    c: Array
    d: float


def _cascade(first: Section, second: Section) -> StateSpace:
    """Combine two sections in series, each in transposed direct form II, into one system."""

    def section(coefficients: Section) -> tuple[Array, Array, float]:
        b, a = coefficients
        return np.array([[-a[1], 1.0], [-a[2], 0.0]]), b[1:] - a[1:] * b[0], float(b[0])

    (a1, b1, d1), (a2, b2, d2) = section(first), section(second)
    output = np.array([[1.0, 0.0]])
    a = np.block([[a1, np.zeros((2, 2))], [b2[:, None] @ output, a2]])
    return StateSpace(a, np.concatenate([b1, b2 * d1]), np.array([d2, 0.0, 1.0, 0.0]), d1 * d2)


def _gramian(a: Array, b: Array) -> Array:
    """Compute the controllability Gramian, the sum of A^k b b' A'^k over all k, by doubling."""
    total, power = np.outer(b, b), a
    for _ in range(30):
        total, power = total + power @ total @ power.T, power @ power
    return total


def balance(system: StateSpace) -> StateSpace:
    """Transform the filter to its balanced realization, where controllability and observability Gramians are equal.

    In direct form the four states are large and cancel each other, which costs 0.05 to 24 LU in float32. Balanced
    states are of the size of the output, and float32 is accurate to 5e-5 LU.
    """
    root = np.linalg.cholesky(_gramian(system.a, system.b))
    values, vectors = np.linalg.eigh(root.T @ _gramian(system.a.T, system.c) @ root)
    basis = root @ vectors * values**-0.25
    inverse = np.linalg.inv(basis)
    return StateSpace(inverse @ system.a @ basis, inverse @ system.b, system.c @ basis, system.d)


class FilterMatrices(NamedTuple):
    """The filter over chunks of N samples, as matrices for row vectors.

    The output of a chunk x with initial state s is x response + s observation; its final state is
    s transition + x excitation.

    Shape:
        - response: [N, N]
        - observation: [4, N]
        - excitation: [N, 4]
        - transition: [4, 4]
    """

    response: Tensor
    observation: Tensor
    excitation: Tensor
    transition: Array


@lru_cache(maxsize=64)
def filter_matrices(sample_rate: int, chunk: int, dtype: torch.dtype, device: torch.device) -> FilterMatrices:
    """Compute the filter of `sample_rate` as matrices over chunks of `chunk` samples."""
    system = balance(_cascade(*sections(sample_rate)))
    powers = [np.eye(N_STATES)]
    for _ in range(chunk):
        powers.append(powers[-1] @ system.a)
    impulse = np.array([system.d] + [system.c @ p @ system.b for p in powers[: chunk - 1]])
    observation = np.stack([system.c @ p for p in powers[:chunk]], 1)
    lags = np.arange(chunk)[None, :] - np.arange(chunk)[:, None]
    response = np.where(lags >= 0, impulse[np.maximum(lags, 0)], 0.0)
    excitation = np.stack([powers[chunk - 1 - i] @ system.b for i in range(chunk)])

    def tensor(array: Array) -> Tensor:
        return torch.as_tensor(array, dtype=dtype, device=device)

    return FilterMatrices(tensor(response), tensor(observation), tensor(excitation), powers[chunk].T)


def _scan_arrays(sample_rate: int, stride: int, n: int) -> tuple[Array, Array]:
    """Return the matrices of a scan over `n` intervals of `stride` chunks.

    The result holds the states at the start of each interval and after the last one. The first matrix, [4, 4 (n + 1)],
    maps the state before the intervals to it; the second, [4 n, 4 (n + 1)], maps the increments of the intervals.
    """
    transition = np.linalg.matrix_power(_reference_matrices(sample_rate).transition, stride)
    powers = [np.eye(N_STATES)]
    for _ in range(n):
        powers.append(powers[-1] @ transition)
    zero = np.zeros((N_STATES, N_STATES))
    from_increments = np.block([[powers[j - i - 1] if j > i else zero for j in range(n + 1)] for i in range(n)])
    return np.hstack(powers), from_increments


def _reference_matrices(sample_rate: int) -> FilterMatrices:
    return filter_matrices(sample_rate, CHUNK, torch.float64, torch.device("cpu"))


@lru_cache(maxsize=64)
def _scan_matrices(
    sample_rate: int, stride: int, n: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return `_scan_arrays` as tensors."""
    from_state, from_increments = _scan_arrays(sample_rate, stride, n)
    return _tensors(from_state, from_increments, dtype, device)


@lru_cache(maxsize=32)
def _sample_scan_matrices(sample_rate: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return `_scan_matrices` of one group of chunks with samples as input: [4, 36], [256, 36]."""
    from_state, from_increments = _scan_arrays(sample_rate, 1, GROUP)
    excitation = _reference_matrices(sample_rate).excitation.numpy()
    from_samples = (excitation @ from_increments.reshape(GROUP, N_STATES, -1)).reshape(GROUP_SAMPLES, -1)
    return _tensors(from_state, from_samples, dtype, device)


def _tensors(first: Array, second: Array, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.as_tensor(first, dtype=dtype, device=device), torch.as_tensor(second, dtype=dtype, device=device)


def _scan_states(increments: Tensor, sample_rate: int, stride: int) -> Tensor:
    """Compute the state at the start of every interval from the increments p: [R, K, 4] -> [R, K, 4].

    The recursion is s[k+1] = s[k] transition + p[k] with s[0] = 0. Within a block of 32 intervals it is one triangular
    product; the recursion over blocks is the same problem, 32 times smaller.
    """
    rows, count, _ = increments.shape
    n = min(_BLOCK, count)
    blocks = -(-count // n)
    padded = torch.nn.functional.pad(increments, (0, 0, 0, blocks * n - count)).reshape(rows, blocks, n * N_STATES)
    from_state, from_increments = _scan_matrices(sample_rate, stride, n, increments.dtype, increments.device)
    states = padded @ from_increments
    starts, block_increments = states[..., :-N_STATES], states[..., -N_STATES:]
    if blocks > 1:
        starts = starts + _scan_states(block_increments, sample_rate, stride * n) @ from_state[:, :-N_STATES]
    return starts.reshape(rows, blocks * n, N_STATES)[:, :count]


def _scan_samples(x: Tensor, sample_rate: int) -> Tensor:
    """Compute the state at the start of every chunk: [R, T] -> [R T / 32, 4], T a multiple of 256.

    This is `_scan_states` with a first level that starts from samples: matrix libraries are many times slower with the
    4 columns of a chunk's increment than with the 36 columns of a group.
    """
    from_state, from_samples = _sample_scan_matrices(sample_rate, x.dtype, x.device)
    states = x.reshape(-1, GROUP_SAMPLES) @ from_samples
    starts, group_increments = states[:, :-N_STATES], states[:, -N_STATES:].view(x.shape[0], -1, N_STATES)
    starts.addmm_(_scan_states(group_increments, sample_rate, GROUP).flatten(0, 1), from_state[:, :-N_STATES])
    return starts.reshape(-1, N_STATES)


def k_weight(x: Tensor, sample_rate: int) -> Tensor:
    """Apply the K-weighting filter, starting from zero state: [R, T] -> [R, T], T a multiple of 256."""
    filters = filter_matrices(sample_rate, CHUNK, x.dtype, x.device)
    y = x.reshape(-1, CHUNK) @ filters.response
    y.addmm_(_scan_samples(x, sample_rate), filters.observation)
    return y.view(x.shape)
