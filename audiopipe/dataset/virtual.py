"""Locate the audio of segments: in the tars of their dataset, or, in a virtual selection, in those of its parent.

The table of a virtual selection has the column `tar_url`, the address of a tar. `tar_offset` and `audio_bytes` are then
those of that tar.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from audiopipe.dataset.run_record import RunRecord
from audiopipe.dataset.schema import TAR_URL, object_names
from audiopipe.store.objects import Store

__all__ = ["is_virtual", "open_tar", "tar_name"]

STORES = 64


def is_virtual(record: RunRecord) -> bool:
    """Check whether an output is a virtual selection, whose tars are those of another dataset."""
    return record.parent is not None and bool(record.parent["options"]["virtual"])


def tar_name(row: Mapping[str, Any]) -> str:
    """Return the tar that has the audio of a segment: a name relative to the dataset, or an address.

    Args:
        row: `language`, `shard`, `kept` if the segment may be a dropped one, and `tar_url` if there is one.
    """
    if (url := row.get(TAR_URL)) is not None:
        return str(url)
    role = "audio" if row.get("kept", True) else "dropped"
    return object_names(row["language"], int(row["shard"]))[role]


def open_tar(store: Store, name: str) -> tuple[Store, str]:
    """Return the store and the relative name of a tar that is named relative to a dataset, or by an address."""
    if "://" not in name and not name.startswith("/"):
        return store, name
    folder, _, member = name.rpartition("/")
    return _open_store(folder), member


@lru_cache(STORES)
def _open_store(url: str) -> Store:
    return Store(url)


# A store's connections belong to the process that made them.
os.register_at_fork(after_in_child=_open_store.cache_clear)
