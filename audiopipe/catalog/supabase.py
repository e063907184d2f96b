"""`supabase://TABLE` as a catalogue: completed rows by keyset paging, a page of at most 1,000 rows in memory.

Other names go into the address: `supabase://media?schema=archive&youtube_id=id&r2_tar_key=path&completed=READY`.
Left of `=` is what this package calls a column (or `schema`, or `completed`, the status of a finished video), right of
it what the table does. The id must be unique, as a primary key is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import pyarrow as pa

from audiopipe.errors import CatalogError, TransientError
from audiopipe.ledger.supabase_client import ErrorKind, SupabaseClient, SupabaseError

__all__ = ["read_pages"]

REQUIRED = ("youtube_id", "language", "r2_tar_key")
TYPES = {
    "youtube_id": pa.string(),
    "language": pa.string(),
    "r2_tar_key": pa.string(),
    "size_bytes": pa.int64(),
    "duration_s": pa.float64(),
}
TRIES = 5
BACKOFF_S = 0.5


def read_pages(table: str, language: str | None) -> Iterable[pa.Table]:
    """Pages of the table's completed rows, of one language or of all, in the order of their ids.

    Rows that are added meanwhile move none of the others: every row that was there at the start is given once.
    Raises `CatalogError` for a wrong name, key or value, `TransientError` when the database stays away.
    """
    source = _Source.of(table)
    with SupabaseClient(timeout_s=30) as supabase:
        columns = source.columns_of(_with_backoff(lambda: source.sample(supabase)))
        if not columns:
            return
        for page in _all_pages(supabase, source, columns, language):
            yield _table(page, columns)


@dataclass(frozen=True)
class _Source:
    """A table and what its columns are called: our name -> its name."""

    table: str
    schema: str
    names: dict[str, str]
    completed: str

    @classmethod
    def of(cls, address: str) -> _Source:
        table, _, query = address.partition("?")
        given = dict(parse_qsl(query, keep_blank_values=True))
        known = (*TYPES, "status", "schema", "completed")
        wrong = [name for name in given if name not in known or not given[name]]
        if not table or wrong:
            what = f"{wrong[0]!r} is no name of a column or has no value" if wrong else "it names no table"
            raise CatalogError(f"catalogue supabase://{address}: {what}; write supabase://TABLE?{'=…&'.join(known)}=…")
        names = {name: given.get(name, name) for name in (*TYPES, "status")}
        return cls(table, given.get("schema", "public"), names, given.get("completed", "COMPLETED"))

    def sample(self, supabase: SupabaseClient) -> list[dict[str, Any]]:
        return supabase.select(self.table, "*", lambda query: query.limit(1), self.schema)

    def columns_of(self, sample: list[dict[str, Any]]) -> dict[str, str]:
        """Our name -> its name, for the columns that are there; none for an empty table."""
        if not sample:
            return {}
        there = {ours: theirs for ours, theirs in self.names.items() if theirs in sample[0]}
        missing = [self.names[name] for name in REQUIRED if name not in there]
        if missing:
            raise CatalogError(
                f"catalogue supabase://{self.table} lacks the column {', '.join(missing)}; it has "
                f"{', '.join(sample[0])}: name them in the address, as in supabase://{self.table}?youtube_id=id"
            )
        return there


def _all_pages(
    supabase: SupabaseClient, source: _Source, columns: dict[str, str], language: str | None
) -> Iterator[list[dict[str, Any]]]:
    """A page at a time, going on after the last row seen when the database was away for a moment."""

    def shape(query: Any) -> Any:
        if "status" in columns:
            query = query.eq(columns["status"], source.completed)
        return query if language is None else query.eq(columns["language"], language)

    wanted = ",".join(theirs for ours, theirs in columns.items() if ours != "status")
    ask = partial(supabase.page, source.table, columns["youtube_id"], wanted, shape, source.schema)
    page = _with_backoff(ask)
    while page:
        yield page
        page = _with_backoff(partial(ask, page[-1][columns["youtube_id"]]))


def _with_backoff(ask: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Ask again while the database is away, with longer and longer waits."""
    for attempt in range(TRIES):
        try:
            return ask()
        except SupabaseError as error:
            if error.kind is not ErrorKind.DOWN:
                raise CatalogError(str(error)) from None
            if attempt == TRIES - 1:
                raise TransientError(f"{error}; the catalogue could not be read: start again when it is back") from None
            time.sleep(BACKOFF_S * 2**attempt)
    raise AssertionError("unreachable")


def _table(page: list[dict[str, Any]], columns: dict[str, str]) -> pa.Table:
    present = {ours: theirs for ours, theirs in columns.items() if ours in TYPES}
    return pa.table({ours: _array(ours, [row[theirs] for row in page]) for ours, theirs in present.items()})


def _array(name: str, values: list[Any]) -> pa.Array:
    if TYPES[name] == pa.string():
        return pa.array([None if value is None else str(value) for value in values], pa.string())
    try:
        return pa.array([None if value is None else float(value) for value in values], pa.float64()).cast(TYPES[name])
    except (TypeError, ValueError) as error:  # ArrowInvalid is a ValueError
        raise CatalogError(f"catalogue column {name!r} holds what is no number: {error}") from None
