"""Read a dataset: its tables by SQL, its audio segment by segment.

A dataset can be read at any fsspec URL, during a run (what is committed so far) and after it. Tables are scanned by
DuckDB, which reads only the columns and rows that a query needs; the audio of a segment is one ranged read of its tar.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from audiopipe.dataset.convert import to_huggingface, to_lhotse
from audiopipe.dataset.database import checked
from audiopipe.dataset.features import NOT_EXPORTED
from audiopipe.dataset.segment import Segment
from audiopipe.dataset.sql import quote_text
from audiopipe.dataset.tables import TAR_ORDER, DatasetTables
from audiopipe.dataset.virtual import tar_name

if TYPE_CHECKING:
    import datasets
    from lhotse import CutSet

    from audiopipe.dataset.stream import SegmentStream

__all__ = ["Dataset", "Segment"]

ROWS_PER_READ = 1024  # rows of a table that an iteration holds at a time
# The order of samples: random by the hash of seed and segment, the same for any order of rows.
SAMPLE_ORDER = "md5({seed} || ':' || language || '/' || key)"
BUFFER_SHUFFLED, BUFFER_ORDERED = 1024, 64


class Dataset(DatasetTables):
    """The segments of an output, or of those a condition holds for.

        dataset = Dataset("s3://speech/en")
        for segment in dataset.filter("snr_db > 20"):
            segment.audio, segment.text, segment.metrics["loudness_lufs"]

    Iteration and `len` count kept segments, which have audio; the tables have the dropped ones too, with their reason.
    What is committed is listed once; `refresh` lists it again during a run.

    Raises:
        VerifyError: the address does not hold the output of a run, or it is damaged.
    """

    def __repr__(self) -> str:
        chosen = f".filter({' AND '.join(self.conditions)!r})" if self.conditions else ""
        return f"Dataset({self.url!r}){chosen}: {len(self):,} segments of {len(self.commits):,} shards"

    def __len__(self) -> int:
        return sum(self.count_by_shard().values())

    def __iter__(self) -> Iterator[Segment]:
        """Iterate over the kept segments in the order of their tars."""
        with self._connect() as connection:
            rows = connection.table("segments").filter("kept").order(TAR_ORDER)
            reader = checked(lambda: rows.to_arrow_reader(ROWS_PER_READ))
            while (batch := checked(lambda: next(reader, None))) is not None:
                for row in batch.to_pylist():
                    yield self.segment_of(row)

    def __getitem__(self, key: str) -> Segment:
        """Return the segment with a key, kept or dropped; raises KeyError if the view has none."""
        rows = self.segments(where=f"key = {quote_text(key)}").to_pylist()
        if not rows:
            raise KeyError(key)
        return self.segment_of(rows[0])

    def sample(self, n: int, seed: int = 0) -> list[Segment]:
        """Draw kept segments at random, without replacement: all of them if there are at most `n`.

        The same dataset and seed give the same segments in the same order.
        """
        with self._connect() as connection:
            rows = connection.table("segments").filter("kept").order(SAMPLE_ORDER.format(seed=int(seed)))
            table = checked(lambda: rows.limit(n).to_arrow_table())
            return [self.segment_of(row) for row in table.to_pylist()]

    def iterate(
        self,
        shuffle: bool = False,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        worker: tuple[int, int] | None = None,
        columns: Sequence[str] | None = None,
        buffer: int | None = None,
        threads: int = 4,
        drop_last: bool = False,
    ) -> SegmentStream:
        """Return the kept segments as a `torch.utils.data.IterableDataset`, for a DataLoader.

        Ranks and workers get parts that have no segment in common and miss none. Audio is read ahead, in large ranges.

        Args:
            shuffle, seed: mix the shards, blocks of 32 neighbors within 8 shards, and the segments within `buffer`.
                `set_epoch` of the stream changes the order.
            rank, world_size: of this process; each by default that of torch.distributed or torchrun, else 0 and 1.
            worker: the number of a reader in this rank, and of how many; by default the worker of the DataLoader.
            columns: those to read, for speed; by default all.
            buffer: segments that are read together and mixed; 1024 if shuffled, else 64. A worker holds three times as
                many in memory, encoded.
            threads: concurrent reads of a worker.
            drop_last: leave out up to one segment less than there are readers, so that all get the same number.

        Raises:
            ConfigError: `columns` names an unknown column, or an argument is out of range.
        """
        # torch takes seconds to import, and reading tables or segments does not need it.
        from audiopipe.dataset.stream import SegmentStream, StreamOptions, find_rank, stream_columns  # noqa: PLC0415

        rank, world_size = find_rank(rank, world_size)
        if buffer is None:
            buffer = BUFFER_SHUFFLED if shuffle else BUFFER_ORDERED
        names = stream_columns(columns, self.columns)
        options = StreamOptions(shuffle, seed, rank, world_size, worker, buffer, threads, drop_last, names)
        return SegmentStream(self, options)

    def to_lhotse(self) -> CutSet:
        """Return the kept segments as a lazy `CutSet` of Lhotse, with text, speaker and language in supervisions.

        Each iteration reads the audio from the dataset, ahead, in large ranges. The metrics are in `custom`.

        Raises:
            MissingExtra: Lhotse is not installed.
        """
        return to_lhotse(self)

    def to_huggingface(
        self, columns: Sequence[str] | None = None, cache_dir: str | os.PathLike[str] | None = None
    ) -> datasets.Dataset:
        """Return the kept segments as a `datasets.Dataset` of Hugging Face, with the audio in the feature `Audio`.

        The audio is copied once, as it is encoded, into Arrow files that are mapped into memory. To decode it, the
        library needs torchcodec and the shared libraries of FFmpeg; `cast_column("audio", Audio(decode=False))` gives
        the encoded bytes without them.

        Args:
            columns: those to have next to `audio`; by default all that describe the segment.
            cache_dir: the folder of the files; by default the cache of the library.

        Raises:
            MissingExtra: datasets is not installed.
        """
        names = columns if columns is not None else [name for name in self.columns if name not in NOT_EXPORTED]
        return to_huggingface(self, names, cache_dir)

    def segment_of(self, row: dict[str, Any], data: bytes | None = None) -> Segment:
        """Make a segment of a row of the table; `data` is its encoded audio, if it was read already."""
        return Segment(row, self.scores, self.store, data)

    def place_of(self, row: Mapping[str, Any]) -> tuple[str, int, int]:
        """Return the name of the tar that has the audio of a kept segment, and the offset and size of it there."""
        return tar_name(row), int(row["tar_offset"]), int(row["audio_bytes"])
