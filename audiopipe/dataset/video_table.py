"""Hold the videos of a whole dataset in tables, of which few are looked at."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import pyarrow as pa

from audiopipe.types import Seconds

__all__ = ["COLUMNS", "FingerprintedVideo", "VideoTable"]

COLUMNS = ["video_id", "language", "shard", "segments_kept", "duration_s"]


@dataclass(frozen=True, slots=True)
class FingerprintedVideo:
    """A video with a fingerprint. `has_samples`: at least one of its segments was kept."""

    video_id: str
    language: str
    shard: int
    has_samples: bool
    duration_s: Seconds

    @property
    def sort_key(self) -> tuple[bytes, str]:
        """The order of videos: by the UTF-8 bytes of their ids."""
        return self.video_id.encode(), self.language


class VideoTable:
    """Videos by number, in tables of `COLUMNS`, because few of very many have a duplicate and are looked at."""

    def __init__(self) -> None:
        self._tables: list[pa.Table] = []
        self._starts: list[int] = []
        self._count = 0
        self._created: dict[int, FingerprintedVideo] = {}

    def add(self, table: pa.Table) -> None:
        """Add the rows of a table, which take the next numbers."""
        self._tables.append(table)
        self._starts.append(self._count)
        self._count += table.num_rows

    def __getitem__(self, number: int) -> FingerprintedVideo:
        if number not in self._created:
            position = bisect_right(self._starts, number) - 1
            row = self._tables[position].slice(number - self._starts[position], 1).to_pylist()[0]
            kept = row.pop("segments_kept") > 0
            self._created[number] = FingerprintedVideo(**row, has_samples=kept)
        return self._created[number]
