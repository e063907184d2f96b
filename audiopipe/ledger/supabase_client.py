"""Connect to Supabase over REST, with keys from the environment only, and classify errors by their remedy.

SUPABASE_URL            URL of the project, `https://….supabase.co`
SUPABASE_SERVICE_KEY    its secret key, the only key that may write: a run needs it
SUPABASE_KEY            any other key; with an access token it is enough to watch a run
SUPABASE_ACCESS_TOKEN   access token of a signed-in user, to read as that user

No key or token is ever part of a message, a repr or a parameter.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any, Protocol, Self, TypeAlias

from audiopipe.errors import ConfigError
from audiopipe.extras import require_extra
from audiopipe.ledger.record import RowValues
from audiopipe.redaction import RedactedError, has_secret

with require_extra("supabase", "supabase://"):
    import httpx
    from postgrest import APIError, SyncSelectRequestBuilder
    from supabase import ClientOptions, create_client

__all__ = [
    "MIGRATIONS",
    "PAGE",
    "ErrorKind",
    "Query",
    "QueryFilter",
    "SupabaseClient",
    "SupabaseError",
    "explain_no_rows",
]

PAGE = 1000  # Supabase's default maximum of rows in a response
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
SIZE_CODES = {"413", "54000", "54001", "PGRST413"}
# A statement or lock timeout, or a request that a proxy in front of the server gave up.
TIME_CODES = {"57014", "55P03", "408", "504", "522", "524"}
# Classes of SQLSTATE that a row causes each time it is sent: data, constraints, a CASE without a matching WHEN.
ROW_CLASSES = ("20", "22", "23")


# A query of a table, and a function that adds filters and order to it.
Query: TypeAlias = SyncSelectRequestBuilder
QueryFilter: TypeAlias = Callable[[Query], Query]


class _Response(Protocol):
    """Part of a PostgREST response that is used here: the decoded JSON."""

    @property
    def data(self) -> Any: ...


class _Request(Protocol):
    """A PostgREST request: a query or a call of a function."""

    def execute(self) -> _Response: ...


def _keep(query: Query) -> Query:
    return query


class ErrorKind(StrEnum):
    """Cause of an error: `key`, `schema` and `row` need a correction, `size` and `time` a smaller request."""

    DOWN = "down"
    SIZE = "size"
    TIME = "time"
    KEY = "key"
    SCHEMA = "schema"
    ROW = "row"


class SupabaseError(RedactedError):
    """A failed request. The message says what failed and what to do."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def is_temporary(self) -> bool:
        """Return whether the same request may succeed later, or a smaller one now."""
        return self.kind in (ErrorKind.DOWN, ErrorKind.SIZE, ErrorKind.TIME)


