"""The output's object store: a folder, or any fsspec URL, with the few operations that the commit protocol needs.

Each either happens completely or not at all: an object appears under its name only when all its bytes are there.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

__all__ = ["Store", "open_url"]


def open_url(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path on it. Listings are never cached: other nodes write at the same time."""
    options = {"use_listings_cache": False} if "://" in url and not url.startswith(("file://", "memory://")) else {}
    fs, path = fsspec.core.url_to_fs(url, **options)
    return fs, path


class Store:
    """Objects below one URL, named by relative paths with '/'."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") or url
        self.fs, root = open_url(url)
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

    def create(self, name: str, data: bytes) -> bool:
        """Write an object if there is none of that name; False if there is. Of many callers at once one wins."""
        if self.local is not None:
            return self._create_local(name, data)
        try:
            self.fs.pipe_file(self.path(name), data, mode="create")
        except FileExistsError:
            return False
        return True

    def _create_local(self, name: str, data: bytes) -> bool:
        # A hard link is the one local operation that both publishes whole files and fails if the name is taken.
        target = Path(self.path(name))
        draft = self._draft(target)
        draft.write_bytes(data)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        try:
            os.link(draft, target)
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def _draft(self, target: Path) -> Path:
        """A name on the target's own disk for bytes that nobody may see yet."""
        target.parent.mkdir(parents=True, exist_ok=True)
        drafts = Path(self.path("_parts"))
        drafts.mkdir(parents=True, exist_ok=True)
        return drafts / f"draft-{uuid.uuid4().hex}"

    def write(self, name: str, data: bytes) -> None:
        """Write an object, replacing what was there; does nothing where the same bytes are there already."""
        if self.size(name) == len(data) and self.read(name) == data:
            return
        if self.local is not None:
            target = Path(self.path(name))
            draft = self._draft(target)
            draft.write_bytes(data)
            draft.replace(target)
        else:
            self.fs.pipe_file(self.path(name), data)

    def upload(self, file: Path, name: str) -> None:
        """Copy a local file to an object (in parts, where it is large and the store has that)."""
        if self.local is not None:
            target = Path(self.path(name))
            draft = self._draft(target)
            shutil.copyfile(file, draft)
            draft.replace(target)
        else:
            self.fs.put_file(str(file), self.path(name))

    def read(self, name: str) -> bytes:
        """The bytes of an object; FileNotFoundError if there is none."""
        return bytes(self.fs.cat_file(self.path(name)))

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """The bytes of many small objects; a remote store is asked for several at once."""
        if self.local is not None or not names:
            return {name: self.read(name) for name in names}
        bodies = self.fs.cat([self.path(name) for name in names])
        return {name: bytes(bodies[self.fs._strip_protocol(self.path(name))]) for name in names}

    def size(self, name: str) -> int | None:
        """The size of an object in bytes, None if there is none."""
        try:
            return int(self.fs.info(self.path(name))["size"])
        except FileNotFoundError:
            return None

    def list(self, prefix: str = "") -> dict[str, int]:
        """Names and sizes of all objects below a folder, sorted."""
        try:
            found = self.fs.find(self.path(prefix) if prefix else self.root, detail=True)
        except FileNotFoundError:
            return {}
        start = len(self.root) + 1
        return {path[start:]: int(info["size"]) for path, info in sorted(found.items())}

    def publish(self, part: str, name: str, size: int) -> None:
        """Give a part its final name. Anyone may do it, again and at the same time.

        Raises:
            FileNotFoundError: there is neither the part nor the final object.
        """
        if self.size(name) == size:
            return
        try:
            if self.local is not None:
                target = Path(self.path(name))
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(self.path(part), target)
            else:
                self.fs.cp_file(self.path(part), self.path(name))
        except FileNotFoundError:
            # Whoever was faster has published it and swept the parts.
            if self.size(name) != size:
                raise

    def remove(self, folder: str) -> None:
        """Remove all objects below a folder; nothing happens if there are none."""
        if self.local is not None:
            shutil.rmtree(self.path(folder), ignore_errors=True)
        elif names := self.list(folder):
            self.fs.rm([self.path(name) for name in names])
