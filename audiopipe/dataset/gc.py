"""Find and remove the objects of an output that no commit names, and commits of shards that no plan has.

They are parts of failed attempts, orphaned objects, and commits that were copied into the output or whose plan was
removed on purpose. Of annotations they are tables without a commit, and what an interrupted removal has left.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from audiopipe.dataset.annotations import ANNOTATIONS, is_annotation_record
from audiopipe.dataset.backup import find_backup_pairs
from audiopipe.dataset.checksum import verify_checksum
from audiopipe.dataset.commit import Commit, list_commits
from audiopipe.dataset.duplicates import is_manifest, unique_name
from audiopipe.dataset.empty_shards import empty_files
from audiopipe.dataset.run_record import read_run_record
from audiopipe.dataset.schema import DESCRIPTION
from audiopipe.dataset.verify_annotations import find_annotation_orphans
from audiopipe.errors import VerifyError
from audiopipe.plan.files import PLAN_FOLDER
from audiopipe.plan.plan import Plan, load_plan
from audiopipe.store.multipart import abort_upload, list_unfinished
from audiopipe.store.objects import Store

__all__ = ["Garbage", "collect_garbage", "find_orphans"]

SHARD_OBJECT = re.compile(
    r"(?P<language>[^/]+)/((audio|dropped)_\d{6,}\.tar|(segments|videos)_\d{6,}\.parquet|(unique_)?manifest_\d{6,}\.json)"
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
    """List, and optionally remove, what no commit of a planned shard names: parts, uploads, objects, other commits.

    Args:
        min_age_h: younger parts and uploads are kept: they may belong to an attempt in progress.

    Raises:
        VerifyError, PlanError: this is not an output, or its plan or a commit is damaged.
    """
    store = Store(url)
    read_run_record(store)
    _require_whole_plan(store)
    # The listing comes before the commits: what is committed in between is then in the commits, and not garbage. The
    # plan comes last: a commit in the listing has its plan by then.
    details = store.list_details()
    now = datetime.now(UTC)
    listed = {name: _listed_object(info, now) for name, info in details.items()}
    plan = load_plan(store)
    planned = plan.shard_names()
    commit_names = list_commits(listed)
    bodies = store.read_all([name for shard, name in commit_names.items() if shard in planned])
    commits = {name: Commit.from_json(body, name) for name, body in bodies.items()}
    waiting = _unpublished_annotations(store, listed)
    orphans = [name for name in find_annotation_orphans(listed, planned) if listed[name].age_h >= min_age_h]
    foreign = store.read_all([name for shard, name in commit_names.items() if shard not in planned])
    names = {
        *_unneeded_parts(listed, [*commits.values(), *waiting], min_age_h),
        *orphans,
        *find_orphans(listed, commits, plan),
        *foreign,
        *(_objects_of(foreign) & listed.keys()) - _objects_of(bodies),
    }
    uploads = [upload for upload in list_unfinished(store, PARTS) if _hours(now - upload.started_at) >= min_age_h]
    if remove:
        store.remove_all(sorted(names))
        for upload in uploads:
            abort_upload(store, upload)
    objects = {name: listed[name].size for name in sorted(names)}
    return Garbage(
        objects, remove, {upload.name: f"started {upload.started_at:%Y-%m-%d %H:%M} UTC" for upload in uploads}
    )


def _unpublished_annotations(store: Store, listed: Iterable[str]) -> Iterator[Commit]:
    """Read the commits of annotations whose tables are still among the parts."""
    names = set(listed)
    commits = [
        name
        for name in names
        if name.startswith(f"{ANNOTATIONS}/")
        and name.endswith(".json")
        and not is_annotation_record(name)
        and name.removesuffix(".json") + ".parquet" not in names
    ]
    for name, body in store.read_all(sorted(commits)).items():
        with suppress(VerifyError):
            yield Commit.from_json(body, name)


def _objects_of(bodies: Mapping[str, bytes]) -> set[str]:
    """Return the objects that commits name, as far as these can be read."""
    names: set[str] = set()
    for name, body in bodies.items():
        with suppress(VerifyError):
            names.update(item.name for item in Commit.from_json(body, name).objects)
    return names


def _require_whole_plan(store: Store) -> None:
    """Refuse to collect while a file of the plan is lost: its shards would count as not planned.

    Raises:
        VerifyError: a file of the plan, or the run's record, is damaged or missing.
    """
    lost = {pair.name for pair in find_backup_pairs(store) if not pair.original_is_good}
    with suppress(FileNotFoundError, VerifyError):
        described = verify_checksum(store.read(DESCRIPTION), DESCRIPTION)["plan"]
        lost |= described.keys() - store.list(PLAN_FOLDER).keys()
    if lost:
        raise VerifyError(f"{', '.join(sorted(lost))}: damaged or missing; run `audiopipe restore {store.url}` first")


def find_orphans(present: Iterable[str], commits: Mapping[str, Commit], plan: Plan) -> list[str]:
    """List the objects at the final names of shards that no commit names."""
    committed = {item.name for commit in commits.values() for item in commit.objects}
    committed |= {unique_name(name) for name in committed if is_manifest(name)} | empty_files(commits.values()).keys()
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
