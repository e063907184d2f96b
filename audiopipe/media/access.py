"""Find out whether an object can be read, and whether the place of an object (folder, prefix, host) can be used.

A video whose object is missing or forbidden becomes a dead letter, so that its shard can finish. But a mount that is
not there, or keys without any rights, would turn the whole catalog into dead letters. To tell the two apart, other
objects in the same place are read: those of a listing, and the last one that this process has read there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath

from fsspec.asyn import sync

from audiopipe.errors import PermanentStoreError, StoreError, TransientError
from audiopipe.store.local_files import is_local
from audiopipe.store.objects import S3_PROTOCOLS, open_filesystem
from audiopipe.store.retry import is_forbidden, with_retries
from audiopipe.types import AUDIO_SUFFIXES, Video

__all__ = [
    "check_bucket",
    "clear_cache",
    "describe_place",
    "is_http",
    "is_object_forbidden",
    "is_readable",
    "is_web_page",
    "list_neighbors",
    "place_of",
    "record_readable",
]

MAX_NEIGHBORS = 4
MAX_LISTED = 1000  # entries of a folder, or keys of a prefix
MAX_SUBFOLDERS = 16
PROBE_TIMEOUT_S = 10.0
SOURCE_SUFFIXES = {*AUDIO_SUFFIXES, ".tar"}
MAX_RECORDED = 10_000
MIN_DISTINCT_ID = 8  # letters of an id that cannot be part of a folder's name by chance
# The last object read in each place.
_READABLE: dict[str, str] = {}


def record_readable(video: Video) -> None:
    """Record that the object of a video could be read."""
    if len(_READABLE) >= MAX_RECORDED:
        _READABLE.clear()
    _READABLE[place_of(video)] = video.uri


def clear_cache() -> None:
    """Clear what is recorded of places and buckets, for example after the keys have changed."""
    _READABLE.clear()
    _check_bucket.cache_clear()


def place_of(video: Video) -> str:
    """Return the folder, prefix or host that a video's object shares with others.

    A folder that is named after the video is not shared: the place of `videos/ID/ID.tar` is `videos`.
    """
    if is_http(video.uri):
        return "/".join(video.uri.split("/", 3)[:3])
    folder, _, name = _address(video.uri).rpartition("/")
    while _is_named_after(folder.rpartition("/")[2], video, name) and not folder.rpartition("/")[0].endswith("/"):
        folder = folder.rpartition("/")[0]
    return folder or "/"


def describe_place(place: str) -> str:
    """Describe why a place without a readable object may be unavailable."""
    if "://" in place:
        return f"no other object below {place}/ can be read"
    if not os.path.lexists(place):
        return f"the folder {place} does not exist"
    try:
        with os.scandir(place) as entries:
            is_empty = not any(entries)
    except OSError as error:
        return f"the folder {place} cannot be listed ({error.strerror})"
    return f"the folder {place} is empty" if is_empty else f"no other video in the folder {place} can be read"


def check_bucket(uri: str) -> None:
    """Raise `PermanentStoreError` if the whole bucket is missing: S3 answers HEAD there as for a missing object."""
    if _is_s3(uri):
        _check_bucket(_split_s3(uri)[0])


def is_object_forbidden(video: Video, error: PermanentStoreError) -> bool:
    """Check whether a refusal concerns this object only: it is about permission, and a neighbor can be read."""
    return is_forbidden(error.__cause__) and any(map(is_readable, list_neighbors(video)))


def list_neighbors(video: Video) -> Iterator[str]:
    """Yield addresses of other objects in the place of a video, up to `MAX_NEIGHBORS`."""
    place, uri = place_of(video), video.uri
    last_read = _READABLE.get(place)
    if last_read not in (None, uri):
        yield str(last_read)
    suffixes = {*SOURCE_SUFFIXES, PurePosixPath(uri).suffix.lower()}
    depth = _address(uri).removeprefix(place).strip("/").count("/")
    listed = (
        other
        for other in _list_place(place, depth)
        if other not in (uri, last_read) and PurePosixPath(other).suffix.lower() in suffixes
    )
    yield from islice(listed, MAX_NEIGHBORS)


def is_readable(uri: str) -> bool:
    """Check whether an object can be read now, with one short request."""
    fs, path = open_filesystem(uri)
    try:
        if "file" in fs.protocol:
            return _is_local_readable(Path(path))
        if not getattr(fs, "async_impl", False):
            return bool(fs.info(path)["type"] == "file")
        info = sync(fs.loop, fs._info, path, timeout=PROBE_TIMEOUT_S)
        return bool(info["type"] == "file") and not is_web_page(uri, info)
    except Exception:  # noqa: BLE001 - whatever goes wrong in the store's client, the object cannot be read
        return False


def is_http(uri: str) -> bool:
    """Check whether an address is one of a web server, which lists nothing."""
    return uri.startswith(("http://", "https://"))


def is_web_page(uri: str, info: Mapping[str, object]) -> bool:
    """Check whether a server answers with a page for people: an error, a login, or a notice of maintenance.

    Args:
        info: what fsspec knows of the object.
    """
    return is_http(uri) and info.get("mimetype") in ("text/html", "application/xhtml+xml")


def _address(uri: str) -> str:
    """Return the path of a local address, and any other address as it is."""
    return open_filesystem(uri)[1] if is_local(uri) else uri


def _is_named_after(folder: str, video: Video, name: str) -> bool:
    names = {video.video_id, PurePosixPath(name).stem}
    return folder in names or (len(video.video_id) >= MIN_DISTINCT_ID and video.video_id in folder)


def _is_local_readable(path: Path) -> bool:
    if not stat.S_ISREG(path.stat().st_mode):
        return False
    with path.open("rb") as file:
        file.read(1)
    return True


def _is_s3(uri: str) -> bool:
    return uri.split("://", 1)[0] in S3_PROTOCOLS


def _split_s3(uri: str) -> tuple[str, str]:
    """Split an S3 address into bucket and key."""
    bucket, _, key = uri.split("://", 1)[1].partition("/")
    return bucket, key


def _list_place(place: str, depth: int) -> Iterator[str]:
    """Yield addresses of the first objects of a place; none where a listing is impossible, refused or long.

    Args:
        depth: how many folders below the place they are.
    """
    if _is_s3(place):
        yield from (f"s3://{name}" for name in _list_keys(*_split_s3(place), depth))
    elif place.startswith("memory://"):
        fs, path = open_filesystem(place)
        yield from (fs.unstrip_protocol(name) for name in fs.find(path, maxdepth=depth + 1))
    elif "://" not in place:
        yield from _list_folder(place, depth)


def _list_folder(folder: str, depth: int) -> Iterator[str]:
    """Yield regular files some folders below a folder; not all of them, if it has many."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in islice(entries, MAX_LISTED) if not entry.name.startswith(".")]
            files = [entry.path for entry in visible if depth == 0 and entry.is_file()]
            subfolders = [entry.path for entry in visible if depth > 0 and entry.is_dir()]
    except OSError:
        return
    yield from files
    for path in subfolders[:MAX_SUBFOLDERS]:
        yield from _list_folder(path, depth - 1)


def _list_keys(bucket: str, folder: str, depth: int) -> list[str]:
    """List the first keys of a folder; an empty list if these keys may not list it, or the store does not answer."""
    fs, _ = open_filesystem(f"s3://{bucket}")
    prefix = f"{folder}/" if folder else ""
    query = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": MAX_LISTED} | ({} if depth else {"Delimiter": "/"})
    try:
        page = with_retries(f"listing s3://{bucket}/{prefix}", lambda: fs.call_s3("list_objects_v2", **query))
    except (PermanentStoreError, TransientError, FileNotFoundError):
        return []
    keys = (item["Key"] for item in page.get("Contents") or [])
    return [f"{bucket}/{key}" for key in keys if key.removeprefix(prefix).count("/") == depth]


@lru_cache(maxsize=64)
def _check_bucket(name: str) -> None:
    fs, _ = open_filesystem(f"s3://{name}")
    try:
        with_retries(f"listing s3://{name}", lambda: fs.call_s3("list_objects_v2", Bucket=name, MaxKeys=1))
    except FileNotFoundError as error:
        raise StoreError(f"s3://{name}: {error}") from error
