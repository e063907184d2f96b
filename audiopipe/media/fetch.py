"""Fetch a video's object to local disk and find its audio, its metadata and its captions.

Nothing of a tar is ever unpacked: the audio stays where it is, a byte range of a local file, which the decoder
reads in place and may seek in. A local source is not even copied.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from fsspec.asyn import sync

from audiopipe.errors import EmptySource, ForbiddenSource, MissingSource, PermanentStoreError, StoreError
from audiopipe.media.access import bucket_is_there, only_this_is_forbidden, was_read
from audiopipe.media.safe_tar import AUDIO_SUFFIXES, read_tar
from audiopipe.store.objects import open_filesystem
from audiopipe.store.retry import with_retries
from audiopipe.types import Video

__all__ = ["AUDIO_SUFFIXES", "Source", "fetch"]

RANGE_BYTES = 8 << 20
# For one range, whatever drips in meanwhile: a source of less than 140 kB a second holds up more than it is worth.
RANGE_TIMEOUT_S = 60.0


@dataclass
class Source:
    """A video's object on local disk. Close it to give its scratch space back.

    Attributes:
        path, offset, size: where the audio's bytes are.
        document: the JSON beside the audio, if any.
        captions: ("vtt" or "srt", bytes), if any.
        bytes_in: size of the whole object.
        etag: the store's own tag of the object, or "sha256:…" where it has none.
    """

    video: Video
    path: Path
    offset: int
    size: int
    bytes_in: int
    etag: str
    document: bytes | None = field(default=None, repr=False)
    captions: tuple[str, bytes] | None = field(default=None, repr=False)
    scratch: bool = False

    @property
    def url(self) -> str:
        """The audio as ffmpeg's `subfile` protocol names it."""
        return f"subfile,,start,{self.offset},end,{self.offset + self.size},,:{self.path}"

    def close(self) -> None:
        """Remove the scratch copy, if there is one."""
        if self.scratch:
            self.path.unlink(missing_ok=True)


def fetch(video: Video, scratch: Path) -> Source:
    """Bring a video's object to local disk and open it.

    Raises:
        VideoError: the object is missing, empty or not what it should be; trying again would not help.
        PermanentStoreError: the store knows no such bucket, or refuses our keys; that says nothing of the video.
        StoreError: the store broke off, again and again.
    """
    path, etag, copied = _localise(video, scratch)
    try:
        return _open(video, path, etag, copied)
    except BaseException:
        if copied:
            path.unlink(missing_ok=True)
        raise


def _localise(video: Video, scratch: Path) -> tuple[Path, str, bool]:
    fs, remote = open_filesystem(video.uri)
    told = f"fetching {video.uri}"
    try:
        if "file" in fs.protocol:
            return Path(remote), with_retries(told, lambda: _sha256(Path(remote))), False
        found = _download(fs, remote, scratch, told)
    except FileNotFoundError:
        bucket_is_there(video.uri)
        raise MissingSource(f"nothing at {video.uri}: the catalogue names an object that is not there") from None
    except (IsADirectoryError, NotADirectoryError):
        raise MissingSource(f"{video.uri} is a folder, or below a file: not an object") from None
    except PermanentStoreError as error:
        if only_this_is_forbidden(video.uri, error):
            raise ForbiddenSource(f"not permitted to read {video.uri}, though others beside it are") from None
        raise
    was_read(video.uri)
    return found


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _download(fs: Any, remote: str, scratch: Path, label: str) -> tuple[Path, str, bool]:
    info = with_retries(label, lambda: _in_time(fs, "info", remote))
    if info["type"] == "directory":
        raise IsADirectoryError(remote)
    size, etag = int(info["size"]), _etag(info)
    digest = hashlib.sha256()
    with tempfile.NamedTemporaryFile(dir=scratch, prefix="source-", delete=False) as file:
        try:
            for chunk in _ranges(fs, remote, size, label):
                file.write(chunk)
                digest.update(chunk)
            if size > RANGE_BYTES and etag != _etag(with_retries(label, lambda: _in_time(fs, "info", remote))):
                raise StoreError(f"{label}: it was replaced while it was read")
        except BaseException:
            Path(file.name).unlink()
            raise
    return Path(file.name), etag or f"sha256:{digest.hexdigest()}", True


def _etag(info: dict[str, Any]) -> str:
    return str(info.get("ETag") or "").strip('"')


def _ranges(fs: Any, remote: str, size: int, label: str) -> Iterator[bytes]:
    """The object's bytes, a range at a time: what breaks off is asked for again from there, not from the start."""
    for start in range(0, size, RANGE_BYTES):
        end = min(size, start + RANGE_BYTES)
        yield with_retries(label, partial(_range, fs, remote, start, end))


def _range(fs: Any, remote: str, start: int, end: int) -> bytes:
    chunk = bytes(_in_time(fs, "cat_file", remote, start=start, end=end))
    if len(chunk) != end - start:
        raise OSError(f"got {len(chunk)} bytes of {end - start} at {start}")
    return chunk


def _in_time(fs: Any, method: str, *arguments: Any, **named: Any) -> Any:
    """Call a file system, for `RANGE_TIMEOUT_S` at most: a socket's own time-out starts anew with each byte."""
    if not getattr(fs, "async_impl", False):
        return getattr(fs, method)(*arguments, **named)
    return sync(fs.loop, getattr(fs, f"_{method}"), *arguments, timeout=RANGE_TIMEOUT_S, **named)


def _open(video: Video, path: Path, etag: str, scratch: bool) -> Source:
    size = path.stat().st_size
    if size == 0:
        raise EmptySource(f"{video.uri} has no bytes")
    source = Source(video, path, 0, size, size, etag, scratch=scratch)
    if PurePosixPath(video.uri).suffix.lower() not in AUDIO_SUFFIXES:
        with path.open("rb") as file:
            found = read_tar(file, size, video.uri)
        source.offset, source.size = found.offset, found.size
        source.document, source.captions = found.document, found.captions
    return source
