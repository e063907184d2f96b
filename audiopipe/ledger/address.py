"""Where a run's ledger is."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlparse

import platformdirs

from audiopipe.errors import LedgerError
from audiopipe.ledger.protocol import Ledger
from audiopipe.ledger.sqlite import SqliteLedger

if TYPE_CHECKING:
    from audiopipe.ledger.supabase import SupabaseLedger
    from audiopipe.ledger.supabase_reader import SupabaseReader

__all__ = ["SUPABASE", "default_path", "open_ledger", "sync_ledger"]

SUPABASE = "supabase://"
FILE_NAME = "_ledger.sqlite"


def open_ledger(url: str | None, output: str | None = None, *, create: bool = True) -> Ledger:
    """The ledger of an output: the SQLite file that `url` names, the default one of `output`, or `supabase://`.

    With `create` a missing file is made (a run does that); without, the ledger is opened for reading alone. A run with
    `supabase://` writes to the default file of its output, of which Supabase is told (see `supabase.py`); to read
    there the output need not be known.
    Raises `LedgerError` when there is none, it cannot be opened, or another version made it.
    """
    if url == SUPABASE and not create:
        return cast("type[SupabaseReader]", _import_module("supabase_reader").SupabaseReader)()
    if output is None and url in (None, SUPABASE):
        raise LedgerError("no ledger: give --ledger a SQLite file, or the output whose run it is")
    if url == SUPABASE:
        return cast("type[SupabaseLedger]", _import_module("supabase").SupabaseLedger)(default_path(output or ""))
    if url is not None and "://" in url and not url.startswith("file://"):
        kind = url.split("://")[0]
        raise LedgerError(f"ledger {kind}://… is not supported; give the path of a SQLite file, or {SUPABASE}")
    path = _local_path(url) if url is not None else default_path(output or "")
    return SqliteLedger(path, create=create)


def sync_ledger(output: str) -> tuple[int, int]:
    """Tell Supabase what waits in the ledger of an output; returns updates sent, and updates it refuses for good.

    Raises `LedgerError` when there is no such ledger, Supabase is down, or it refuses the key.
    """
    sent_and_refused: tuple[int, int] = _import_module("supabase").sync(default_path(output))
    return sent_and_refused


def default_path(output: str) -> Path:
    """`_ledger.sqlite` in a local output.

    SQLite cannot live on an object store, so the ledger of a remote output is a file of this machine's user: in the
    user's state folder (`~/.local/state/audiopipe/ledgers` on Linux) under a hash of the output's URL. Another
    machine does not see it; name a database with `--ledger` for that.
    """
    if "://" not in output or output.startswith("file://"):
        return _local_path(output) / FILE_NAME
    name = hashlib.sha256(output.rstrip("/").encode()).hexdigest()[:16]
    return platformdirs.user_state_path("audiopipe") / "ledgers" / f"{name}.sqlite"


def _import_module(name: str) -> Any:
    """A module of this package when it is asked for: Supabase's client takes a second to import."""
    return importlib.import_module(f"audiopipe.ledger.{name}")


def _local_path(path: str) -> Path:
    return Path(unquote(urlparse(path).path) if path.startswith("file://") else path).expanduser()
