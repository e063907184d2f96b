"""Define what an export format is: how it writes a shard, and the files that describe all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from audiopipe.dataset.checksum import add_checksum, verify_checksum
from audiopipe.dataset.features import NOT_EXPORTED
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.segment import Segment
from audiopipe.media.encode import SUFFIXES

__all__ = ["ExportFormat", "ExportedShard", "SourceShard"]


@dataclass(frozen=True, slots=True)
class SourceShard:
    """The kept segments of a shard, or of one split in it. `version` is a digest of what it has."""

    name: str
    language: str
    number: int
    split: str
    count: int
    seconds: float
    version: str

    @property
    def id(self) -> str:
        """The name of its record; a shard of a virtual selection may have several splits."""
        return f"{self.name}-{self.split}"


@dataclass(frozen=True, slots=True)
class ExportedShard:
    """A shard that was exported, and its files with name, size, sha256 and number of samples."""

    id: str
    language: str
    split: str
    version: str
    seconds: float
    files: tuple[Mapping[str, Any], ...]

    def to_json(self) -> bytes:
        """Serialize the record with a checksum."""
        return add_checksum(asdict(self))

    @classmethod
    def from_json(cls, data: bytes, name: str) -> ExportedShard:
        """Read what `to_json` wrote; raise `VerifyError` if a byte of it has changed."""
        body = verify_checksum(data, name)
        return cls(**{**body, "files": tuple(body["files"])})


class ExportFormat(ABC):
    """A format; one instance writes one dataset. Its methods are called from several threads."""

    name: ClassVar[str]
    in_place: ClassVar[bool] = False  # it adds files to the dataset instead of writing another one

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.sample_rate = int(dataset.run.config["sample_rate"] or 0)
        self.suffix = SUFFIXES[dataset.run.audio_format]
        self.columns = [name for name in dataset.columns if name not in NOT_EXPORTED]

    def segments(self, shard: SourceShard) -> Iterator[Segment]:
        """Yield the kept segments of a shard in the order of its tar, with their audio."""
        dataset = self.dataset.select_shards([shard.name])
        if "split" in self.columns:
            dataset = dataset.filter(f"coalesce(split, 'train') = '{shard.split}'")
        yield from dataset.iterate(rank=0, world_size=1, worker=(0, 1), threads=1)

    def values(self, segment: Segment) -> dict[str, Any]:
        """Return the exported columns of a segment."""
        return {name: segment.row[name] for name in self.columns}

    @abstractmethod
    def write_shard(self, shard: SourceShard, folder: Path) -> Mapping[str, int]:
        """Write the files of a shard below a folder; return their names there and the number of samples of each.

        The same shard gives the same bytes, and memory does not grow with its size.
        """

    @abstractmethod
    def describe(self, shards: Sequence[ExportedShard]) -> Mapping[str, bytes]:
        """Return the files that describe the whole export, by name. They are written last."""