class SupabaseClient:
    """A connection to a project, for use in one thread.

    `obeys_policies` is True if row level security may hide rows from its key or user: they are just not in a response.
    """

    def __init__(self, timeout_s: float = 10.0, environment: Mapping[str, str] = os.environ) -> None:
        self.url = environment.get("SUPABASE_URL", "").strip().rstrip("/")
        key = environment.get("SUPABASE_SERVICE_KEY") or environment.get("SUPABASE_KEY") or ""
        token = environment.get("SUPABASE_ACCESS_TOKEN") or ""
        if not self.url.startswith(("http://", "https://")) or not key:
            raise ConfigError(
                "supabase:// needs the environment variables SUPABASE_URL (https://….supabase.co) and "
                "SUPABASE_SERVICE_KEY, or SUPABASE_KEY for reading: set them before the start"
            )
        if has_secret(self.url):
            raise ConfigError("SUPABASE_URL contains a password or a token; write the address of the project alone")
        self.obeys_policies = bool(token) or not _is_service_key(key)
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
        """Call a function of the database and return its decoded result.

        Raises:
            SupabaseError: the call failed.
        """
        return self._execute(self._client.rpc(function, arguments))

    def select(
        self, table: str, columns: str = "*", refine: QueryFilter = _keep, schema: str = "public"
    ) -> list[RowValues]:
        """Return rows of a table or view; `refine` adds filters and order to the query.

        Raises:
            SupabaseError: the query failed.
        """
        source = self._client.postgrest if schema == "public" else self._client.schema(schema)
        rows: list[RowValues] = self._execute(refine(source.from_(table).select(columns)))
        return rows

    def page(
        self,
        table: str,
        key: str,
        columns: str = "*",
        refine: QueryFilter = _keep,
        schema: str = "public",
        after: str | int | None = None,
    ) -> list[RowValues]:
        """Return the next rows by keyset: those after a value of the unique column `key`, at most one response."""

        def refine_page(query: Query) -> Query:
            refined = refine(query)
            return (refined if after is None else refined.gt(key, after)).order(key).limit(PAGE)

        return self.select(table, columns, refine_page, schema)

    def pages(self, table: str, key: str, refine: QueryFilter) -> Iterator[list[RowValues]]:
        """Return all rows page by page; rows that others add or remove in the meantime shift no other row.

        A page may have fewer than `PAGE` rows, because the project can lower the limit, so an empty page is the end.
        """
        after = None
        while rows := self.page(table, key, refine=refine, after=after):
            yield rows
            after = rows[-1][key]

    def _execute(self, request: _Request) -> Any:
        try:
            return request.execute().data
        except APIError as error:
            raise self._classify(error) from None
        except (httpx.ReadTimeout, httpx.WriteTimeout) as error:
            raise SupabaseError(
                ErrorKind.TIME, f"{self.url} does not answer in time ({type(error).__name__})"
            ) from None
        except httpx.HTTPError as error:
            raise SupabaseError(ErrorKind.DOWN, f"{self.url} does not answer ({type(error).__name__})") from None

    def _classify(self, error: APIError) -> SupabaseError:
        code, message = error.code or "", self._without_secrets(" ".join((error.message or "no reason").split()))
        if code in KEY_CODES or "invalid api key" in message.lower() or "no api key" in message.lower():
            remedy = (
                "check SUPABASE_SERVICE_KEY: a run needs the project's secret key, because other keys cannot write; "
                "to watch a run, any key and a signed-in user's SUPABASE_ACCESS_TOKEN are enough"
            )
            return SupabaseError(ErrorKind.KEY, f"{self.url} refuses the key ({message}); {remedy}")
        if code in SCHEMA_CODES:
            remedy = f"apply {MIGRATIONS} (supabase db push), and check the names of table and columns"
            return SupabaseError(
                ErrorKind.SCHEMA, f"{self.url} lacks a table, column or function ({message}); {remedy}"
            )
        if code.startswith(ROW_CLASSES) and len(code) == len("22000"):
            return SupabaseError(ErrorKind.ROW, f"{self.url} rejects a row ({code}: {message})")
        if code in SIZE_CODES:
            return SupabaseError(ErrorKind.SIZE, f"{self.url} refuses a request of this size ({code}: {message})")
        kind = ErrorKind.TIME if code in TIME_CODES else ErrorKind.DOWN
        return SupabaseError(kind, f"{self.url} reports an error ({message})")

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        return text


def _is_service_key(key: str) -> bool:
    """Check whether a key is the secret key of a project, or an older one, whose token names its role."""
    try:
        body = key.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError):
        return key.startswith("sb_secret_")
    return isinstance(claims, dict) and claims.get("role") == "service_role"


def explain_no_rows(supabase: SupabaseClient) -> str:
    """Explain why a table has no rows, in view of the key."""
    if not supabase.obeys_policies:
        return "the table is empty"
    return (
        "the table is empty, or row level security hides its rows from this key or user: set the project's secret key "
        "as SUPABASE_SERVICE_KEY, or add a policy that permits this role to read"
    )
