"""Read columns of a table at any fsspec URL: Parquet, CSV, TSV, or JSON (lines, or one list of objects).

CSV has no types. What a run uses is read as text; a further column is a number or a flag where
every value of it is written as one (`infer_type`).
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import IO, Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from audiopipe.catalog.local_files import check_regular
from audiopipe.catalog.read_errors import READ_ERRORS, to_catalog_error
from audiopipe.redaction import without_query
from audiopipe.store.objects import open_filesystem

__all__ = ["base_url", "infer_type", "iterate_json", "open_text", "read_names", "read_table", "table_format"]

TABLE_SUFFIX = re.compile(r"\.(parquet|pq|csv|tsv|jsonl|ndjson|json)(?:\.(?:gz|bz2|xz|zst))?$", re.IGNORECASE)
SAMPLE_ROWS = 1000  # of JSON lines, whose names of columns are known before the rest is read

# A field of a TSV that starts with a quote and is not quoted as a whole: the file has no quoting, as Common Voice's.
BARE_QUOTE = re.compile(rb'(?:^|\t)"(?!(?:[^"\n]|"")*"(?:\t|\r?$))', re.MULTILINE)
# A number in the one way that it is written back: '007' and '1e3' are texts.
WHOLE_NUMBER = r"^(0|-?[1-9]\d{0,17})$"
NUMBER = r"^-?(0|[1-9]\d{0,14})(\.\d{1,15})?$"

Row: TypeAlias = dict[str, Any]
# Chooses columns: gets the names that a table has, and returns whether one of these, or a later one, is to be read.
Choose: TypeAlias = Callable[[Sequence[str]], Callable[[str], bool]]


def table_format(url: str) -> str | None:
    """Return 'parquet', 'csv', … if the address ends like that of a table."""
    match = TABLE_SUFFIX.search(without_query(url))
    return match and match[1].lower()


def base_url(url: str) -> tuple[str, bool]:
    """Return the folder of a table, with a slash at its end, and whether it is on this machine."""
    fs, path = open_filesystem(url)
    is_local = isinstance(fs, LocalFileSystem)
    return (path if is_local else without_query(url)).rpartition("/")[0] + "/", is_local


def read_table(url: str, choose: Choose, typed: Callable[[str], bool] = lambda _: False) -> pa.Table:
    """Read the chosen columns of a table, in the order of its rows.

    Args:
        typed: whether a column keeps its type: in JSON that of its values. Others are read as text.

    Raises:
        CatalogError, StoreError, PermanentStoreError: the table cannot be read; whatever `choose` raises.
    """
    table_kind = table_format(url)
    try:
        with open_text(url) as file:
            if table_kind in ("parquet", "pq"):
                return _read_parquet(file, choose)
            if table_kind in ("csv", "tsv"):
                return _read_csv(file, table_kind == "tsv", choose)
            return _read_json(file, choose, typed)
    except READ_ERRORS as error:
        remedy = f"check the address, the access to it, and that it is {table_kind}"
        raise to_catalog_error(url, "read", error, remedy) from error


def read_names(url: str) -> list[str]:
    """Return the names of a table's columns; of JSON, those of the first rows.

    Raises:
        CatalogError, StoreError, PermanentStoreError: as `read_table`.
    """
    names: list[str] = []

    def choose(columns: Sequence[str]) -> Callable[[str], bool]:
        names.extend(columns)
        raise _NamesKnown

    with suppress(_NamesKnown):
        read_table(url, choose)
    return names


class _NamesKnown(Exception):
    """Ends the reading of a table of which only the names of columns are needed."""


def open_text(url: str) -> IO[bytes]:
    """Open a file of a catalog, decompressed; a pipe or a device, which could block, is a `ValueError`."""
    fs, path = open_filesystem(url)
    if isinstance(fs, LocalFileSystem):
        check_regular(path)
    file: IO[bytes] = fs.open(path, "rb", compression="infer")
    return file


def _read_parquet(file: IO[bytes], choose: Choose) -> pa.Table:
    stored = pq.ParquetFile(file)
    names = stored.schema_arrow.names
    # In this thread only: see `audiopipe.store.parquet`.
    return stored.read([*filter(choose(names), names)], use_threads=False)


def _read_csv(file: IO[bytes], is_tsv: bool, choose: Choose) -> pa.Table:
    """Read every column as text: an id may consist of digits, and a bad number is reported later with its row."""
    data = file.read()
    header = data[:65536].partition(b"\n")[0].decode("utf-8-sig").rstrip("\r")
    delimiter = "\t" if is_tsv else _find_delimiter(header)
    quote: str | bool = False if is_tsv and BARE_QUOTE.search(data) else '"'
    names = header.split("\t") if quote is False else next(csv.reader([header], delimiter=delimiter), [])
    is_chosen = choose(names)
    return pa.csv.read_csv(
        io.BytesIO(data),
        parse_options=pa.csv.ParseOptions(delimiter=delimiter, quote_char=quote, newlines_in_values=quote is not False),
        convert_options=pa.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), include_columns=[*filter(is_chosen, names)]
        ),
    )


def _find_delimiter(header: str) -> str:
    """Return the delimiter of a CSV: a comma, or else another usual one that its first line has."""
    return next((mark for mark in (",", "\t", ";", "|") if mark in header), ",")


def iterate_json(file: Iterable[bytes]) -> Iterator[tuple[int, Row]]:
    """Yield the number and the content of each object of JSON lines, or of one list of objects.

    Raises:
        ValueError: a line is not a JSON object.
    """
    lines = iter(file)
    first = next((line for line in lines if line.strip()), b"")
    items: Iterable[tuple[int, object]]
    if first.lstrip().startswith(b"["):
        items = enumerate(json.loads(first + b"".join(lines)), 1)
    else:
        numbered = enumerate(itertools.chain([first], lines), 1)
        items = ((number, json.loads(line)) for number, line in numbered if line.strip())
    for number, row in items:
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is not a JSON object")
        yield number, row


def _read_json(file: Iterable[bytes], choose: Choose, typed: Callable[[str], bool]) -> pa.Table:
    """Read JSON with Python's parser, because Arrow's parses ids that look like dates as dates."""
    rows = iterate_json(file)
    sample = list(itertools.islice(rows, SAMPLE_ROWS))
    is_chosen = choose(list(dict.fromkeys(name for _, row in sample for name in row)))
    columns: dict[str, list[Any]] = {}
    for count, (number, row) in enumerate(itertools.chain(sample, rows)):
        for name in row:
            if name not in columns and is_chosen(name):
                columns[name] = [None] * count
        for name, values in columns.items():
            value = row.get(name)
            values.append(value if typed(name) else _to_text(value, name, number))
    return pa.table({name: _to_array(name, values, typed(name)) for name, values in columns.items()})


def _to_array(name: str, values: list[Any], is_typed: bool) -> pa.Array:
    if not is_typed:
        return pa.array(values, pa.string())
    try:
        return pa.array(values)
    except pa.ArrowException as error:
        raise ValueError(f"column {name!r} has values of several types: {error}") from None


def _to_text(value: object, column: str, line: int) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"line {line}, column {column!r}: {value!r} is neither text nor a number")


def infer_type(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of texts as whole numbers, numbers or flags where each value is written as one; empty is null."""
    filled = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    values = filled.drop_null()
    if not len(values):
        return filled
    if pc.all(pc.match_substring_regex(values, WHOLE_NUMBER)).as_py():
        return filled.cast(pa.int64())
    if pc.all(pc.match_substring_regex(values, NUMBER)).as_py():
        return filled.cast(pa.float64())
    if pc.all(pc.is_in(pc.utf8_lower(values), pa.array(["true", "false"]))).as_py():
        return pc.equal(pc.utf8_lower(filled), "true")
    return filled
