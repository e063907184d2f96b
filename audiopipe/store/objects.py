"""Read and write the objects of an output, in a folder or at any fsspec URL, as the commit protocol needs it.

Every operation is atomic: an object appears under its name only when it has all its bytes. Therefore no remote file is
opened for writing, because fsspec would publish a partial object if the writer raised.

Keys and endpoints come from the environment only, as botocore reads it: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_DEFAULT_REGION. Cloudflare R2 is s3://bucket/… with
AWS_ENDPOINT_URL_S3=https://ACCOUNT.r2.cloudflarestorage.com and AWS_DEFAULT_REGION=auto.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from audiopipe.errors import ConfigError, StoreError
from audiopipe.extras import missing_extra
from audiopipe.redaction import RedactingFilter, find_address_problem
from audiopipe.store.retry import with_retries
from audiopipe.store.s3 import S3_PROTOCOLS, copy_object, list_objects

__all__ = ["S3_PROTOCOLS", "Store", "open_filesystem"]

T = TypeVar("T")
R = TypeVar("R")

EXTRAS = {"s3": "s3", "s3a": "s3", "http": "http", "https": "http"}
# A connection without data for READ_TIMEOUT_S is closed and the request repeated. Three layers retry: botocore a
# request, s3fs a request with its body, `with_retries` an operation; each briefly, so that an outage shows in minutes.
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
REQUEST_ATTEMPTS = 3
# Requests that run at the same time; each waits for a round trip.
CONNECTIONS = 64
THREADS = 16
# Their messages name the addresses of requests.
for _name in ("fsspec.http", "aiohttp.client", "botocore.endpoint", "s3fs", "httpx", "urllib3.connectionpool"):
    logging.getLogger(_name).addFilter(RedactingFilter())
UNCACHED = ("file://", "memory://")  # file systems that never cache listings


def open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the file system of a URL and the path on it; listings are not cached, because other nodes write too.

    Raises:
        MissingExtra: the package for this kind of URL is not installed.
        ConfigError: no file system supports this kind of URL.
        StoreError: the file system cannot be opened, for example because its server does not answer.
    """
    options: dict[str, object] = {}
    if "://" in url and not url.startswith(UNCACHED):
        options["use_listings_cache"] = False
    if url.split("://", 1)[0] in S3_PROTOCOLS:
        options["config_kwargs"] = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "max_pool_connections": CONNECTIONS,
            "retries": {"max_attempts": REQUEST_ATTEMPTS, "mode": "standard"},
            # R2 and older servers reject the checksums that newer clients add by default.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        raise missing_extra(f"opening {url}", cause, EXTRAS.get(url.split("://", 1)[0])) from None
    except ValueError as error:
        raise ConfigError(f"{url} is not an address that can be opened: {error}") from None
    except OSError as error:
        raise StoreError(f"opening {url}: {type(error).__name__}: {error}") from error
    if options.get("config_kwargs"):
        fs.retries = REQUEST_ATTEMPTS
    return fs, path


