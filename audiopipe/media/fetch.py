"""Fetch the object of a video to local disk and find its audio, its JSON and its captions.

A tar is never unpacked: the audio stays where it is, a byte range of a local file, which the decoder reads in place and
may seek in. A local source is not even copied.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

import fsspec
from fsspec.asyn import sync

from audiopipe.errors import (
    BadSegments,
    BadTar,
    BrokenWorker,
    ConfigError,
    EmptySource,
    ForbiddenSource,
    InvalidSource,
    MissingSource,
    PermanentStoreError,
    StoreError,
    TooLarge,
)
from audiopipe.media.access import check_bucket, is_object_forbidden, is_web_page, record_readable
from audiopipe.media.safe_tar import TarContents, read_tar
from audiopipe.media.sidecars import MAX_SIDECAR_BYTES, SidecarRules, Sidecars, SidecarTooLarge, choose_sidecars
from audiopipe.media.source import Source
from audiopipe.redaction import is_redacted, without_query
from audiopipe.store.local_files import describe_irregular
from audiopipe.store.objects import open_filesystem
from audiopipe.store.retry import is_name_invalid, with_retries
from audiopipe.types import AUDIO_SUFFIXES, Video

__all__ = ["Source", "fetch"]

MEGABYTE = 1 << 20
RANGE_BYTES = 8 << 20
# Per range, however slowly it arrives: a source slower than 140 kB/s delays the shard more than it is worth.
RANGE_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class _LocalFile:
    """The object of a video as a local file: the user's own, or a copy in the scratch folder."""

    path: Path
    etag: str
    is_scratch: bool

    def remove_scratch(self) -> None:
        if self.is_scratch:
            self.path.unlink(missing_ok=True)


def fetch(video: Video, scratch: Path, rules: SidecarRules | None = None, max_mb: float = math.inf) -> Source:
    """Copy the object of a video to local disk and open it.

    Args:
        rules: which of the files next to the audio are used; default: those of the default config.
        max_mb: maximum megabytes of the object; a larger one is not even downloaded.

    Raises:
        VideoError: the object is missing, empty or invalid; another attempt would not help.
        PermanentStoreError: the bucket is missing, or the store refuses the keys; that says nothing about the video.
        StoreError: the store failed repeatedly; that says nothing about the video either.

    An object may also be missing because its mount or its host is: see `places.SourcePlaces`.
    """
    file = _fetch_file(video, scratch, max_mb)
    try:
        return _open_source(video, file, (rules or SidecarRules()).for_video(video))
    except BaseException:
        file.remove_scratch()
        raise


def _fetch_file(video: Video, scratch: Path, max_mb: float) -> _LocalFile:
    if is_redacted(video.uri):
        raise MissingSource(f"{video.uri} is stored without its secret, and the catalog no longer has the address")
    try:
        fs, remote = open_filesystem(video.uri)
    except ConfigError as error:
        raise InvalidSource(str(error)) from None
    label = f"fetching {video.uri}"
    try:
        if "file" in fs.protocol:
            digest = with_retries(label, lambda: _sha256(video, Path(remote), max_mb))
            record_readable(video)
            return _LocalFile(Path(remote), digest, is_scratch=False)
        file = _download(video, fs, remote, scratch, label, max_mb)
    except FileNotFoundError:
        check_bucket(video.uri)
        problem = "is a link to a file that does not exist" if os.path.islink(remote) else "does not exist"
        raise MissingSource(f"the object {video.uri} {problem}, but the catalog names it") from None
    except UnicodeEncodeError:
        raise InvalidSource(f"this locale cannot encode the name of {video.uri!a}: set LC_ALL=C.UTF-8") from None
    except (IsADirectoryError, NotADirectoryError):
        raise MissingSource(f"{video.uri} is a folder, or lies below a file: it is not an object") from None
    except PermanentStoreError as error:
        if is_name_invalid(error.__cause__):
            raise InvalidSource(str(error)) from None
        if is_object_forbidden(video, error):
            raise ForbiddenSource(f"not permitted to read {video.uri}, although its neighbors can be read") from None
        raise
    record_readable(video)
    return file


def _check_info(video: Video, info: Mapping[str, object]) -> None:
    if info["type"] == "directory":
        raise MissingSource(f"{video.uri} is a folder: it is not an object")
    if is_web_page(video.uri, info):
        raise StoreError(f"fetching {video.uri}: the server answers with a web page, not with the object")
    if info["size"] is None:
        raise InvalidSource(f"{video.uri}: the server does not say how large the object is (Content-Length)")


def _check_size(video: Video, size: int, max_mb: float) -> None:
    if size > max_mb * MEGABYTE:
        raise TooLarge(f"{video.uri} has {size / MEGABYTE:,.0f} MB, more than max_source_mb ({max_mb:,.0f})")


