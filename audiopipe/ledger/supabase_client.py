"""Supabase over REST: keys from the environment alone, and errors sorted by what one can do about them.

SUPABASE_URL            address of the project, `https://….supabase.co`
SUPABASE_SERVICE_KEY    its secret key: what a run needs, since only it may write
SUPABASE_KEY            any other key; with a token it is enough to look at a run
SUPABASE_ACCESS_TOKEN   of a signed-in user, to read as that user

No key or token is ever part of a message, a repr or a parameter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Self

from audiopipe.errors import ConfigError
from audiopipe.extras import require_extra

with require_extra("supabase", "supabase://"):
    import httpx
    from postgrest import APIError
    from supabase import ClientOptions, create_client

__all__ = ["PAGE", "ErrorKind", "SupabaseClient", "SupabaseError"]

PAGE = 1000  # rows that Supabase gives at most for one request, unless its owner has changed that
MIGRATIONS = "cluster/supabase/migrations"

# Codes of PostgREST and PostgreSQL: https://docs.postgrest.org/en/stable/references/errors.html
KEY_CODES = {"42501", "28000", "28P01", "PGRST300", "PGRST301", "PGRST302", "PGRST303", "401", "403"}
SCHEMA_CODES = {
    "PGRST106",
    "PGRST200",
    "PGRST202",
    "PGRST203",
    "PGRST204",
    "PGRST205",
    "42P01",
    "42703",
    "42883",
    "404",
}
# Classes of SQLSTATE that one and the same row will meet every time: data, constraints, a CASE without its kind.
ROW_CLASSES = ("20", "22", "23")


class ErrorKind(StrEnum):
    """What went wrong: `down` may pass; the others stay until somebody acts."""

    DOWN = "down"
    KEY = "key"
    SCHEMA = "schema"
    ROW = "row"


class SupabaseError(Exception):
    """A request that came to nothing. Its text says what was wrong and what to do."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class SupabaseClient:
    """A project, for one thread."""

    def __init__(self, timeout_s: float = 10.0, environment: Mapping[str, str] = os.environ) -> None:
        self.url = environment.get("SUPABASE_URL", "").strip().rstrip("/")
        key = environment.get("SUPABASE_SERVICE_KEY") or environment.get("SUPABASE_KEY") or ""
        token = environment.get("SUPABASE_ACCESS_TOKEN") or ""
        if not self.url.startswith(("http://", "https://")) or not key:
            raise ConfigError(
                "supabase:// needs the environment variables SUPABASE_URL (https://….supabase.co) and "
                "SUPABASE_SERVICE_KEY, or SUPABASE_KEY to read; set them where this is started"
            )
        self._secrets = [secret for secret in (key, token) if secret]
        self._http = httpx.Client(timeout=timeout_s)
        options = ClientOptions(
            httpx_client=self._http, auto_refresh_token=False, persist_session=False, postgrest_client_retry=False
        )
        self._client = create_client(self.url, key, options)
        if token:
            self._client.postgrest.auth(token)

    def __repr__(self) -> str:
        return f"Supabase({self.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def rpc(self, function: str, **arguments: Any) -> Any:
        """What a function of the database returns. Raises `SupabaseError`."""
        return self._execute(self._client.rpc(function, arguments))

    def select(
        self, table: str, columns: str = "*", shape: Callable[[Any], Any] = lambda query: query, schema: str = "public"
    ) -> list[dict[str, Any]]:
        """Rows of a table or view; `shape` adds filters and order to the query. Raises `SupabaseError`."""
        source = self._client.postgrest if schema == "public" else self._client.schema(schema)
        rows: list[dict[str, Any]] = self._execute(shape(source.from_(table).select(columns)))
        return rows

    def page(
        self,
        table: str,
        key: str,
        columns: str = "*",
        shape: Callable[[Any], Any] = lambda query: query,
        schema: str = "public",
        after: Any = None,
    ) -> list[dict[str, Any]]:
        """The rows after a key, in the order of that unique column, as many as Supabase gives at once."""

        def one_page(query: Any) -> Any:
            shaped = shape(query)
            return (shaped if after is None else shaped.gt(key, after)).order(key).limit(PAGE)

        return self.select(table, columns, one_page, schema)

    def pages(self, table: str, key: str, shape: Callable[[Any], Any]) -> Iterator[list[dict[str, Any]]]:
        """All rows by keyset: what others add or remove meanwhile shifts nothing.

        A page may be shorter than `PAGE` (the owner's cap), so only an empty one is the end.
        """
        after = None
        while rows := self.page(table, key, shape=shape, after=after):
            yield rows
            after = rows[-1][key]

    def _execute(self, request: Any) -> Any:
        try:
            return request.execute().data
        except APIError as error:
            raise self._sorted(error) from None
        except httpx.HTTPError as error:
            raise SupabaseError(ErrorKind.DOWN, f"{self.url} does not answer ({type(error).__name__})") from None

    def _sorted(self, error: APIError) -> SupabaseError:
        code, said = error.code or "", self._without_secrets(" ".join((error.message or "no reason").split()))
        if code in KEY_CODES or "invalid api key" in said.lower() or "no api key" in said.lower():
            remedy = (
                "check SUPABASE_SERVICE_KEY: a run needs the project's secret key, since other keys may not write; "
                "to look at one, any key and a signed-in user's SUPABASE_ACCESS_TOKEN are enough"
            )
            return SupabaseError(ErrorKind.KEY, f"{self.url} refuses the key ({said}); {remedy}")
        if code in SCHEMA_CODES:
            remedy = f"apply {MIGRATIONS} (supabase db push), and check the names of table and columns"
            return SupabaseError(ErrorKind.SCHEMA, f"{self.url} lacks something ({said}); {remedy}")
        if code.startswith(ROW_CLASSES) and len(code) == len("22000"):
            return SupabaseError(ErrorKind.ROW, f"{self.url} refuses a row ({code}: {said})")
        return SupabaseError(ErrorKind.DOWN, f"{self.url} is out of order ({said})")

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text
