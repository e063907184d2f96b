"""The commit protocol: exactly one of many attempts at a shard becomes the shard, whatever is killed and when.

1. An attempt uploads its objects to `_parts/<shard>/<attempt>/`, where no other attempt writes.
2. It creates `_commits/<shard>.json`, which names them with size and sha256. Creation fails if the object exists, so
   that one attempt wins. From here on the shard is decided.
3. Anyone may *publish* a commit: give each object its final name. Repeating this changes nothing.
4. The parts are removed.

An attempt that is killed before step 2 leaves parts that no commit names. If it is killed after step 2, the next
process that reads the commit publishes it. A straggler loses at step 2 and publishes the winner's objects, never its
own. `reopen_shard` is the only way back, for a shard whose objects were damaged or lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Set
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from audiopipe import __version__
from audiopipe.dataset.checksum import add_checksum, verify_checksum
from audiopipe.dataset.commit_pack import read_bodies, write_pack
from audiopipe.errors import StoreError, VerifyError
from audiopipe.store.objects import Store
from audiopipe.types import DeadLetter, ShardResult

__all__ = [
    "COMMITS",
    "Commit",
    "CommittedObject",
    "commit_name",
    "commit_shard",
    "list_commits",
    "part_name",
    "publish",
    "read_commit",
    "read_commits",
    "reopen_shard",
    "upload",
]

COMMITS = "_commits"


@dataclass(frozen=True, slots=True)
class CommittedObject:
    """An object of a shard: where it was uploaded, its final name, its size in bytes and its sha256."""

    part: str
    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Commit:
    """The decision which attempt is the shard.

    Attributes:
        source: digest of the objects that these were made from, where they are a shard's.
    """

    result: ShardResult
    objects: tuple[CommittedObject, ...]
    config_digest: str
    source: str | None = None

    @property
    def objects_digest(self) -> str:
        """16 hex digits of a SHA-256 over the names and digests of the objects."""
        text = "".join(f"{item.name} {item.sha256}\n" for item in sorted(self.objects, key=lambda item: item.name))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> bytes:
        """Serialize the commit with a checksum."""
        return add_checksum(
            {
                "shard": self.result.shard,
                "config_digest": self.config_digest,
                "version": __version__,
                "objects": [asdict(item) for item in self.objects],
                "result": asdict(self.result),
                **({} if self.source is None else {"source": self.source}),
            }
        )

    @classmethod
    def from_json(cls, data: bytes, name: str = "a commit") -> Commit:
        """Read what `to_json` wrote; raise `VerifyError` if a byte of it has changed."""
        body = verify_checksum(data, name)
        result = body["result"]
        letters = tuple(DeadLetter(**letter) for letter in result.pop("dead_letters"))
        objects = tuple(CommittedObject(**item) for item in body["objects"])
        return cls(ShardResult(**result, dead_letters=letters), objects, body["config_digest"], body.get("source"))


def commit_name(shard: str) -> str:
    """Return the name of a shard's commit in the output."""
    return f"{COMMITS}/{shard}.json"


def read_commit(store: Store, shard: str) -> Commit | None:
    """Read a shard's commit; return None if the shard is not committed."""
    try:
        return Commit.from_json(store.read(commit_name(shard)), commit_name(shard))
    except FileNotFoundError:
        return None


def list_commits(names: Iterable[str]) -> dict[str, str]:
    """Return the names of the commits among those of objects, by the shard in the name."""
    start, end = f"{COMMITS}/", ".json"
    return {name[len(start) : -len(end)]: name for name in names if name.startswith(start) and name.endswith(end)}


def read_commits(store: Store, planned: Set[str] | None = None, pack: bool = False) -> dict[str, Commit]:
    """Read the commits of an output by shard; raise `VerifyError` if one is damaged.

    Args:
        planned: names of the shards of the plan; commits of others, which a run must not count, are not read.
        pack: write many commits into one object for the next reader (`commit_pack.py`).
    """
    listed = store.list_details(COMMITS)
    names = [name for shard, name in list_commits(listed).items() if planned is None or shard in planned]
    bodies = read_bodies(store, names, listed)
    if pack:
        write_pack(store, listed, bodies)
    commits = [Commit.from_json(bodies[name], name) for name in names]
    return {commit.result.shard: commit for commit in commits}


def upload(store: Store, shard: str, attempt: str, files: Mapping[str, Path]) -> tuple[CommittedObject, ...]:
    """Upload an attempt's files (final name -> local path) to the folder where only this attempt writes."""
    return tuple(store.map(lambda item: _upload(store, shard, attempt, *item), files.items()))


def _upload(store: Store, shard: str, attempt: str, name: str, path: Path) -> CommittedObject:
    part = part_name(shard, attempt, name)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    store.upload(path, part)
    return CommittedObject(part, name, path.stat().st_size, digest)


def part_name(shard: str, attempt: str, name: str) -> str:
    """Return where an attempt uploads the object that is to have a final name."""
    return f"_parts/{shard}/{attempt}/{name.rsplit('/', 1)[-1]}"


def commit_shard(store: Store, commit: Commit, name: str | None = None) -> ShardResult:
    """Commit an uploaded attempt, unless another attempt was faster, and publish the shard.

    Args:
        name: of the commit; default: that of a shard of the dataset.

    Returns:
        The result of the attempt that is the shard: this one or the faster one.
    """
    winner, name = commit, name or commit_name(commit.result.shard)
    if not store.create(name, commit.to_json()):
        try:
            winner = Commit.from_json(store.read(name), name)
        except FileNotFoundError:
            raise StoreError(
                f"{name} disappeared from {store.url}: another program writes there; stop it, then resume the run"
            ) from None
    if winner.result.attempt != commit.result.attempt:
        _remove_parts(store, commit)
    publish(store, winner)
    return winner.result


def publish(store: Store, commit: Commit) -> None:
    """Give a commit's objects their final names, and remove its parts. Safe to repeat.

    Raises:
        VerifyError: an object is neither at its final name nor among the parts: it was lost after the commit.
    """
    store.map(partial(_publish, store, commit.result.shard), commit.objects)
    _remove_parts(store, commit)


def _publish(store: Store, shard: str, item: CommittedObject) -> None:
    try:
        store.publish(item.part, item.name, item.size)
    except FileNotFoundError:
        raise VerifyError(
            f"{item.name} is committed but missing; rebuild the shard with "
            f"`audiopipe resume {store.url} --shard {shard}`"
        ) from None


def _remove_parts(store: Store, commit: Commit) -> None:
    """Remove an attempt's parts; a remote store needs no listing for them, as the commit names them all."""
    if store.local_folder is not None:
        store.remove(f"_parts/{commit.result.shard}/{commit.result.attempt}")
    else:
        store.remove_all([item.part for item in commit.objects])


def reopen_shard(store: Store, shard: str, names: Iterable[str]) -> None:
    """Remove a shard's commit, then the objects of these names. No driver may be working on the shard."""
    store.remove_all([commit_name(shard)])
    store.remove_all(list(names))
