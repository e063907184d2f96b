"""Write a WebDataset tar of samples whose bytes depend on the samples alone."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from audiopipe.dataset.sample_order import SampleOrder

__all__ = ["SampleTar"]

TAR_BUFFER_BYTES = 1 << 18  # tarfile alone would write 16 KB at a time

T = TypeVar("T")


class SampleTar(Generic[T]):
    """Appends samples to a tar: in the order in which they come, but for the first five (`sample_order.py`).

    Args:
        write: called for each sample in its turn; it appends the members.
        numbers: the columns of numbers.
    """

    def __init__(self, path: Path, write: Callable[[SampleTar[T], T], None], numbers: Sequence[str]) -> None:
        self.samples = 0
        self._write = write
        self._order: SampleOrder[T] = SampleOrder(numbers)
        self._file = path.open("wb", buffering=TAR_BUFFER_BYTES)
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115 - finish() closes it

    def add(self, sample: T, present: Iterable[str]) -> None:
        """Take the next sample.

        Args:
            present: the columns that have a value in it.
        """
        self.samples += 1
        for ready in self._order.add(sample, present):
            self._write(self, ready)

    def append(self, name: str, data: bytes) -> int:
        """Append a member; return the offset of its data. A USTAR header is one block."""
        member = tarfile.TarInfo(name)
        member.size = len(data)
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(member, io.BytesIO(data))
        return offset

    def finish(self) -> None:
        """Write the samples that were held back, and the end of the tar."""
        for sample in self._order.finish():
            self._write(self, sample)
        self._tar.close()
        self._file.close()

    def close(self) -> None:
        """Close the file, finished or not."""
        self._file.close()
