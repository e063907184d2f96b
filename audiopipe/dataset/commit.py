"""The commit protocol: of many attempts at a shard exactly one becomes the shard, whatever is killed and when.

1. An attempt uploads its objects to `_parts/<shard>/<attempt>/`, where nobody else writes.
2. It creates `_commits/<shard>.json`, which names them with size and sha256. Creation fails if the object exists, so
   that one attempt wins. From here on the shard is decided.
3. Anyone may *publish* a commit: give each object its final name. Doing it again changes nothing.
4. The parts are removed.

A process killed before 2 leaves parts that no commit names; killed after 2, the next one to meet the commit
publishes it. A straggler loses at 2 and publishes the winner's objects, never its own. `withdraw` is the one way back:
it opens a shard again whose objects were damaged or lost.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from audiopipe import __version__
from audiopipe.errors import StoreError, VerifyError
from audiopipe.store.objects import Store
from audiopipe.types import DeadLetter, ShardResult

__all__ = [
    "COMMITS",
    "Commit",
    "CommittedObject",
    "add_checksum",
    "commit_name",
    "commit_shard",
    "publish",
    "read_commit",
    "reopen_shard",
    "upload",
    "verify_checksum",
]

COMMITS = "_commits"


@dataclass(frozen=True, slots=True)
class CommittedObject:
    """One object of a shard: where it was uploaded, its final name, and what it must be."""

    part: str
    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Commit:
    """The decision about one shard."""

    result: ShardResult
    objects: tuple[CommittedObject, ...]
    config_digest: str

    def to_json(self) -> bytes:
        return add_checksum(
            {
                "shard": self.result.shard,
                "config_digest": self.config_digest,
                "version": __version__,
                "objects": [asdict(item) for item in self.objects],
                "result": asdict(self.result),
            }
        )

    @classmethod
    def from_json(cls, data: bytes, name: str = "a commit") -> Commit:
        """Read a commit; `VerifyError` if these are not the bytes that `to_json` wrote."""
        body = verify_checksum(data, name)
        result = body["result"]
        letters = tuple(DeadLetter(**letter) for letter in result.pop("dead_letters"))
        objects = tuple(CommittedObject(**item) for item in body["objects"])
        return cls(ShardResult(**result, dead_letters=letters), objects, body["config_digest"])


def add_checksum(body: dict[str, Any]) -> bytes:
    """A JSON object with the sha256 of its own text: what the rest of an output is checked against has no other."""
    text = json.dumps(body, indent=1, ensure_ascii=False)
    return json.dumps(body | {"sha256": _digest(text)}, indent=1, ensure_ascii=False).encode()


def verify_checksum(data: bytes, name: str) -> dict[str, Any]:
    """What was sealed, without the seal. Raises `VerifyError` if a byte of it has changed."""
    try:
        body: dict[str, Any] = json.loads(data)
        if data == add_checksum({key: value for key, value in body.items() if key != "sha256"}):
            return body
    except (ValueError, AttributeError):
        pass
    raise VerifyError(f"{name} is damaged: it is not what was written; `audiopipe verify OUTPUT` says what mends it")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def commit_name(shard: str) -> str:
    """The name of a shard's commit in the output."""
    return f"{COMMITS}/{shard}.json"


def read_commit(store: Store, shard: str) -> Commit | None:
    """A shard's commit, None if the shard is still open."""
    try:
        return Commit.from_json(store.read(commit_name(shard)), commit_name(shard))
    except FileNotFoundError:
        return None


def upload(store: Store, shard: str, attempt: str, files: Mapping[str, Path]) -> tuple[CommittedObject, ...]:
    """Upload an attempt's files (final name -> local path) to where only this attempt writes."""
    return tuple(_upload(store, path, f"_parts/{shard}/{attempt}", name) for name, path in files.items())


def _upload(store: Store, path: Path, folder: str, name: str) -> CommittedObject:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    part = f"{folder}/{name.rsplit('/', 1)[-1]}"
    store.upload(path, part)
    return CommittedObject(part, name, path.stat().st_size, digest)


def commit_shard(store: Store, mine: Commit) -> ShardResult:
    """Commit an uploaded attempt and publish the shard.

    Returns:
        The result of the attempt that is the shard: this one, or the one that was faster.
    """
    shard, winner = mine.result.shard, mine
    if not store.create(commit_name(shard), mine.to_json()):
        found = read_commit(store, shard)
        if found is None:
            raise StoreError(f"the commit of {shard} was there and is gone: only audiopipe may write there")
        winner = found
    if winner.result.attempt != mine.result.attempt:
        store.remove(_parts(mine.result))
    publish(store, winner)
    return winner.result


def publish(store: Store, commit: Commit) -> None:
    """Give a commit's objects their final names, and remove its parts. Safe to repeat.

    Raises:
        VerifyError: an object is neither at its final name nor among the parts: it was lost after the commit.
    """
    for item in commit.objects:
        try:
            store.publish(item.part, item.name, item.size)
        except FileNotFoundError:
            raise VerifyError(
                f"{item.name} is committed and gone; `audiopipe resume {store.url} --shard {commit.result.shard}` "
                "makes the shard again"
            ) from None
    store.remove(_parts(commit.result))


def _parts(result: ShardResult) -> str:
    return f"_parts/{result.shard}/{result.attempt}"


def reopen_shard(store: Store, shard: str, names: Iterable[str]) -> None:
    """Open a shard again: remove its commit, then the objects of these names. Nobody may be working on it."""
    store.remove_all([commit_name(shard)])
    store.remove_all(list(names))
