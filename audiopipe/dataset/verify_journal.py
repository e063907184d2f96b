"""Remember which shards of an output are verified, so that an interrupted verification continues.

The journal is a local file of JSON lines, one for each shard without a finding. It names the attempt that was read: a
shard that was processed again since is read again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs

from audiopipe.dataset.commit import Commit

__all__ = ["JournalEntry", "VerifyJournal", "default_journal"]


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A verified shard: its attempt, and how many objects and samples were read."""

    shard: str
    attempt: str
    objects: int
    samples: int


def default_journal(root: str) -> Path:
    """Return the path of the journal of an output, in this user's state folder.

    Args:
        root: the output's path on its file system, which is absolute.
    """
    name = hashlib.sha256(root.encode()).hexdigest()[:16]
    return platformdirs.user_state_path("audiopipe") / f"verify-{name}.jsonl"


class VerifyJournal:
    """The journal of one verification.

    Args:
        path: the file; None for a verification that keeps none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def read(self, commits: Mapping[str, Commit]) -> dict[str, JournalEntry]:
        """Return the entries of shards whose commits are those that were verified."""
        entries: dict[str, JournalEntry] = {}
        if self._path is None or not self._path.exists():
            return entries
        for line in self._path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError, TypeError):  # the last line of a killed process may be cut
                entry = JournalEntry(**json.loads(line))
                commit = commits.get(entry.shard)
                if commit is not None and commit.result.attempt == entry.attempt:
                    entries[entry.shard] = entry
        return entries

    def record(self, entry: JournalEntry) -> None:
        """Append an entry."""
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(entry)) + "\n")

    def remove(self) -> None:
        """Remove the file: the verification is complete, and the next one reads everything again."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
