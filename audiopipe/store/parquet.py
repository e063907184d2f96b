"""Parquet files that are in memory as bytes.

Arrow's own threads may hold Python's bytes a little longer than a reader does. If a command ends in that moment, a
thread that wants to let go of them meets an interpreter that is gone, and C++ aborts the process ("terminate called
without an active exception"). So these are read by the thread that asks.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["read_table"]


def read_table(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a file, or some of its columns.

    Raises:
        pyarrow.ArrowException, OSError: they are no Parquet file.
    """
    with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
        return file.read(columns=list(columns) if columns is not None else None, use_threads=False)
