"""All commits of an output in one object of an S3 store, which saves the next drivers a request for each commit.

The pack is a cache. A commit in it counts only if the store lists one with the same tag, the MD5 of its bytes: an old
pack, or one of a store whose tags are no MD5, saves nothing and changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.dataset.checksum import md5
from audiopipe.errors import StoreError
from audiopipe.store.objects import Store
from audiopipe.store.parquet import read_table

__all__ = ["PACK", "read_bodies", "write_pack"]

PACK = "_commits/packed.parquet"
MIN_COMMITS = 256  # fewer are read one by one as fast


def read_bodies(store: Store, names: Collection[str], listed: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    """Return the bytes of commits by name: those that the pack has, and the others from their objects.

    Args:
        listed: entries of the listing that has the commits, and the pack if there is one.
    """
    packed = _read_pack(store) if PACK in listed and len(names) >= MIN_COMMITS else {}
    bodies = {name: packed[tag] for name in names if (tag := listed[name].get("ETag")) in packed}
    return bodies | store.read_all([name for name in names if name not in bodies])


def write_pack(store: Store, listed: Mapping[str, Mapping[str, Any]], bodies: Mapping[str, bytes]) -> None:
    """Write the pack if it would save the next driver many requests.

    Args:
        listed: entries of the listing from which the bodies were read.
    """
    if not store.is_s3 or len(bodies) < MIN_COMMITS:
        return
    packed_at = listed.get(PACK, {}).get("LastModified")
    newer = [name for name in bodies if packed_at is None or listed[name]["LastModified"] >= packed_at]
    if len(newer) >= MIN_COMMITS:
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table({"body": pa.array(bodies.values(), pa.large_binary())}), sink, compression="zstd")
        with suppress(StoreError):  # the commits are there
            store.replace(PACK, bytes(sink.getvalue()))


def _read_pack(store: Store) -> dict[str, bytes]:
    """Return the bodies of the pack by tag; none if it is damaged or was removed."""
    try:
        bodies = read_table(store.read(PACK))["body"].to_pylist()
    except (FileNotFoundError, KeyError, pa.ArrowException, OSError):
        return {}
    return {md5(body): body for body in bodies}
