"""Fingerprints as bytes, and which of very many are alike: out of core, and never every one against every other.

A copy shares a good part of its events with the original to the last bit, and events of different recordings hardly
ever are the same. So all events are sorted, those who have one in common are looked at, and only they are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from audiopipe.kernels.fingerprint import MAX_EVENTS, similarity

__all__ = ["SimilarityIndex", "pack_events", "unpack_events"]

# Fewer events in common are chance: two sentences in one voice may share one or two.
LEAST_COMMON = 6
# Videos with an event in common are compared with so many that follow. A re-upload shares many events with its
# original, and in most of them it is near; a jingle that opens 10,000 videos does not make 50 million pairs.
NEIGHBOURS = 4
# One exact event is enough to look at a short video, which has few; of longer ones two are asked for.
FEW_EVENTS = 64
PAIRS = 256
MEMORY = "512MB"

Events = npt.NDArray[np.int64]


def pack_events(events: torch.Tensor) -> bytes:
    """Events as `videos_*.parquet` holds them: little-endian uint32 in ascending order."""
    return events.numpy().astype("<u4").tobytes()


def unpack_events(fingerprints: Iterable[bytes]) -> Events:
    """Events of several, [N, MAX_EVENTS]; -1 where there are no more."""
    parts = [np.frombuffer(data, "<u4") for data in fingerprints]
    events = np.full((len(parts), MAX_EVENTS), -1, np.int64)
    for row, part in zip(events, parts, strict=True):
        row[: len(part)] = part
    return events


class SimilarityIndex:
    """Finds what is alike among fingerprints, which are numbered in the order in which they are added.

    Args:
        folder: scratch, where the events lie; 1 GB for 500,000 videos and as much again while they are sorted.
    """

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self._path = folder / "fingerprints"
        self._file = self._path.open("wb")
        self._database = duckdb.connect(folder / "events.duckdb")
        self._database.execute(f"SET memory_limit = '{MEMORY}'; SET preserve_insertion_order = false")
        self._database.execute("SET enable_progress_bar = false")
        self._database.execute(f"SET temp_directory = '{str(folder).replace(chr(39), chr(39) * 2)}/sorting'")
        self._database.execute("CREATE TABLE events (event UINTEGER, video INTEGER, few BOOLEAN)")

    def add(self, fingerprints: Iterable[bytes]) -> None:
        events = unpack_events(fingerprints)
        here = events >= 0
        sizes = here.sum(1)
        video = np.repeat(np.arange(self.count, self.count + len(events), dtype=np.int32), sizes)
        columns = {
            "event": events[here].astype(np.uint32),
            "video": video,
            "few": np.repeat(sizes < FEW_EVENTS, sizes),
        }
        self._database.register("added", pa.table(columns))
        self._database.execute("INSERT INTO events FROM added")
        self._database.unregister("added")
        self._file.write(events.tobytes())
        self.count += len(events)

    def pairs(self, least: float) -> Iterator[tuple[int, int]]:
        """The numbers (lower, higher) of those whose similarity is at least `least`. Of three that are alike perhaps
        two pairs only, which join them."""
        self._file.flush()
        if not self.count:
            return
        found = self._database.execute(_candidates())
        while chunk := found.fetchmany(PAIRS):
            pairs = np.array(chunk, np.int64)
            share, common = self._compared(pairs)
            good = ((share >= least) & (common >= LEAST_COMMON)).numpy()
            yield from ((int(one), int(other)) for one, other in pairs[good])

    def similarities(self, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """[P, 2] numbers to [P] similarities."""
        parts = [self._compared(pairs[start : start + PAIRS])[0] for start in range(0, len(pairs), PAIRS)]
        return np.concatenate([part.numpy() for part in parts] or [np.zeros(0)]).astype(np.float32)

    def _compared(self, pairs: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        events = np.memmap(self._path, np.int64, "r", shape=(self.count, MAX_EVENTS))
        return similarity(torch.from_numpy(events[pairs[:, 0]]), torch.from_numpy(events[pairs[:, 1]]))

    def close(self) -> None:
        self._file.close()
        self._database.close()


def _candidates() -> str:
    next_ones = ", ".join(f"lead(video, {step}) OVER same" for step in range(1, NEIGHBOURS + 1))
    return f"""
        WITH met AS (SELECT video, few, unnest([{next_ones}]) AS other FROM events
                     WINDOW same AS (PARTITION BY event ORDER BY video))
        SELECT video, other FROM met WHERE other IS NOT NULL
        GROUP BY video, other HAVING count(*) >= 2 OR any_value(few)
    """
