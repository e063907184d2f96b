"""The K-weighting filter as matrix products over chunks of samples.

With the filter's four states s at the start of a chunk x of 32 samples, the chunk's output is x times one matrix plus
s times another. The states come from what each chunk pushes into them, carried from chunk to chunk in blocks
(`_states`). So nothing is ever stepped sample by sample, and CPU and GPU run the same few large products.
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
# So many chunks have their states carried by one product, then so many of those, and so on.
GROUP, _BLOCK = GROUP_SAMPLES // CHUNK, 32


class StateSpace(NamedTuple):
    """s[n+1] = A s[n] + B x[n];  y[n] = C s[n] + D x[n]."""

    a: Array
    b: Array
    c: Array
    d: float


def _cascade(first: Section, second: Section) -> StateSpace:
    """Two sections in series, each in transposed direct form II."""

    def section(coefficients: Section) -> tuple[Array, Array, float]:
        b, a = coefficients
        return np.array([[-a[1], 1.0], [-a[2], 0.0]]), b[1:] - a[1:] * b[0], float(b[0])

    (a1, b1, d1), (a2, b2, d2) = section(first), section(second)
    output = np.array([[1.0, 0.0]])
    a = np.block([[a1, np.zeros((2, 2))], [b2[:, None] @ output, a2]])
    return StateSpace(a, np.concatenate([b1, b2 * d1]), np.array([d2, 0.0, 1.0, 0.0]), d1 * d2)


def _gramian(a: Array, b: Array) -> Array:
    """Sum of A^k b b' A'^k over all k, by doubling."""
    total, power = np.outer(b, b), a
    for _ in range(30):
        total, power = total + power @ total @ power.T, power @ power
    return total


def balanced(system: StateSpace) -> StateSpace:
    """The same filter in the basis where every state is as easy to reach as it is to see.

    In direct form the four states are large and cancel one another (0.05 to 24 LU off in float32); here they are of the
    size of the output, and float32 is enough (5e-5 LU).
    """
    root = np.linalg.cholesky(_gramian(system.a, system.b))
    values, vectors = np.linalg.eigh(root.T @ _gramian(system.a.T, system.c) @ root)
    basis = root @ vectors * values**-0.25
    inverse = np.linalg.inv(basis)
    return StateSpace(inverse @ system.a @ basis, inverse @ system.b, system.c @ basis, system.d)


class Matrices(NamedTuple):
    """The filter over chunks of N samples, for row vectors.

    `response` [N, N] and `seen` [4, N] take a chunk and the state before it to its output; `push` [N, 4] is what
    a chunk adds to the state after it; `carry` [4, 4] takes a state across a chunk.
    """

    response: Tensor
    seen: Tensor
    push: Tensor
    carry: Array


@lru_cache(maxsize=64)
def matrices(sample_rate: int, chunk: int, dtype: torch.dtype, device: torch.device) -> Matrices:
    """The filter of `sample_rate` as matrices over chunks of `chunk` samples."""
    system = balanced(_cascade(*sections(sample_rate)))
    powers = [np.eye(N_STATES)]
    for _ in range(chunk):
        powers.append(powers[-1] @ system.a)
    impulse = np.array([system.d] + [system.c @ p @ system.b for p in powers[: chunk - 1]])
    seen = np.stack([system.c @ p for p in powers[:chunk]], 1)
    lags = np.arange(chunk)[None, :] - np.arange(chunk)[:, None]
    response = np.where(lags >= 0, impulse[np.maximum(lags, 0)], 0.0)
    push = np.stack([powers[chunk - 1 - i] @ system.b for i in range(chunk)])

    def tensor(array: Array) -> Tensor:
        return torch.as_tensor(array, dtype=dtype, device=device)

    return Matrices(tensor(response), tensor(seen), tensor(push), powers[chunk].T)


def _powers(sample_rate: int, stride: int, n: int) -> tuple[Array, Array]:
    """What carries states over `n` intervals of `stride` chunks, to each interval's start and past the last.

    The first, [4, 4 (n + 1)], takes the state before the intervals there; the second, [4 n, 4 (n + 1)], their pushes.
    """
    carry = np.linalg.matrix_power(_exact(sample_rate).carry, stride)
    powers = [np.eye(N_STATES)]
    for _ in range(n):
        powers.append(powers[-1] @ carry)
    zero = np.zeros((N_STATES, N_STATES))
    pushed = np.block([[powers[j - i - 1] if j > i else zero for j in range(n + 1)] for i in range(n)])
    return np.hstack(powers), pushed


def _exact(sample_rate: int) -> Matrices:
    return matrices(sample_rate, CHUNK, torch.float64, torch.device("cpu"))


@lru_cache(maxsize=64)
def _carriers(sample_rate: int, stride: int, n: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """`_powers` as tensors."""
    entered, pushed = _powers(sample_rate, stride, n)
    return torch.as_tensor(entered, dtype=dtype, device=device), torch.as_tensor(pushed, dtype=dtype, device=device)


@lru_cache(maxsize=32)
def _sample_carriers(sample_rate: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """As `_carriers` of one group of chunks, but from its samples instead of its pushes: [4, 36], [256, 36]."""
    entered, pushed = _powers(sample_rate, 1, GROUP)
    push = _exact(sample_rate).push.numpy()
    sampled = (push @ pushed.reshape(GROUP, N_STATES, -1)).reshape(GROUP_SAMPLES, -1)
    return torch.as_tensor(entered, dtype=dtype, device=device), torch.as_tensor(sampled, dtype=dtype, device=device)


def _states(pushes: Tensor, sample_rate: int, stride: int) -> Tensor:
    """The state at the start of every interval, from what each interval pushes: [R, K, 4] -> [R, K, 4].

    s[k+1] = s[k] carry + p[k] with s[0] = 0. Within blocks it is one triangular product; the blocks' own pushes are the
    same problem again, 32 times smaller.
    """
    rows, count, _ = pushes.shape
    n = min(_BLOCK, count)
    blocks = -(-count // n)
    padded = torch.nn.functional.pad(pushes, (0, 0, 0, blocks * n - count)).reshape(rows, blocks, n * N_STATES)
    entered, pushed = _carriers(sample_rate, stride, n, pushes.dtype, pushes.device)
    states = padded @ pushed
    starts, past = states[..., :-N_STATES], states[..., -N_STATES:]
    if blocks > 1:
        starts = starts + _states(past, sample_rate, stride * n) @ entered[:, :-N_STATES]
    return starts.reshape(rows, blocks * n, N_STATES)[:, :count]


def _chunk_states(x: Tensor, sample_rate: int) -> Tensor:
    """The state at the start of every chunk: [R, T] -> [T / 32 of all rows, 4], T a multiple of 256.

    As `_states`, but its first level begins with samples: libraries are many times slower with the four columns of a
    chunk's push than with the 36 of a group.
    """
    entered, sampled = _sample_carriers(sample_rate, x.dtype, x.device)
    states = x.reshape(-1, GROUP_SAMPLES) @ sampled
    starts, past = states[:, :-N_STATES], states[:, -N_STATES:].view(x.shape[0], -1, N_STATES)
    starts.addmm_(_states(past, sample_rate, GROUP).flatten(0, 1), entered[:, :-N_STATES])
    return starts.reshape(-1, N_STATES)


def k_weighted(x: Tensor, sample_rate: int) -> Tensor:
    """`x` through the K-weighting filter, from rest: [R, T] -> [R, T], T a multiple of 256."""
    filters = matrices(sample_rate, CHUNK, x.dtype, x.device)
    y = x.reshape(-1, CHUNK) @ filters.response
    y.addmm_(_chunk_states(x, sample_rate), filters.seen)
    return y.view(x.shape)
