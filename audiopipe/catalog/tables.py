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

# Files with these delimiters may have no quoting, as Common Voice's: a value then may start with a quote.
UNQUOTED = ("\t", "|")
BOM = b"\xef\xbb\xbf"
# '007' and '1e3' are texts: as numbers they would be written back in another way.
WHOLE_NUMBER = r"^(0|-?[1-9]\d{0,17})$"
NUMBER = r"^-?(0|[1-9]\d{0,14})(\.\d{1,20})?$"

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
    return stored.read(_choose_once(names, choose), use_threads=False)


def _read_csv(file: IO[bytes], is_tsv: bool, choose: Choose) -> pa.Table:
    """Read every column as text: an id may consist of digits, and a bad number is reported later with its row."""
    data = file.read().removeprefix(BOM)
    header = re.split(rb"[\r\n]", data[:65536], maxsplit=1)[0].decode("utf-8")
    delimiter = "\t" if is_tsv else _find_delimiter(header)
    bare_quote = _find_bare_quote(data, delimiter)
    is_quoted = bare_quote is None
    if bare_quote is not None and delimiter not in UNQUOTED:
        line = data.count(b"\n", 0, bare_quote) + 1
        raise ValueError(
            f"line {line}: a value starts with a quote and does not end with one; write quotes in it twice"
        )
    names = next(csv.reader([header], delimiter=delimiter), []) if is_quoted else header.split(delimiter)
    chosen = _choose_once(names, choose)
    return pa.csv.read_csv(
        io.BytesIO(data),
        parse_options=pa.csv.ParseOptions(
            delimiter=delimiter, quote_char='"' if is_quoted else False, newlines_in_values=is_quoted
        ),
        convert_options=pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), include_columns=chosen),
    )


def _find_bare_quote(data: bytes, delimiter: str) -> int | None:
    """Return the position of a value that starts with a quote and is not quoted as a whole; None if there is none.

    A quoted value may have several lines, but for a delimiter of `UNQUOTED`.
    """
    mark = re.escape(delimiter).encode()
    inner = rb'[^"\n]*' if delimiter in UNQUOTED else rb'[^"]*'
    start = rb'"(?:(?<=[\r\n%b]")|(?<=\A"))' % mark  # the quote first: a search for one byte is fast
    quoted = rb'%b%b(?:""%b)*(?:"(?=[\r\n%b]|\Z)|(?P<bare>))' % (start, inner, inner, mark)
    return next((match.start() for match in re.finditer(quoted, data) if match["bare"] is not None), None)


def _choose_once(names: Sequence[str], choose: Choose) -> list[str]:
    """Return the names of a table that are chosen.

    Raises:
        ValueError: two columns have the same name, so that it is not known which one is meant.
    """
    chosen = [*filter(choose(names), names)]
    repeated = next((name for name in chosen if chosen.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"it has several columns {repeated!r}; rename or remove all but one")
    return chosen


def _find_delimiter(header: str) -> str:
    """Return the delimiter of a CSV: a comma, or else another usual one that its first line has."""
    return next((mark for mark in (",", "\t", ";", "|") if mark in header), ",")


def iterate_json(file: Iterable[bytes]) -> Iterator[tuple[int, Row]]:
    """Yield the number and the content of each object of JSON lines, or of one list of objects.

    Raises:
        ValueError: a line is not a JSON object.
    """
    lines = iter(file)
    first = next((line for line in lines if line.strip()), b"").removeprefix(BOM)
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
    except OverflowError:
        raise ValueError(f"column {name!r} has a whole number of more than 64 bits; write it as text") from None
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
