"""Check at the start of a run whether the store of its output can hold one."""

from __future__ import annotations

import uuid
from contextlib import suppress
from pathlib import Path

from audiopipe.errors import AudiopipeError, PermanentStoreError
from audiopipe.store.objects import Store
from audiopipe.store.retry import to_store_error

__all__ = ["check_output"]

REMEDY = "choose a folder or bucket that can be written"


def check_output(store: Store) -> None:
    """Check that an output can be written.

    Raises:
        PermanentStoreError: it cannot be written, or it ignores the condition of a conditional write. Then two attempts
            at one shard would overwrite each other.
        StoreError: it does not answer.
    """
    if (folder := store.local_folder) is not None:
        _check_folder(folder)
    else:
        _check_conditional_writes(store)


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        converted = to_store_error(f"creating the output {folder}", error)
        if isinstance(converted, PermanentStoreError):
            raise converted from None
        raise PermanentStoreError(f"output {folder} cannot be created ({error.strerror}): {REMEDY}") from None


def _check_conditional_writes(store: Store) -> None:
    """Create an object twice: the second must be refused, because the object exists."""
    name = f"_parts/check-{uuid.uuid4().hex}"
    try:
        is_overwritten = store.create(name, b"first") and store.create(name, b"second")
    except (NotImplementedError, ValueError, FileNotFoundError, TypeError) as error:
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PermanentStoreError(f"output {store.url} cannot be written ({problem}): {REMEDY}") from None
    finally:
        with suppress(AudiopipeError, NotImplementedError, FileNotFoundError):
            store.remove_all([name])
    if is_overwritten:
        raise PermanentStoreError(
            f"the store of {store.url} ignores If-None-Match, the condition of a write: it overwrote an object that "
            "exists. Attempts at one shard would overwrite each other: use a store with conditional writes, or a folder"
        )
