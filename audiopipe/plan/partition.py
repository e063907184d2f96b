"""Assign videos to partitions by PostgreSQL's `hashtext`, so that a node and a database query agree.

`hashtext(text)` is Bob Jenkins' lookup3 over the UTF-8 bytes, as `hash_bytes` in PostgreSQL's `src/common/hashfn.c`:
three words start from the length, absorb blocks of 12 bytes, are mixed after each block but the last, incomplete one,
and are folded into one word at the end. Here a step is one numpy operation over all texts that are long enough for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["hashtext", "partition_of"]

Uint32Array = npt.NDArray[np.uint32]
Ids: TypeAlias = "Sequence[str] | pa.Array | pa.ChunkedArray"

SEED = 0x9E3779B9 + 3923095
MIX = (4, 6, 8, 16, 19, 4)
FINAL = (14, 11, 25, 16, 4, 14, 24)


def partition_of(ids: Ids, count: int) -> npt.NDArray[np.int32]:
    """Compute `mod(abs(hashtext(id)::bigint), count)` of each id: shape [N], values from 0 to count - 1.

    Raises:
        UnicodeEncodeError: an id cannot be encoded as UTF-8.
        ValueError: an id is null.

    >>> partition_of(["dQw4w9WgXcQ", "", "日本"], 8).tolist()
    [7, 3, 2]
    """
    # In 64 bits, because -(-2**31) does not fit into 32 bits.
    return (np.abs(hashtext(ids).astype(np.int64)) % count).astype(np.int32)


def hashtext(ids: Ids) -> npt.NDArray[np.int32]:
    """Compute PostgreSQL's hash of each text, shape [N].

    Raises:
        UnicodeEncodeError: a text cannot be encoded as UTF-8.
        ValueError: a text is null.
    """
    data, starts, lengths = _utf8(ids)
    order = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[order], lengths[order]
    a, b, c = (np.full(len(order), SEED, np.uint32) + lengths.astype(np.uint32) for _ in range(3))
    blocks = lengths // 12
    for block in range(int(blocks[0]) if len(blocks) else 0):
        longer = slice(0, int(np.searchsorted(-blocks, -block)))  # sorted by length, the longest first
        values = _read_blocks(data, starts[longer] + 12 * block)
        a[longer], b[longer], c[longer] = _mix(*(x[longer] + value for x, value in zip((a, b, c), values, strict=True)))
    tail = _read_blocks(data, starts + 12 * blocks, lengths % 12)
    hashed = np.empty(len(order), np.int32)
    hashed[order] = _final(a + tail[0], b + tail[1], c + (tail[2] << np.uint32(8))).view(np.int32)
    return hashed


def _utf8(ids: Ids) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the bytes of all texts in one array with 12 extra bytes at its end, and the start and length of each."""
    texts = ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(ids, pa.large_string())
    if isinstance(texts, pa.ChunkedArray):
        texts = texts.cast(pa.large_string()).combine_chunks()
    texts = texts.cast(pa.large_string())
    if texts.null_count:
        raise ValueError("an id is null")
    _, offsets, data = texts.buffers()
    if not len(texts):
        return np.zeros(12, np.uint8), np.empty(0, np.int64), np.empty(0, np.int64)
    edges = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    used = np.frombuffer(data, np.uint8)[: edges[-1]] if data else np.empty(0, np.uint8)
    return np.concatenate([used, np.zeros(12, np.uint8)]), edges[:-1], np.diff(edges)


def _read_blocks(
    data: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], valid: npt.NDArray[np.int64] | None = None
) -> Uint32Array:
    """Read 12 bytes at each start as three little-endian words, shape [3, N]; bytes from `valid` on count as 0."""
    offsets = np.arange(12)
    blocks = data[starts[:, None] + offsets]
    if valid is not None:
        blocks[offsets >= valid[:, None]] = 0
    values: Uint32Array = blocks.view("<u4").T
    return values


def _rotate(x: Uint32Array, bits: int) -> Uint32Array:
    return (x << np.uint32(bits)) | (x >> np.uint32(32 - bits))


def _mix(a: Uint32Array, b: Uint32Array, c: Uint32Array) -> tuple[Uint32Array, Uint32Array, Uint32Array]:
    """Apply lookup3's mix(), which is reversible, so that different states stay different.

    The words change places at each step.
    """
    for bits in MIX:
        a, c = (a - c) ^ _rotate(c, bits), c + b
        a, b, c = b, c, a
    return a, b, c


def _final(a: Uint32Array, b: Uint32Array, c: Uint32Array) -> Uint32Array:
    """Apply lookup3's final(): fold every bit of the three words into one word."""
    for bits in FINAL:
        c = (c ^ b) - _rotate(b, bits)
        a, b, c = b, c, a
    return b
