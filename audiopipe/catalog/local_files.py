"""List local media files without waiting for, or stumbling over, entries that are not files.

A pipe, a device, a link that leads nowhere, or a folder without permission costs only itself: it is skipped, and the
log names it.
"""

from __future__ import annotations

import errno
import glob
import logging
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from audiopipe.store.local_files import describe_irregular

__all__ = ["FileInfo", "check_regular", "list_local_files"]

LOG = logging.getLogger(__name__)

MAX_NAMED = 5
LINK_ERRORS = {
    errno.ENOENT: "a link to nothing",
    errno.ELOOP: "a link that leads to itself",
    errno.ENAMETOOLONG: "a name that is too long",
}


class FileInfo(NamedTuple):
    """A file with its size in bytes, if that is known."""

    path: str
    size: int | None


def check_regular(path: str) -> None:
    """Raise `ValueError` if a path is a pipe, a device or a socket: to open it could block.

    Raises:
        OSError: it cannot be examined.
    """
    if kind := describe_irregular(Path(path).stat().st_mode):
        raise ValueError(f"it is {kind}, not a file")


def list_local_files(base: str, suffixes: Iterable[str]) -> list[FileInfo]:
    """List the regular files at, below or matching a path, except hidden ones.

    Args:
        suffixes: the lower-case suffixes of files whose loss is worth a warning.

    Raises:
        OSError: the path itself does not exist or cannot be listed.
    """
    skipped: dict[str, list[str]] = {}
    files = []
    for path in _paths(base, skipped):
        problem, size = _examine(path)
        if problem is None:
            files.append(FileInfo(path, size))
        elif path.rpartition(".")[2].lower() in suffixes:
            skipped.setdefault(problem, []).append(path)
    for problem, paths in sorted(skipped.items()):
        names = ", ".join(ascii(path) for path in paths[:MAX_NAMED]) + (", …" if len(paths) > MAX_NAMED else "")
        count = "one entry," if len(paths) == 1 else f"{len(paths):,} entries, each"
        LOG.warning("catalog %s: skipped %s %s: %s", ascii(base), count, problem, names)
    return files


def _paths(base: str, skipped: dict[str, list[str]]) -> Iterator[str]:
    if os.path.isdir(base):
        yield from _walk(base, skipped)
    elif os.path.lexists(base):
        check_regular(base)
        yield base
    elif glob.has_magic(base):
        yield from (path for path in glob.iglob(base, recursive=True) if not os.path.isdir(path))
    else:
        raise FileNotFoundError("the address does not exist")


def _walk(base: str, skipped: dict[str, list[str]]) -> Iterator[str]:
    """Yield the paths below a folder. Links are followed, each folder once."""

    def skip_folder(error: OSError) -> None:
        if error.filename == base:
            raise error
        skipped.setdefault(f"a folder that cannot be listed ({error.strerror})", []).append(str(error.filename))

    visited = set()
    for folder, subfolders, names in os.walk(base, onerror=skip_folder, followlinks=True):
        real_path = os.path.realpath(folder)
        if real_path in visited:
            subfolders.clear()
            continue
        visited.add(real_path)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        yield from (f"{folder}/{name}" for name in names if not name.startswith("."))


def _examine(path: str) -> tuple[str | None, int | None]:
    """Return why a path is not a file that can be a video, or None and its size in bytes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return "a name that is not UTF-8", None
    try:
        status = Path(path).stat()
    except OSError as error:
        return LINK_ERRORS.get(error.errno or 0, f"a file that cannot be examined ({error.strerror})"), None
    if stat.S_ISDIR(status.st_mode):
        return "a folder", None
    return describe_irregular(status.st_mode), status.st_size
