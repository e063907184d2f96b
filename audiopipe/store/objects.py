"""The output's object store: a folder, or any fsspec URL, with the few operations that the commit protocol needs.

Each either happens completely or not at all: an object appears under its name only when all its bytes are there. So
nothing here opens a remote file for writing, which would publish what was written so far if anything raised.

Keys and endpoints come from the environment alone, as botocore reads it: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_DEFAULT_REGION. Cloudflare R2 is s3://bucket/… with
AWS_ENDPOINT_URL_S3=https://ACCOUNT.r2.cloudflarestorage.com and AWS_DEFAULT_REGION=auto.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from audiopipe.extras import missing_extra
from audiopipe.store.retry import with_retries

__all__ = ["Store", "open_filesystem"]

S3_PROTOCOLS = ("s3", "s3a")
EXTRAS = {"s3": "s3", "s3a": "s3", "http": "http", "https": "http"}
# A connection that is silent for READ_TIMEOUT_S is given up and asked again. Three layers retry: botocore one request,
# s3fs one with its body, `store_errors.asked` whole operations; each briefly, so that an outage shows within minutes.
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 60
REQUEST_ATTEMPTS = 3
LOCAL = ("file://", "memory://")


def open_filesystem(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path on it. Listings are never cached: other nodes write at the same time."""
    options: dict[str, Any] = {}
    if "://" in url and not url.startswith(LOCAL):
        options["use_listings_cache"] = False
    if url.split("://", 1)[0] in S3_PROTOCOLS:
        options["config_kwargs"] = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "retries": {"max_attempts": REQUEST_ATTEMPTS, "mode": "standard"},
            # R2 and older servers do not know the checksums that newer clients add of their own accord.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        }
    try:
        fs, path = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        raise missing_extra(f"opening {url}", cause, EXTRAS.get(url.split("://", 1)[0])) from None
    if options.get("config_kwargs"):
        fs.retries = REQUEST_ATTEMPTS
    return fs, path


class Store:
    """Objects below one URL, named by relative paths with '/'.

    All methods raise `PermanentStoreError` for what a person must mend (keys, permission, bucket, full disk), and `StoreError`
    when the store failed again and again in ways that pass.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") or url
        self.fs, root = open_filesystem(url)
        self.root = root.rstrip("/")

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    @property
    def local(self) -> Path | None:
        """The folder, where the store is one."""
        return Path(self.root) if isinstance(self.fs, LocalFileSystem) else None

    def path(self, name: str) -> str:
        """The full path of a relative name on the file system."""
        return f"{self.root}/{name}"

    def _describe(self, doing: str, name: str) -> str:
        return f"{doing} {self.url}/{name}"

    def create(self, name: str, data: bytes) -> bool:
        """Write an object if there is none of that name; False if there is another. Of many at once one wins."""
        put = self._create_remote if self.local is None else self._create_local
        try:
            with_retries(self._describe("creating", name), lambda: put(name, data))
        except FileExistsError:
            # A create whose answer was lost is sent again, and then finds itself.
            return self.read(name) == data
        return True

    def _create_remote(self, name: str, data: bytes) -> None:
        self.fs.pipe_file(self.path(name), data, mode="create")

    def _create_local(self, name: str, data: bytes) -> None:
        # A hard link is the one local operation that both publishes whole files and fails if the name is taken.
        target, draft = Path(self.path(name)), self._draft(data)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(draft, target)
        finally:
            draft.unlink()

    def _draft(self, content: bytes | Path) -> Path:
        """Bytes, or those of a file, on the output's own disk, where nobody sees them yet."""
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
        """Write an object, replacing what was there; does nothing where the same bytes are there already."""
        if self.size(name) == len(data) and self.read(name) == data:
            return
        put = self.fs.pipe_file if self.local is None else self._replace_local
        with_retries(self._describe("writing", name), lambda: put(self.path(name), data))

    def upload(self, file: Path, name: str) -> None:
        """Copy a local file to an object (in parts, where it is large and the store has that)."""
        if self.local is None:
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
        """The bytes of an object; FileNotFoundError if there is none."""
        return bytes(with_retries(self._describe("reading", name), lambda: self.fs.cat_file(self.path(name))))

    def read_range(self, name: str, start: int, size: int) -> bytes:
        """Read `size` bytes of an object from `start` on, in one request; FileNotFoundError if there is none."""
        path = self.path(name)
        return bytes(
            with_retries(self._describe("reading", name), lambda: self.fs.cat_file(path, start=start, end=start + size))
        )

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """The bytes of many small objects; a remote store is asked for several at once."""
        if self.local is not None or len(names) < 2:
            return {name: self.read(name) for name in names}
        bodies = with_retries(
            self._describe("reading", names[0]), lambda: self.fs.cat([self.path(name) for name in names])
        )
        return {name: bytes(bodies[self.fs._strip_protocol(self.path(name))]) for name in names}

    def size(self, name: str) -> int | None:
        """The size of an object in bytes, None if there is none."""
        try:
            return int(with_retries(self._describe("looking for", name), lambda: self.fs.info(self.path(name)))["size"])
        except FileNotFoundError:
            return None

    def list(self, prefix: str = "") -> dict[str, int]:
        """Names and sizes of all objects below a folder, sorted."""
        return {name: int(info["size"]) for name, info in self.details(prefix).items()}

    def details(self, prefix: str = "") -> dict[str, dict[str, Any]]:
        """Names of all objects below a folder, sorted, and all that the store's listing says of them."""
        top = self.path(prefix) if prefix else self.root
        try:
            found = with_retries(self._describe("listing", prefix), lambda: self.fs.find(top, detail=True))
        except FileNotFoundError:
            return {}
        start = len(self.root) + 1
        return {path[start:]: info for path, info in sorted(found.items()) if info["type"] != "directory"}

    def publish(self, part: str, name: str, size: int) -> None:
        """Give a part its final name, whatever was there before. Anyone may do it, again and at the same time.

        Raises:
            FileNotFoundError: there is neither the part nor the final object of that size.
        """
        move = self.fs.cp_file if self.local is None else self._move_local
        try:
            with_retries(self._describe("publishing", name), lambda: move(self.path(part), self.path(name)))
        except FileNotFoundError:
            # It was published before, or by whoever was faster, and the parts are swept.
            if self.size(name) != size:
                raise

    def _move_local(self, part: str, target: str) -> None:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)

    def remove(self, folder: str) -> None:
        """Remove all objects below a folder; nothing happens if there are none."""
        if self.local is not None:
            shutil.rmtree(self.path(folder), ignore_errors=True)
        else:
            self.remove_all(list(self.list(folder)))

    def remove_all(self, names: Sequence[str]) -> None:
        """Remove objects by name; one that is not there is no error."""
        if self.local is not None:
            for name in names:
                with_retries(self._describe("removing", name), partial(Path(self.path(name)).unlink, missing_ok=True))
        elif names:
            with_retries(self._describe("removing", names[0]), lambda: self.fs.rm([self.path(name) for name in names]))
