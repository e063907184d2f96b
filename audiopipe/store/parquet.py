"""Read Parquet files that are in memory as bytes.

Arrow's threads may hold Python's bytes a little longer than the reader. If the process ends in that moment, a thread
releases them after the interpreter was finalized, and C++ aborts the process ("terminate called without an active
exception"). Therefore files are read in the calling thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["read_table"]


def read_table(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Read all rows of a file, with all or the given columns.

    Raises:
        pyarrow.ArrowException, OSError: the bytes are not a Parquet file.
    """
    with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
        return file.read(columns=list(columns) if columns is not None else None, use_threads=False)
