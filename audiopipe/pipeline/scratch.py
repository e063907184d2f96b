"""Make folders on local disk for work in progress, and remove those that killed processes have left.

The process that makes a folder holds a lock on it, which the kernel releases when the process ends, however it ends.
So a folder that can be locked is abandoned, on any host and in any container, where a process id would prove nothing.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from audiopipe.errors import BrokenWorker
from audiopipe.store.retry import FULL_ERRNOS

__all__ = ["PREFIX", "scratch_folder"]

PREFIX = "audiopipe-scratch-"


@contextmanager
def scratch_folder(name: str, parent: str | None) -> Iterator[Path]:
    """Make a folder for this process alone, and remove it with all its content at the end.

    Args:
        parent: the folder to make it in, which is created if necessary; None for the system's temporary folder.

    Raises:
        BrokenWorker: the disk is full, or cannot be written.
    """
    root = Path(parent or tempfile.gettempdir())
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(root)
        folder, lock = _make_locked(name, root)
    except OSError as error:
        raise _to_broken_worker(root, error) from error
    try:
        yield folder
    except OSError as error:
        if error.errno not in FULL_ERRNOS:
            raise
        raise _to_broken_worker(root, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _to_broken_worker(root: Path, error: OSError) -> BrokenWorker:
    problem = error.strerror or error
    return BrokenWorker(f"scratch folder {root}: {problem}; make room, or name another folder (parameter scratch)")


def _make_locked(name: str, root: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{name}-", dir=root))
        lock = _try_lock(folder)
        # Another process may have locked and removed the folder before the lock was taken here.
        if lock is not None and folder.exists():
            return folder, lock
        if lock is not None:
            os.close(lock)


def _try_lock(folder: Path) -> int | None:
    """Return the descriptor that holds the lock; None if it is held elsewhere, or the folder cannot be opened."""
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


def _remove_abandoned(root: Path) -> None:
    for folder in root.glob(f"{PREFIX}*"):
        lock = _try_lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)
