"""Second copies of what no run can be gone on with without: `_run.json` and the plan.

A commit that is damaged is made again from its shard's videos; what says which videos these are is not. A copy's name
ends in the sha256 of its bytes, so that of two that differ one knows which is damaged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from audiopipe.dataset.describe import RUN, read_run
from audiopipe.errors import VerifyError
from audiopipe.plan.files import FOLDER as PLAN
from audiopipe.plan.plan import load
from audiopipe.store.objects import Store

__all__ = ["BackupPair", "backup", "find_backup_pairs", "restore"]

BACKUP = "_backup"


@dataclass(frozen=True)
class BackupPair:
    """An object and its copy: whether each has the bytes that the copy's name promises."""

    name: str
    copy: str
    original_is_good: bool
    copy_is_good: bool

    @property
    def intact(self) -> bool:
        return self.original_is_good and self.copy_is_good


def find_backup_pairs(store: Store) -> Iterator[BackupPair]:
    """All objects that have a copy, by name."""
    for copy in store.list(BACKUP):
        name, _, digest = copy.removeprefix(f"{BACKUP}/").rpartition(".")
        yield BackupPair(name, copy, _digest(store, name) == digest, _digest(store, copy) == digest)


def backup(store: Store) -> None:
    """Copy what has no copy yet.

    Raises:
        VerifyError: an original is damaged.
    """
    known = {pair.name: pair for pair in find_backup_pairs(store)}
    for name in _originals(store):
        if name not in known:
            data = store.read(name)
            store.create(f"{BACKUP}/{name}.{hashlib.sha256(data).hexdigest()}", data)
        elif not known[name].original_is_good:
            raise VerifyError(f"{name} is damaged; `audiopipe restore {store.url}` brings it back")


def restore(url: str) -> list[str]:
    """Bring back what is damaged or lost from its copy, or the copy from it; the names of what was written.

    Raises:
        VerifyError, PlanError: both are damaged, or there is no copy; or it is no output.
    """
    store, written = Store(url), []
    for pair in find_backup_pairs(store):
        if not (pair.original_is_good or pair.copy_is_good):
            raise VerifyError(f"{pair.name} and its copy {pair.copy} are both damaged: restore one of them")
        if not pair.intact:
            good, bad = (pair.copy, pair.name) if pair.copy_is_good else (pair.name, pair.copy)
            store.write(bad, store.read(good))
            written.append(bad)
    # What these two can read, and had no copy, has one from now on.
    read_run(store)
    load(store)
    backup(store)
    return written


def _originals(store: Store) -> list[str]:
    return [RUN, *store.list(PLAN)]


def _digest(store: Store, name: str) -> str | None:
    try:
        return hashlib.sha256(store.read(name)).hexdigest()
    except FileNotFoundError:
        return None