class Store:
    """The objects below a URL, named by relative paths with '/'.

    All methods raise `PermanentStoreError` for wrong keys, missing permission, a missing bucket or a full disk, and
    `StoreError` if other errors persist through all retries.

    Raises:
        ConfigError: the address has a secret, or chains file systems.
    """

    def __init__(self, url: str) -> None:
        if problem := find_address_problem(url):
            raise ConfigError(f"the address of the output {problem}")
        self.url = url.rstrip("/") or url
        self.fs, root = open_filesystem(url)
        self.root = root.rstrip("/")
        self.is_s3 = url.split("://", 1)[0] in S3_PROTOCOLS
        self._read_options = {"max_concurrency": 1} if self.is_s3 else {}  # else s3fs asks for the size first

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @property
    def local_folder(self) -> Path | None:
        """Return the folder of a local store, None for a remote one."""
        return Path(self.root) if isinstance(self.fs, LocalFileSystem) else None

    def path(self, name: str) -> str:
        """Return the path of an object on the file system."""
        return f"{self.root}/{name}"

    def address(self, name: str) -> str:
        """Return the address of an object as other libraries open it: a local path, or a URL."""
        path = self.path(name)
        return path if self.local_folder is not None else str(self.fs.unstrip_protocol(path))

    def _describe(self, operation: str, name: str) -> str:
        return f"{operation} {self.url}/{name}"

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Call a function that uses the store for each item; the calls for a remote store run concurrently.

        The first error, in the order of the items, is raised.
        """
        listed = list(items)
        if self.local_folder is not None or len(listed) < 2:
            return [function(item) for item in listed]
        with ThreadPoolExecutor(min(THREADS, len(listed)), "store") as pool:
            return list(pool.map(function, listed))

    def create(self, name: str, data: bytes) -> bool:
        """Create an object; return False if another object has the name. Of concurrent calls, one succeeds."""
        put = self._create_remote if self.local_folder is None else self._create_local
        try:
            with_retries(self._describe("creating", name), lambda: put(name, data))
        except FileExistsError:
            # If the response of a create was lost, its retry finds the object that the first attempt created.
            return self.read(name) == data
        return True

    def _create_remote(self, name: str, data: bytes) -> None:
        self.fs.pipe_file(self.path(name), data, mode="create")

    def _create_local(self, name: str, data: bytes) -> None:
        # A hard link is the only local operation that publishes a whole file and fails if the name exists.
        target, draft = Path(self.path(name)), self._draft(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(draft, target)
        finally:
            draft.unlink()

    def _draft(self, content: bytes | Path) -> Path:
        """Write bytes, or copy a file, to an unpublished file on the disk of the output, and sync it."""
        folder = Path(self.path("_parts"))
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f"draft-{uuid.uuid4().hex}"
        try:
            if isinstance(content, bytes):
                draft.write_bytes(content)
            else:
                shutil.copyfile(content, draft)
            with draft.open("rb") as file:
                os.fsync(file.fileno())
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return draft

    def write(self, name: str, data: bytes) -> None:
        """Write or replace an object; do nothing if it has the same bytes already."""
        if self.size(name) == len(data) and self.read(name) == data:
            return
        self.replace(name, data)

    def replace(self, name: str, data: bytes) -> None:
        """Write or replace an object, in one request."""
        put = self.fs.pipe_file if self.local_folder is None else self._replace_local
        with_retries(self._describe("writing", name), lambda: put(self.path(name), data))

    def upload(self, file: Path, name: str) -> None:
        """Copy a local file to an object; a large file is uploaded in parts if the store supports it."""
        if self.local_folder is None:
            with_retries(self._describe("uploading", name), lambda: self.fs.put_file(str(file), self.path(name)))
        else:
            with_retries(self._describe("writing", name), lambda: self._replace_local(self.path(name), file))

    def _replace_local(self, path: str, content: bytes | Path) -> None:
        draft, target = self._draft(content), Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        """Return the bytes of an object.

        Raises:
            FileNotFoundError: the object does not exist.
        """
        path, options = self.path(name), self._read_options
        return bytes(with_retries(self._describe("reading", name), lambda: self.fs.cat_file(path, **options)))

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """Read `size` bytes of an object from the byte `start` on, in one request.

        Raises:
            FileNotFoundError: the object does not exist.
        """
        path = self.path(name)
        return bytes(
            with_retries(self._describe("reading", name), lambda: self.fs.cat_file(path, start=start, end=start + size))
        )

    def read_blocks(self, name: str, size: int, block_bytes: int = 8 << 20) -> Iterator[bytes]:
        """Yield the first `size` bytes of an object in blocks, each read by one request.

        Raises:
            FileNotFoundError: the object does not exist.
        """
        for start in range(0, size, block_bytes):
            yield self.read_range(name, start, min(block_bytes, size - start))

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the bytes of many small objects by name; a remote store is read concurrently."""
        if self.local_folder is not None or len(names) < 2:
            return {name: self.read(name) for name in names}
        paths, options = [self.path(name) for name in names], self._read_options
        bodies = with_retries(self._describe("reading", names[0]), lambda: self.fs.cat(paths, **options))
        return {name: bytes(bodies[self.fs._strip_protocol(self.path(name))]) for name in names}

    def size(self, name: str) -> int | None:
        """Return the size of an object in bytes, None if it does not exist."""
        try:
            return int(with_retries(self._describe("checking", name), lambda: self.fs.info(self.path(name)))["size"])
        except FileNotFoundError:
            return None

    def list(self, prefix: str = "") -> dict[str, int]:
        """Return the sizes in bytes of all objects below a folder, by name, sorted."""
        return {name: int(info["size"]) for name, info in self.list_details(prefix).items()}

    def list_all(self, prefixes: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Return the entries of all objects below several folders, by name; a remote store is listed at once."""
        return {name: info for entries in self.map(self.list_details, prefixes) for name, info in entries.items()}

    def list_details(self, prefix: str = "") -> dict[str, dict[str, Any]]:
        """Return the entries of all objects below a folder as fsspec lists them, by name, sorted."""
        top = self.path(prefix) if prefix else self.root
        find = (lambda: list_objects(self.fs, top)) if self.is_s3 else (lambda: self.fs.find(top, detail=True))
        try:
            entries = with_retries(self._describe("listing", prefix), find)
        except FileNotFoundError:
            return {}
        start = len(self.root) + 1
        return {path[start:]: info for path, info in sorted(entries.items()) if info["type"] != "directory"}

    def publish(self, part: str, name: str, size: int) -> None:
        """Copy (or move, in a folder) a part to its final name, replacing an older object.

        Several processes may do it at the same time, and again.

        Raises:
            FileNotFoundError: neither the part nor a final object of that size exists.
        """
        move = self._move_local if self.local_folder is not None else self.fs.cp_file
        if self.is_s3:
            move = partial(copy_object, self.fs, size)
        try:
            with_retries(self._describe("publishing", name), lambda: move(self.path(part), self.path(name)))
        except FileNotFoundError:
            # Another process may have published it and removed the parts.
            if self.size(name) != size:
                raise

    def _move_local(self, part: str, target: str) -> None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)

    def remove(self, folder: str) -> None:
        """Remove all objects below a folder, if there are any."""
        if self.local_folder is not None:
            shutil.rmtree(self.path(folder), ignore_errors=True)
        else:
            self.remove_all(list(self.list(folder)))

    def remove_all(self, names: Sequence[str]) -> None:
        """Remove objects by name; missing ones are ignored."""
        if self.local_folder is not None:
            for name in names:
                with_retries(self._describe("removing", name), partial(Path(self.path(name)).unlink, missing_ok=True))
        elif names:
            with_retries(self._describe("removing", names[0]), lambda: self.fs.rm([self.path(name) for name in names]))
