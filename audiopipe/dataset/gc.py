"""Find and remove the objects of an output that no commit names: parts of failed attempts, and orphaned objects."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from audiopipe.dataset.commit import Commit, read_commits
from audiopipe.dataset.duplicates import is_manifest, unique_name
from audiopipe.dataset.run_record import read_run_record
from audiopipe.plan.plan import Plan, load_plan
from audiopipe.store.multipart import abort_upload, list_unfinished
from audiopipe.store.objects import Store

__all__ = ["Garbage", "collect_garbage", "find_orphans"]

SHARD_OBJECT = re.compile(
    r"(?P<language>[^/]+)/(audio_\d{6,}\.tar|(segments|videos)_\d{6,}\.parquet|(unique_)?manifest_\d{6,}\.json)"
)
PARTS = "_parts"
TIMES = ("mtime", "LastModified", "created", "last_modified")


@dataclass(frozen=True)
class Garbage:
    """The result of a collection: objects with their sizes in bytes, and whether they were removed.

    `uploads` are multipart uploads that were never finished, by the object that each would have become.
    """

    objects: dict[str, int]
    removed: bool
    uploads: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Total size in bytes."""
        return sum(self.objects.values())


@dataclass(frozen=True, slots=True)
class ListedObject:
    """The size in bytes of an object, and the hours since it was written; 0 if the listing has no time."""

    size: int
    age_h: float


def collect_garbage(url: str, remove: bool = False, min_age_h: float = 24.0) -> Garbage:
    """List, and optionally remove, the parts, multipart uploads and objects of shards that no commit names.

    Args:
        min_age_h: younger parts and uploads are kept: they may belong to an attempt in progress.

    Raises:
        VerifyError, PlanError: this is not an output, or its plan or a commit is damaged.
    """
    store = Store(url)
    read_run_record(store)
    # The listing comes before the commits: what is committed in between is then in the commits, and not garbage.
    details = store.list_details()
    now = datetime.now(UTC)
    listed = {name: _listed_object(info, now) for name, info in details.items()}
    plan, commits = load_plan(store), read_commits(store)
    names = [*_unneeded_parts(listed, commits.values(), min_age_h), *find_orphans(listed, commits, plan)]
    uploads = [upload for upload in list_unfinished(store, PARTS) if _hours(now - upload.started_at) >= min_age_h]
    if remove:
        store.remove_all(names)
        for upload in uploads:
            abort_upload(store, upload)
    objects = {name: listed[name].size for name in sorted(names)}
    return Garbage(
        objects, remove, {upload.name: f"started {upload.started_at:%Y-%m-%d %H:%M} UTC" for upload in uploads}
    )


def find_orphans(present: Iterable[str], commits: Mapping[str, Commit], plan: Plan) -> list[str]:
    """List the objects at the final names of shards that no commit names."""
    committed = {item.name for commit in commits.values() for item in commit.objects}
    committed |= {unique_name(name) for name in committed if is_manifest(name)}
    matches = ((name, SHARD_OBJECT.fullmatch(name)) for name in present)
    return [name for name, match in matches if match and match["language"] in plan.tables and name not in committed]


def _listed_object(info: Mapping[str, Any], now: datetime) -> ListedObject:
    """Read an fsspec listing's entry: file systems name and type the time differently."""
    time = next((info[name] for name in TIMES if info.get(name)), now)
    written = time if isinstance(time, datetime) else datetime.fromtimestamp(float(time), UTC)
    return ListedObject(int(info["size"]), _hours(now - (written if written.tzinfo else written.replace(tzinfo=UTC))))


def _unneeded_parts(listed: Mapping[str, ListedObject], commits: Iterable[Commit], min_age_h: float) -> Iterator[str]:
    """Yield the parts that no commit has still to publish."""
    needed = {
        item.part
        for commit in commits
        for item in commit.objects
        if item.name not in listed or listed[item.name].size != item.size
    }
    for name, item in listed.items():
        if name.startswith(f"{PARTS}/") and name not in needed and item.age_h >= min_age_h:
            yield name


def _hours(span: timedelta) -> float:
    return span.total_seconds() / 3600
