"""Read a table of Supabase as a catalog, `supabase://TABLE`: its completed rows, by keyset paging.

At most one page of 1,000 rows is in memory.

Other names go into the address: `supabase://media?schema=archive&youtube_id=id&r2_tar_key=path&completed=READY`.
Left of `=` is this package's name of a column (or `schema`, or `completed`, the status of a finished video), right of
it the table's name. The id must be unique, like a primary key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import pyarrow as pa

from audiopipe.catalog.validate import COMPLETED, REQUIRED_COLUMNS
from audiopipe.errors import CatalogError, TransientError
from audiopipe.ledger.supabase_client import SupabaseClient, SupabaseError, explain_no_rows

__all__ = ["read_pages"]

COLUMN_TYPES = {
    "youtube_id": pa.string(),
    "language": pa.string(),
    "r2_tar_key": pa.string(),
    "size_bytes": pa.int64(),
    "duration_s": pa.float64(),
}
ATTEMPTS = 5
BACKOFF_S = 0.5

Row: TypeAlias = dict[str, Any]


def read_pages(table: str, language: str | None) -> Iterable[pa.Table]:
    """Yield pages of the table's completed rows, for one language or all, in the order of their ids.

    Rows that are added meanwhile do not move the others: every row that exists at the start is returned once.

    Raises:
        CatalogError: a name, key or value is wrong, or the key sees no rows.
        TransientError: the database does not answer.
    """
    source = _TableAddress.parse(table)
    with SupabaseClient(timeout_s=30) as supabase:
        sample = _with_backoff(lambda: source.read_sample(supabase))
        if not sample:
            raise CatalogError(f"catalog supabase://{source.table} has no rows: {explain_no_rows(supabase)}")
        columns = source.match_columns(sample)
        for page in _read_row_pages(supabase, source, columns, language):
            yield _to_table(page, columns)


@dataclass(frozen=True)
class _TableAddress:
    """The address of a table. `names` maps this package's names of columns to the table's."""

    table: str
    schema: str
    names: dict[str, str]
    completed: str

    @classmethod
    def parse(cls, address: str) -> _TableAddress:
        table, _, query = address.partition("?")
        given = dict(parse_qsl(query, keep_blank_values=True))
        known = (*COLUMN_TYPES, "status", "schema", "completed")
        wrong = [name for name in given if name not in known or not given[name]]
        if not table or wrong:
            problem = f"{wrong[0]!r} is not the name of a column or has no value" if wrong else "it names no table"
            raise CatalogError(f"catalog supabase://{address}: {problem}; write supabase://TABLE?{'=…&'.join(known)}=…")
        names = {name: given.get(name, name) for name in (*COLUMN_TYPES, "status")}
        return cls(table, given.get("schema", "public"), names, given.get("completed", COMPLETED))

    def read_sample(self, supabase: SupabaseClient) -> list[Row]:
        """Read one row, which shows the columns of the table."""
        return supabase.select(self.table, "*", lambda query: query.limit(1), self.schema)

    def match_columns(self, sample: list[Row]) -> dict[str, str]:
        """Return the part of `names` whose columns exist."""
        columns = {name: column for name, column in self.names.items() if column in sample[0]}
        missing = [self.names[name] for name in REQUIRED_COLUMNS if name not in columns]
        if missing:
            raise CatalogError(
                f"catalog supabase://{self.table} lacks the column {', '.join(missing)}; it has "
                f"{', '.join(sample[0])}: name them in the address, as in supabase://{self.table}?youtube_id=id"
            )
        return columns


def _read_row_pages(
    supabase: SupabaseClient, source: _TableAddress, columns: dict[str, str], language: str | None
) -> Iterator[list[Row]]:
    """Yield one page after the other; after an outage, continue after the last row received."""

    def add_filters(query: Any) -> Any:
        if "status" in columns:
            query = query.eq(columns["status"], source.completed)
        return query if language is None else query.eq(columns["language"], language)

    selected = ",".join(column for name, column in columns.items() if name != "status")
    read_page = partial(supabase.page, source.table, columns["youtube_id"], selected, add_filters, source.schema)
    page = _with_backoff(read_page)
    while page:
        yield page
        page = _with_backoff(partial(read_page, page[-1][columns["youtube_id"]]))


def _with_backoff(read: Callable[[], list[Row]]) -> list[Row]:
    """Read, and try again with growing pauses while the database is down."""
    for attempt in range(ATTEMPTS):
        try:
            return read()
        except SupabaseError as error:
            if not error.is_temporary:
                raise CatalogError(str(error)) from None
            if attempt == ATTEMPTS - 1:
                raise TransientError(f"{error}; the catalog could not be read: start again when it answers") from None
            time.sleep(BACKOFF_S * 2**attempt)
    raise AssertionError("unreachable")


def _to_table(page: list[Row], columns: dict[str, str]) -> pa.Table:
    present = {name: column for name, column in columns.items() if name in COLUMN_TYPES}
    return pa.table({name: _to_array(name, [row[column] for row in page]) for name, column in present.items()})


def _to_array(name: str, values: list[Any]) -> pa.Array:
    column_type = COLUMN_TYPES[name]
    if column_type == pa.string():
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    try:
        return pa.array([None if value is None else float(value) for value in values], pa.float64()).cast(column_type)
    except (TypeError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise CatalogError(f"catalog column {name!r} contains a value that is not a number: {error}") from None
