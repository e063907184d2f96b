"""Where a run's ledger is."""

from __future__ import annotations

import hashlib
from pathlib import Path
from urllib.parse import unquote, urlparse

import platformdirs

from audiopipe.errors import LedgerError
from audiopipe.ledger.protocol import Ledger
from audiopipe.ledger.sqlite import SqliteLedger

__all__ = ["default_path", "open_ledger"]

FILE_NAME = "_ledger.sqlite"


def open_ledger(url: str | None, output: str | None = None, *, create: bool = True) -> Ledger:
    """The ledger of an output: the SQLite file that `url` names, else the default one of `output`.

    With `create` a missing file is made (a run does that); without, the ledger is opened for reading alone.
    Raises `LedgerError` when there is none, it cannot be opened, or another version made it.
    """
    if url is None and output is None:
        raise LedgerError("no ledger: give --ledger a SQLite file, or the output whose run it is")
    if url is not None and "://" in url and not url.startswith("file://"):
        raise LedgerError(f"ledger {url.split('://')[0]}:// is not supported; give the path of a SQLite file")
    path = _local(url) if url is not None else default_path(output or "")
    return SqliteLedger(path, create=create)


def default_path(output: str) -> Path:
    """`_ledger.sqlite` in a local output.

    SQLite cannot live on an object store, so the ledger of a remote output is a file of this machine's user: in the
    user's state folder (`~/.local/state/audiopipe/ledgers` on Linux) under a hash of the output's URL. Another
    machine does not see it; name a database with `--ledger` for that.
    """
    if "://" not in output or output.startswith("file://"):
        return _local(output) / FILE_NAME
    name = hashlib.sha256(output.rstrip("/").encode()).hexdigest()[:16]
    return platformdirs.user_state_path("audiopipe") / "ledgers" / f"{name}.sqlite"


def _local(path: str) -> Path:
    return Path(unquote(urlparse(path).path) if path.startswith("file://") else path).expanduser()
