import io
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from audiopipe.store.parquet import read_table

TIMES = 12
# Ends right after reading, with all imports of a command, so that the interpreter takes a while to finalize.
PROGRAM = """
import sys, audiopipe.cli, audiopipe.pipeline.shard
from audiopipe.store.parquet import read_table
read_table(open(sys.argv[1], "rb").read())
"""


def encode(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def test_rows_columns_and_metadata_are_read() -> None:
    table = pa.table({"a": range(1000), "b": [str(i) for i in range(1000)]}).replace_schema_metadata({"key": "x"})
    assert read_table(encode(table)).equals(table, check_metadata=True)
    assert read_table(encode(table), ["b"]).column_names == ["b"]


@pytest.mark.parametrize("data", [b"", b"PAR1 no PAR1", b"x" * 100])
def test_invalid_parquet_is_an_arrow_error(data: bytes) -> None:
    with pytest.raises((pa.ArrowException, OSError)):
        read_table(data)


@pytest.mark.slow
def test_a_process_can_end_right_after_reading(tmp_path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(encode(pa.table({name: [str(i) for i in range(20)] for name in "abcdefgh"})))
    for _ in range(TIMES):
        done = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], check=False, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
