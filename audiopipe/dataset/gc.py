"""What lies in an output and belongs to nothing: parts of attempts that came to nothing, objects without a commit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from audiopipe.dataset.commit import Commit
from audiopipe.dataset.describe import read_commits, read_run
from audiopipe.dataset.duplicates import is_manifest, unique_name
from audiopipe.plan.plan import Plan, load
from audiopipe.store.multipart import abort, list_unfinished
from audiopipe.store.objects import Store

__all__ = ["Garbage", "collect_garbage", "find_orphans"]

SHARD_OBJECT = re.compile(
    r"(?P<language>[^/]+)/(audio_\d{6,}\.tar|(segments|videos)_\d{6,}\.parquet|(unique_)?manifest_\d{6,}\.json)"
)
PARTS = "_parts"
TIMES = ("mtime", "LastModified", "created", "last_modified")


@dataclass(frozen=True)
class Garbage:
    """Names and sizes in bytes, and whether they were removed.

    `uploads` are those in parts that were never finished, by the object that each would have become.
    """

    objects: dict[str, int]
    removed: bool
    uploads: dict[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return sum(self.objects.values())


def collect_garbage(url: str, remove: bool = False, min_age_h: float = 24.0) -> Garbage:
    """List, and when told to remove, what no commit names: parts, uploads of parts, objects of shards; nothing else.

    Args:
        min_age_h: younger parts are left alone: they may belong to an attempt that is under way.

    Raises:
        VerifyError, PlanError: it is no output, or its plan or a commit is damaged and cannot say what it names.
    """
    store = Store(url)
    read_run(store)
    # Listed before the commits are read: what is committed in between is then in the commits, and not garbage.
    details = store.details()
    plan, commits = load(store), read_commits(store)
    sizes = {name: int(info["size"]) for name, info in details.items()}
    names = [*_parts(details, commits.values(), min_age_h), *find_orphans(sizes, commits, plan)]
    now = datetime.now(UTC)
    uploads = [one for one in list_unfinished(store, PARTS) if _hours(now - one.started_at) >= min_age_h]
    if remove:
        store.remove_all(names)
        for upload in uploads:
            abort(store, upload)
    objects = {name: sizes[name] for name in sorted(names)}
    return Garbage(objects, remove, {one.name: f"begun {one.started_at:%Y-%m-%d %H:%M} UTC" for one in uploads})


def find_orphans(present: Iterable[str], commits: Mapping[str, Commit], plan: Plan) -> list[str]:
    """Objects at the final names of shards that no commit names."""
    named = {item.name for commit in commits.values() for item in commit.objects}
    named |= {unique_name(name) for name in named if is_manifest(name)}
    found = ((name, SHARD_OBJECT.fullmatch(name)) for name in present)
    return [name for name, match in found if match and match["language"] in plan.tables and name not in named]


def _parts(details: Mapping[str, Mapping[str, Any]], commits: Iterable[Commit], min_age_h: float) -> Iterator[str]:
    """Parts that nobody will publish: those of no commit, or of one that is published whole."""
    needed = {
        item.part
        for commit in commits
        for item in commit.objects
        if int(details.get(item.name, {}).get("size", -1)) != item.size
    }
    now = datetime.now(UTC)
    for name, info in details.items():
        if name.startswith(f"{PARTS}/") and name not in needed and _age_h(info, now) >= min_age_h:
            yield name


def _age_h(info: Mapping[str, Any], now: datetime) -> float:
    """Hours since an object was written; 0 where the listing does not say."""
    moment = next((info[name] for name in TIMES if info.get(name)), now)
    written = moment if isinstance(moment, datetime) else datetime.fromtimestamp(float(moment), UTC)
    return _hours(now - (written if written.tzinfo else written.replace(tzinfo=UTC)))


def _hours(span: timedelta) -> float:
    return span.total_seconds() / 3600
