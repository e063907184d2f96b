"""Keep second copies of the objects that nothing can be made again from: `_run.json`, the plan, annotations' records.

A damaged commit is rebuilt from its shard's videos, but `_run.json` and the plan define which videos these are. A
copy's name ends in the sha256 of its bytes, which shows whether the original or the copy is damaged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from audiopipe.dataset.annotations import ANNOTATIONS, is_annotation_record
from audiopipe.dataset.run_record import RUN_RECORD, read_run_record
from audiopipe.errors import VerifyError
from audiopipe.plan.files import PLAN_FOLDER
from audiopipe.plan.plan import load_plan
from audiopipe.store.objects import Store

__all__ = ["BACKUP", "BackupPair", "backup", "find_backup_pairs", "list_originals", "remove_backup", "restore"]

BACKUP = "_backup"


@dataclass(frozen=True)
class BackupPair:
    """An object and its copy; an intact one has the sha256 that the copy's name ends in."""

    name: str
    copy: str
    original_is_good: bool
    copy_is_good: bool

    @property
    def intact(self) -> bool:
        """True if both are undamaged."""
        return self.original_is_good and self.copy_is_good


def find_backup_pairs(store: Store) -> Iterator[BackupPair]:
    """Check all objects that have a copy, in the order of their names."""
    copies = list(store.list(BACKUP))
    parts = [_split_copy(copy) for copy in copies]
    digests = store.map(partial(_digest, store), [*copies, *(name for name, _ in parts)])
    for copy, (name, digest), of_copy, of_original in zip(copies, parts, digests, digests[len(copies) :], strict=False):
        yield BackupPair(name, copy, of_original == digest, of_copy == digest)


def list_originals(names: Iterable[str]) -> list[str]:
    """Return those of an output's objects that have a copy."""
    return [
        name for name in names if name == RUN_RECORD or name.startswith(f"{PLAN_FOLDER}/") or is_annotation_record(name)
    ]


def backup(store: Store) -> None:
    """Copy `_run.json`, the files of the plan and the records of annotations that have no copy yet.

    Raises:
        VerifyError: an original is damaged.
    """
    pairs = {pair.name: pair for pair in find_backup_pairs(store)}
    names = list_originals([RUN_RECORD, *store.list_all([PLAN_FOLDER, ANNOTATIONS])])
    if damaged := [name for name in names if name in pairs and not pairs[name].original_is_good]:
        raise VerifyError(f"{damaged[0]} is damaged; `audiopipe restore {store.url}` restores it from its backup")
    store.map(partial(_copy, store), [name for name in names if name not in pairs])


def _copy(store: Store, name: str) -> None:
    data = store.read(name)
    store.create(f"{BACKUP}/{name}.{hashlib.sha256(data).hexdigest()}", data)


def remove_backup(store: Store, name: str) -> None:
    """Remove the copy of an object that is removed on purpose."""
    store.remove_all([copy for copy in store.list(BACKUP) if _split_copy(copy)[0] == name])


def restore(url: str) -> list[str]:
    """Restore damaged or lost originals from their copies, and copies from their originals.

    Returns:
        The names of the objects that were written.

    Raises:
        VerifyError, PlanError: original and copy are both damaged, or there is no copy, or this is not an output.
    """
    store, written = Store(url), []
    for pair in find_backup_pairs(store):
        if not (pair.original_is_good or pair.copy_is_good):
            raise VerifyError(f"{pair.name} and its copy {pair.copy} are both damaged: restore one of them by hand")
        if not pair.intact:
            good, bad = (pair.copy, pair.name) if pair.copy_is_good else (pair.name, pair.copy)
            store.write(bad, store.read(good))
            written.append(bad)
    # Originals without a copy are copied only if they can be read.
    read_run_record(store)
    load_plan(store)
    backup(store)
    return written


def _split_copy(copy: str) -> tuple[str, str]:
    """Return the name and the sha256 of the object that a copy is of."""
    name, _, digest = copy.removeprefix(f"{BACKUP}/").rpartition(".")
    return name, digest


def _digest(store: Store, name: str) -> str | None:
    try:
        return hashlib.sha256(store.read(name)).hexdigest()
    except FileNotFoundError:
        return None
