"""Folders on local disk for what is under way. Those of processes that were killed go when the next one makes its own.

Whoever makes a folder holds a lock on it, which the kernel lets go of when the process ends, however it ends. So a
folder that can be locked belongs to nobody, on any host and in any container, where a process id would say nothing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audiopipe.errors import PermanentStoreError
from audiopipe.store.retry import FULL_ERRNOS

__all__ = ["PREFIX", "scratch_folder"]

PREFIX = "audiopipe-scratch-"


@contextmanager
def scratch_folder(name: str, parent: str | None) -> Iterator[Path]:
    """A folder of one's own, gone with all that is in it at the end.

    Args:
        parent: where to make it, which is made if it is not there; None for the system's temporary folder.

    Raises:
        PermanentStoreError: its disk is full, or cannot be written.
    """
    below = Path(parent or tempfile.gettempdir())
    try:
        below.mkdir(parents=True, exist_ok=True)
        _sweep(below)
        folder, lock = _claimed(name, below)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
    except OSError as error:
        if error.errno not in FULL_ERRNOS:
            raise
        raise PermanentStoreError(
            f"scratch folder {below}: {error.strerror}; make room, or name another (scratch)"
        ) from error


def _claimed(name: str, below: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name}-", dir=below))
        lock = _locked(folder)
        # A sweeper that came between the two lines has removed it, or is about to.
        if lock is not None and folder.exists():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """The descriptor that holds the lock; None if somebody else has it, or there is no such folder for us."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _sweep(below: Path) -> None:
    for folder in below.glob(f"{PREFIX}*"):
        lock = _locked(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
