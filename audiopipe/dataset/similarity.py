"""Find similar fingerprints among very many: out of core, without comparing all pairs.

A copy shares a good part of its events exactly with the original, and events of different recordings are hardly ever
equal. So all events are sorted, and only videos that have events in common are compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from audiopipe.dataset.fingerprints import MAX_EVENTS, compare_events, unpack_events

__all__ = ["SimilarityIndex"]

# Fewer events in common are chance: two sentences in one voice may share one or two.
MIN_COMMON_EVENTS = 6
# Each video is compared with this many of the following videos that have an event in common with it. A re-upload shares
# many events with its original and follows it closely in most of them; a jingle that opens 10,000 videos does not make
# 50 million pairs.
NEIGHBORS = 4
# A short video has few events, so that one in common makes a candidate pair; of longer videos two are required.
FEW_EVENTS = 64
PAIRS_PER_BATCH = 256
SORT_MEMORY = "128MB"  # in the process of a driver, which must stay below 1 GB

Pairs = npt.NDArray[np.int64]


class SimilarityIndex:
    """Finds similar fingerprints, which are numbered in the order in which they are added.

    Args:
        folder: scratch folder for the events; 1 GB for 500,000 videos, and as much again while they are sorted.
    """

    def __init__(self, folder: Path) -> None:
        self.count = 0
        self._path = folder / "fingerprints"
        self._file = self._path.open("wb")
        self._database = duckdb.connect(folder / "events.duckdb")
        self._database.execute(f"SET memory_limit = '{SORT_MEMORY}'; SET preserve_insertion_order = false")
        self._database.execute("SET enable_progress_bar = false")
        self._database.execute(f"SET temp_directory = '{str(folder).replace(chr(39), chr(39) * 2)}/sorting'")
        self._database.execute("CREATE TABLE events (event UINTEGER, video INTEGER, few BOOLEAN)")

    def add(self, fingerprints: Iterable[bytes]) -> None:
        """Add fingerprints; they take the next numbers."""
        events = unpack_events(fingerprints)
        is_event = events >= 0
        sizes = is_event.sum(1)
        numbers = np.arange(self.count, self.count + len(events), dtype=np.int32)
        columns = {
            "event": events[is_event].astype(np.uint32),
            "video": np.repeat(numbers, sizes),
            "few": np.repeat(sizes < FEW_EVENTS, sizes),
        }
        self._database.register("added", pa.table(columns))
        self._database.execute("INSERT INTO events FROM added")
        self._database.unregister("added")
        self._file.write(events.tobytes())
        self.count += len(events)

    def pairs(self, min_similarity: float) -> Iterator[tuple[int, int]]:
        """Yield the numbers (lower, higher) of pairs with at least this similarity.

        Of three similar videos there may be two pairs only, which connect them.
        """
        self._file.flush()
        if not self.count:
            return
        candidates = self._database.execute(_candidate_query())
        while rows := candidates.fetchmany(PAIRS_PER_BATCH):
            pairs = np.array(rows, np.int64)
            values, common = self._compare(pairs)
            is_similar = (values >= min_similarity) & (common >= MIN_COMMON_EVENTS)
            yield from ((int(lower), int(higher)) for lower, higher in pairs[is_similar])

    def similarities(self, pairs: Pairs) -> npt.NDArray[np.float32]:
        """Compute [P] similarities of [P, 2] numbers."""
        batches = [pairs[start : start + PAIRS_PER_BATCH] for start in range(0, len(pairs), PAIRS_PER_BATCH)]
        values = [self._compare(batch)[0] for batch in batches]
        return np.concatenate(values or [np.zeros(0, np.float32)])

    def _compare(self, pairs: Pairs) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Compute [P] similarities and [P] numbers of common events of [P, 2] numbers."""
        events = np.memmap(self._path, np.int64, "r", shape=(self.count, MAX_EVENTS))
        return compare_events(events[pairs[:, 0]], events[pairs[:, 1]])

    def close(self) -> None:
        """Close the files; the folder can be removed then."""
        self._file.close()
        self._database.close()


def _candidate_query() -> str:
    """Return the SQL that selects pairs of videos worth comparing."""
    followers = ", ".join(f"lead(video, {step}) OVER same_event" for step in range(1, NEIGHBORS + 1))
    return f"""
        WITH matches AS (SELECT video, few, unnest([{followers}]) AS other FROM events
                         WINDOW same_event AS (PARTITION BY event ORDER BY video))
        SELECT video, other FROM matches WHERE other IS NOT NULL
        GROUP BY video, other HAVING count(*) >= 2 OR any_value(few)
    """
