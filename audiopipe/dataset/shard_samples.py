"""Read the samples of a committed shard: the rows of its segments, and its tars from start to end."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import NoReturn

from audiopipe.dataset.commit import Commit
from audiopipe.dataset.schema import object_names
from audiopipe.dataset.tar_stream import HashingReader, read_members
from audiopipe.errors import VerifyError
from audiopipe.store.objects import Store
from audiopipe.store.parquet import read_table

__all__ = ["Sample", "SegmentRow", "ShardSamples"]


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """A segment of a shard, as far as scorers need it."""

    key: str
    video_id: str
    language: str
    shard: int
    duration_s: float
    text: str | None
    speaker: str | None
    audio_bytes: int | None

    @property
    def has_audio(self) -> bool:
        """True if a tar holds the segment: if it was kept, or with `keep_dropped`."""
        return self.audio_bytes is not None


@dataclass(frozen=True, slots=True)
class Sample:
    """A segment with audio: the number of its row, its encoded audio, and its text before marks were removed."""

    row: int
    audio: bytes = field(repr=False)
    raw_text: str | None


class ShardSamples:
    """The samples of a committed shard.

    Attributes:
        rows: its segments, in the order of the table.

    Raises:
        VerifyError: its table is missing or is not the one that was committed.
    """

    def __init__(self, store: Store, commit: Commit) -> None:
        self._store, self._shard = store, commit.result.shard
        names = object_names(commit.result.language, commit.result.index)
        self._objects = {item.name: item for item in commit.objects}
        self._tars = [item for item in commit.objects if item.name.endswith(".tar")]
        columns = [field.name for field in fields(SegmentRow)]
        table = read_table(self._read(names["segments"]), columns)
        self.rows = [SegmentRow(*row) for row in zip(*(table[name].to_pylist() for name in columns), strict=True)]

    @property
    def tar_bytes(self) -> int:
        """The size of the tars together."""
        return sum(tar.size for tar in self._tars)

    def _read(self, name: str) -> bytes:
        try:
            body = self._store.read(name)
        except FileNotFoundError:
            self._refuse(name, "is missing")
        if name not in self._objects or hashlib.sha256(body).hexdigest() != self._objects[name].sha256:
            self._refuse(name, "is not the one that was committed")
        return body

    def _refuse(self, name: str, problem: str) -> NoReturn:
        raise VerifyError(
            f"{name} {problem}; rebuild the shard with `audiopipe resume {self._store.url} --shard {self._shard}`, "
            "then run the same command again"
        )

    def refuse_sample(self, row: int, error: Exception) -> NoReturn:
        """Raise `VerifyError`, because the audio of a segment cannot be decoded."""
        names = " or ".join(tar.name for tar in self._tars)
        self._refuse(names, f"is damaged: segment {self.rows[row].key} cannot be decoded ({error})")

    def samples(self) -> Iterator[Sample]:
        """Read the tars in blocks, and yield the segments that have audio in their order.

        Raises:
            VerifyError: at the end or before, if a tar is not the one that was committed, or a segment is in none.
        """
        missing = {row.key: number for number, row in enumerate(self.rows) if row.has_audio}
        for tar in self._tars:
            reader = HashingReader(self._store.read_blocks(tar.name, tar.size))
            try:
                yield from self._read_samples(reader, missing)
                digest = reader.finish()
            except FileNotFoundError:
                self._refuse(tar.name, "is missing")
            except (tarfile.TarError, ValueError, KeyError) as error:
                self._refuse(tar.name, f"is damaged ({type(error).__name__}: {error})")
            if digest != tar.sha256:
                self._refuse(tar.name, "is damaged: it differs from the sha256 in its commit")
        if missing:
            names = " or ".join(tar.name for tar in self._tars) or f"the tar of {self._shard}"
            self._refuse(names, f"lacks {len(missing)} segments, such as {next(iter(missing))}")

    def _read_samples(self, reader: HashingReader, missing: dict[str, int]) -> Iterator[Sample]:
        """Yield the samples of a tar, and remove them from `missing`."""
        audio: dict[str, bytes] = {}
        for member in read_members(reader):
            key, _, suffix = member.name.partition(".")
            if suffix != "json":
                audio = {key: member.data}
                continue
            number, sidecar = missing.pop(key), json.loads(member.data)
            raw_text = None if self.rows[number].text is None else str(sidecar.get("raw_text") or "")
            yield Sample(number, audio[key], raw_text)
