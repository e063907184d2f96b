"""Decide whether a store refuses one object or all of them.

A video whose object may not be read becomes a dead letter, so that its shard can finish. But keys without any rights
would turn the whole catalog into dead letters. To tell the two apart, another object of the same bucket is read: the
last one that this process has read, or some neighbors from a listing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from audiopipe.errors import PermanentStoreError, StoreError, TransientError
from audiopipe.store.objects import S3_PROTOCOLS, open_filesystem
from audiopipe.store.retry import is_forbidden, with_retries

__all__ = ["check_bucket", "clear_cache", "is_object_forbidden", "record_readable"]

MAX_NEIGHBORS = 8
# The last object read in each bucket or from each host.
_READABLE: dict[str, str] = {}


def record_readable(uri: str) -> None:
    """Record that an object of this bucket or host could be read."""
    _READABLE[_host_of(uri)] = uri


def clear_cache() -> None:
    """Clear what is recorded of buckets and hosts, for example after the keys have changed."""
    _READABLE.clear()
    _check_bucket.cache_clear()


def check_bucket(uri: str) -> None:
    """Raise `PermanentStoreError` if the whole bucket is missing: S3 answers HEAD there as for a missing object."""
    if _is_s3(uri):
        _check_bucket(_split_s3(uri)[0])


def is_object_forbidden(uri: str, error: PermanentStoreError) -> bool:
    """Check whether a refusal concerns this object only: it is about permission, and a neighbor can be read."""
    if not is_forbidden(error.__cause__):
        return False
    if "://" not in uri or uri.startswith("file://"):
        return os.access(Path(open_filesystem(uri)[1]).parent, os.R_OK | os.X_OK)
    return any(_is_readable(neighbor) for neighbor in _neighbors(uri))


def _host_of(uri: str) -> str:
    return "/".join(uri.split("/", 3)[:3])


def _is_s3(uri: str) -> bool:
    return uri.split("://", 1)[0] in S3_PROTOCOLS


def _split_s3(uri: str) -> tuple[str, str]:
    """Split an S3 address into bucket and key."""
    bucket, _, key = uri.split("://", 1)[1].partition("/")
    return bucket, key


def _neighbors(uri: str) -> Iterator[str]:
    """Yield addresses of other objects: the last one read, then those of the same S3 folder."""
    last_read = _READABLE.get(_host_of(uri))
    if last_read not in (None, uri):
        yield str(last_read)
    if _is_s3(uri):
        bucket, key = _split_s3(uri)
        folder = key.rpartition("/")[0]
        keys = _list_keys(bucket, f"{folder}/" if folder else "")
        yield from (f"s3://{bucket}/{name}" for name in keys if name != key)


def _list_keys(bucket: str, prefix: str) -> list[str]:
    """List the first keys of a folder; an empty list if these keys may not list it."""
    fs, _ = open_filesystem(f"s3://{bucket}")
    query = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": MAX_NEIGHBORS}
    try:
        page = with_retries(f"listing s3://{bucket}/{prefix}", lambda: fs.call_s3("list_objects_v2", **query))
    except (PermanentStoreError, FileNotFoundError):
        return []
    return [item["Key"] for item in page.get("Contents") or []]


def _is_readable(uri: str) -> bool:
    fs, path = open_filesystem(uri)
    try:
        with_retries(f"reading {uri}", lambda: fs.cat_file(path, start=0, end=1))
    except (PermanentStoreError, TransientError, FileNotFoundError):
        return False
    return True


@lru_cache(maxsize=64)
def _check_bucket(name: str) -> None:
    fs, _ = open_filesystem(f"s3://{name}")
    try:
        with_retries(f"listing s3://{name}", lambda: fs.call_s3("list_objects_v2", Bucket=name, MaxKeys=1))
    except FileNotFoundError as error:
        raise StoreError(f"s3://{name}: {error}") from error
