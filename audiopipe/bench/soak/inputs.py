"""Make the catalog of a soak: the videos of a corpus, again and again under new ids."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from audiopipe.dataset.commit import read_commits
from audiopipe.errors import ConfigError
from audiopipe.store.objects import Store

__all__ = ["SoakInput", "measure_rate", "source_of"]

FOLDER = "corpus"


@dataclass(frozen=True)
class SoakInput:
    """The rows of a corpus that a soak repeats.

    Each language has a multiple of `shard_videos` of them, so that every shard has the videos of one of the first
    shards, in the same order and with the same batches.
    """

    folder: Path
    rows: pa.Table
    shard_videos: int

    @classmethod
    def of(cls, catalog: Path, shard_videos: int) -> SoakInput:
        """Read the finished videos of a corpus.

        Raises:
            ConfigError: no language has enough videos for a shard.
        """
        table = pq.read_table(catalog)
        table = table.filter(pc.equal(table["status"], "COMPLETED")).sort_by(
            [("language", "ascending"), ("youtube_id", "ascending")]
        )
        parts = []
        for language in pc.unique(table["language"]).to_pylist():
            rows = table.filter(pc.equal(table["language"], language))
            parts.append(rows.slice(0, rows.num_rows // shard_videos * shard_videos))
        rows = pa.concat_tables(parts)
        if not rows.num_rows:
            raise ConfigError(f"{catalog}: no language has {shard_videos} finished videos")
        return cls(catalog.parent, rows, shard_videos)

    @property
    def videos(self) -> int:
        """The number of videos that are repeated."""
        return int(self.rows.num_rows)

    @property
    def megabytes(self) -> float:
        """The size of the sources that have one."""
        return float(pc.sum(self.rows["size_bytes"]).as_py() or 0) / 1e6

    def ids(self, repeats: int) -> list[str]:
        """Return the ids of a catalog. Their order is that of the rows, so that a plan keeps it."""
        return [f"{repeat:06d}-{number:04d}" for repeat in range(repeats) for number in range(self.videos)]

    def upload(self, store: Store) -> None:
        """Upload the videos that exist."""
        for key in self.rows["r2_tar_key"].to_pylist():
            path = self.folder / key
            if path.is_file():
                store.upload(path, f"{FOLDER}/{key}")

    def write_catalog(self, store: Store, name: str, repeats: int) -> str:
        """Write a catalog with each row `repeats` times, and return its address."""
        index = self.rows.schema.get_field_index("youtube_id")
        table = pa.concat_tables([self.rows] * repeats).set_column(index, "youtube_id", pa.array(self.ids(repeats)))
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        store.write(f"{FOLDER}/{name}.parquet", sink.getvalue().to_pybytes())
        return f"{store.url}/{FOLDER}/{name}.parquet"


def source_of(video_id: str) -> str:
    """Return the part of an id that names its source."""
    return video_id.rpartition("-")[2]


def measure_rate(output: Store) -> float:
    """Return the videos per minute of a run after its first shard, which waits for the driver's start."""
    results = [commit.result for commit in read_commits(output).values()]
    ends = sorted(datetime.fromisoformat(result.finished_at) for result in results)
    videos = sum(result.videos for result in results)
    return 60 * videos * (1 - 1 / len(ends)) / max((ends[-1] - ends[0]).total_seconds(), 1e-3)