def _sha256(video: Video, path: Path, max_mb: float) -> str:
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(str(path))
    if kind := describe_irregular(status.st_mode):  # to open a pipe would block
        raise InvalidSource(f"{path} is {kind}, not a file")
    _check_size(video, status.st_size, max_mb)
    if status.st_size == 0:  # to read a file of /proc may block
        return f"sha256:{hashlib.sha256().hexdigest()}"
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _download(
    video: Video, fs: fsspec.AbstractFileSystem, remote: str, scratch: Path, label: str, max_mb: float
) -> _LocalFile:
    info = with_retries(label, lambda: _object_info(fs, remote))
    _check_info(video, info)
    size, etag = int(str(info["size"])), _etag(info)
    _check_size(video, size, max_mb)
    digest = hashlib.sha256()
    if not scratch.is_dir():
        raise BrokenWorker(f"scratch folder {scratch} was removed while it was in use")
    with tempfile.NamedTemporaryFile(dir=scratch, prefix="source-", delete=False) as file:
        try:
            for chunk in _read_ranges(fs, remote, size, label):
                file.write(chunk)
                digest.update(chunk)
            if size > RANGE_BYTES and etag != _etag(with_retries(label, lambda: _object_info(fs, remote))):
                raise StoreError(f"{label}: the object was replaced during the download")
        except BaseException:
            Path(file.name).unlink()
            raise
    return _LocalFile(Path(file.name), etag or f"sha256:{digest.hexdigest()}", is_scratch=True)


def _etag(info: Mapping[str, object]) -> str:
    return str(info.get("ETag") or "").strip('"')


def _read_ranges(fs: fsspec.AbstractFileSystem, remote: str, size: int, label: str) -> Iterator[bytes]:
    """Yield the bytes of an object in ranges: a broken connection costs one range, not the whole download."""
    for start in range(0, size, RANGE_BYTES):
        end = min(size, start + RANGE_BYTES)
        yield with_retries(label, partial(_read_range, fs, remote, start, end))


def _read_range(fs: fsspec.AbstractFileSystem, remote: str, start: int, end: int) -> bytes:
    if getattr(fs, "async_impl", False):
        chunk = bytes(sync(fs.loop, fs._cat_file, remote, start=start, end=end, timeout=RANGE_TIMEOUT_S))
    else:
        chunk = bytes(fs.cat_file(remote, start=start, end=end))
    if len(chunk) != end - start:
        raise OSError(f"got {len(chunk)} bytes of {end - start} at {start}")
    return chunk


def _object_info(fs: fsspec.AbstractFileSystem, remote: str) -> Mapping[str, object]:
    """Return size, type and tag of an object."""
    # `sync` limits the whole call; the timeout of a socket restarts with every byte.
    if getattr(fs, "async_impl", False):
        info: Mapping[str, object] = sync(fs.loop, fs._info, remote, timeout=RANGE_TIMEOUT_S)
    else:
        info = fs.info(remote)
    return info


def _open_source(video: Video, file: _LocalFile, rules: SidecarRules) -> Source:
    size = file.path.stat().st_size
    if size == 0:
        raise EmptySource(f"{video.uri} has no bytes")
    siblings: dict[str, str] = {}
    suffix = PurePosixPath(without_query(video.uri)).suffix.lower()
    if suffix in AUDIO_SUFFIXES:
        contents = TarContents(offset=0, size=size, audio=video.uri)
        read_sibling = partial(_read_sibling, video, siblings)
        sidecars = _choose_sidecars(video, video.sidecars, read_sibling, video.uri, rules)
    else:
        with file.path.open("rb") as tar, _explain_suffix(suffix):
            contents = read_tar(tar, size, video.uri)
            read = partial(contents.read, tar)
            sidecars = _choose_sidecars(video, tuple(contents.sidecars), read, contents.audio, rules)
    return Source(
        video=video,
        path=file.path,
        offset=contents.offset,
        size=contents.size,
        bytes_in=size,
        etag=_add_siblings(file.etag, siblings),
        document=sidecars.document,
        captions=sidecars.captions,
        info=sidecars.info,
        notes=sidecars.notes,
        is_scratch=file.is_scratch,
    )


def _choose_sidecars(
    video: Video, names: Sequence[str], read: Callable[[str], bytes], audio: str, rules: SidecarRules
) -> Sidecars:
    try:
        return choose_sidecars(names, read, audio, video.language, rules)
    except BadSegments as error:
        raise BadSegments(f"{video.uri}: {error}") from None


@contextmanager
def _explain_suffix(suffix: str) -> Iterator[None]:
    """Say why a file without the suffix of a tar was read as one, if it cannot be."""
    try:
        yield
    except BadTar as error:
        if suffix in ("", ".tar"):
            raise
        known = ", ".join(sorted(AUDIO_SUFFIXES))
        raise BadTar(f"{error}; it was read as a tar because its suffix {suffix!r} is none of {known}") from error


def _add_siblings(etag: str, siblings: Mapping[str, str]) -> str:
    """Add the files next to bare audio to its tag, so that a change of any of them changes it."""
    if not siblings:
        return etag
    digest = hashlib.sha256(repr(sorted(siblings.items())).encode()).hexdigest()
    return f"{etag}+sidecars:{digest[:32]}"


def _read_sibling(video: Video, siblings: dict[str, str], name: str) -> bytes:
    """Read a file in the folder of a bare audio file, and add its sha256 to `siblings`.

    Raises:
        MissingSource: it no longer exists.
        SidecarTooLarge: it is too large for metadata or captions.
    """
    fs, remote = open_filesystem(video.uri)
    path = remote.rpartition("/")[0] + "/" + name
    label = f"fetching {name} next to {video.uri}"
    try:
        size = int(str(with_retries(label, lambda: _object_info(fs, path))["size"]))
        if size > MAX_SIDECAR_BYTES:
            siblings[name] = f"{size} bytes"
            raise SidecarTooLarge(size)
        data = b"".join(_read_ranges(fs, path, size, label))
        siblings[name] = hashlib.sha256(data).hexdigest()
        return data
    except FileNotFoundError:
        raise MissingSource(f"{name} next to {video.uri} does not exist, but did when the run was planned") from None
