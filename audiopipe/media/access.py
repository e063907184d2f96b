"""Whether a source refuses one object or all of them: the first is the video's own fault, the second ours.

An object that may not be read must not keep its shard open for ever. But keys without any right would turn a whole
catalogue into dead letters. So another object of the same place is asked for: the last one that this process has
read there, or some that lie beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from audiopipe.errors import PermanentStoreError, StoreError, TransientError
from audiopipe.store.objects import S3_PROTOCOLS, open_filesystem
from audiopipe.store.retry import is_forbidden, with_retries

__all__ = ["bucket_is_there", "forget", "only_this_is_forbidden", "was_read"]

NEIGHBOURS = 8
# The last object that was read of each bucket or host.
_READ: dict[str, str] = {}


def was_read(uri: str) -> None:
    """Remember an object that may be read."""
    _READ[_place(uri)] = uri


def forget() -> None:
    """Forget all that is known of any place, as when the keys have changed."""
    _READ.clear()
    _bucket.cache_clear()


def bucket_is_there(uri: str) -> None:
    """Raise `PermanentStoreError` if the whole bucket is missing: S3 answers a HEAD in it as it does for a missing object."""
    if _is_s3(uri):
        _bucket(_bucket_and_key(uri)[0])


def only_this_is_forbidden(uri: str, error: PermanentStoreError) -> bool:
    """Whether a refusal is about permission, and other objects of the same place may be read."""
    if not is_forbidden(error.__cause__):
        return False
    if "://" not in uri or uri.startswith("file://"):
        return os.access(Path(open_filesystem(uri)[1]).parent, os.R_OK | os.X_OK)
    return any(_readable(other) for other in _others(uri))


def _place(uri: str) -> str:
    return "/".join(uri.split("/", 3)[:3])


def _is_s3(uri: str) -> bool:
    return uri.split("://", 1)[0] in S3_PROTOCOLS


def _bucket_and_key(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.split("://", 1)[1].partition("/")
    return bucket, key


def _others(uri: str) -> Iterator[str]:
    witness = _READ.get(_place(uri))
    if witness not in (None, uri):
        yield str(witness)
    if _is_s3(uri):
        bucket, key = _bucket_and_key(uri)
        folder = key.rpartition("/")[0]
        names = _listed(bucket, f"{folder}/" if folder else "")
        yield from (f"s3://{bucket}/{name}" for name in names if name != key)


def _listed(bucket: str, prefix: str) -> list[str]:
    """The first objects of a folder; none if these keys may not list it."""
    fs, _ = open_filesystem(f"s3://{bucket}")
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": NEIGHBOURS}
    try:
        page = with_retries(f"listing s3://{bucket}/{prefix}", lambda: fs.call_s3("list_objects_v2", **request))
    except (PermanentStoreError, FileNotFoundError):
        return []
    return [item["Key"] for item in page.get("Contents") or []]


def _readable(uri: str) -> bool:
    fs, path = open_filesystem(uri)
    try:
        with_retries(f"looking at {uri}", lambda: fs.cat_file(path, start=0, end=1))
    except (PermanentStoreError, TransientError, FileNotFoundError):
        return False
    return True


@lru_cache(maxsize=64)
def _bucket(name: str) -> None:
    fs, _ = open_filesystem(f"s3://{name}")
    try:
        with_retries(f"looking into s3://{name}", lambda: fs.call_s3("list_objects_v2", Bucket=name, MaxKeys=1))
    except FileNotFoundError as error:
        raise StoreError(f"s3://{name}: {error}") from error
