"""Find and open the ledger of a run."""

from __future__ import annotations

import hashlib
import importlib
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast
from urllib.parse import unquote, urlparse

import platformdirs

from audiopipe.config.checks import split_address
from audiopipe.errors import LedgerError
from audiopipe.extras import require_extra
from audiopipe.ledger.protocol import Ledger
from audiopipe.ledger.resilient import ResilientLedger
from audiopipe.ledger.sqlite import BUSY_S, SqliteLedger

if TYPE_CHECKING:
    from audiopipe.ledger.metrics import MeteredLedger
    from audiopipe.ledger.supabase import SupabaseLedger
    from audiopipe.ledger.supabase_reader import SupabaseReader

__all__ = ["SUPABASE", "default_path", "open_ledger", "open_run_ledger", "sync_ledger"]

SUPABASE = "supabase://"
FILE_NAME = "_ledger.sqlite"
DRIVER_BUSY_S = 3.0  # longest wait of a driver for another process that writes


def open_run_ledger(
    url: str | None, output: str, metrics_address: str | None = None, partition: tuple[int, int] = (0, 1)
) -> Ledger:
    """Open the ledger of an output for a driver, which continues if the ledger cannot be used (`resilient.py`).

    Args:
        url, output: as for `open_ledger`.
        metrics_address: where the driver's numbers are served to Prometheus: a port of this machine, or host:port.
        partition: index of the driver's partition, and the number of partitions.

    Raises:
        LedgerError: the address, the key, the tables or the version are wrong.
        ConfigError: `metrics_address` cannot be opened.
        MissingExtra: it is given, and prometheus-client is not installed.
    """
    path = default_path(output) if url in (None, SUPABASE) else _local_path(url)
    opener = partial(open_ledger, url, output, busy_s=DRIVER_BUSY_S)
    if metrics_address is None:
        return ResilientLedger(opener, path)
    with require_extra("prometheus", "metrics_address"):
        metered = cast("type[MeteredLedger]", _import_module("metrics").MeteredLedger)
    return metered(opener, path, split_address(metrics_address), partition)


def open_ledger(url: str | None, output: str | None = None, *, create: bool = True, busy_s: float = BUSY_S) -> Ledger:
    """Open the ledger of an output.

    Args:
        url: path of a SQLite file, or `supabase://`. A run with `supabase://` writes to the default file of its output,
            from where the updates are sent (see `supabase.py`); a reader connects to Supabase and needs no output.
        output: URL of the output; without `url`, its default file is opened.
        create: create a missing file, as a run does; otherwise the ledger is opened read-only.
        busy_s: longest wait for another process that writes to the file.

    Raises:
        LedgerError: the ledger does not exist, it cannot be opened, or another version created it.
    """
    if url == SUPABASE and not create:
        return cast("type[SupabaseReader]", _import_module("supabase_reader").SupabaseReader)()
    if output is None and url in (None, SUPABASE):
        raise LedgerError("no ledger: give the output of the run, or the path of a SQLite file with --ledger")
    if url == SUPABASE:
        return cast("type[SupabaseLedger]", _import_module("supabase").SupabaseLedger)(
            default_path(output or ""), busy_s=busy_s
        )
    if url is not None and "://" in url and not url.startswith("file://"):
        scheme = url.split("://")[0]
        raise LedgerError(f"ledger {scheme}://… is not supported; give the path of a SQLite file, or {SUPABASE}")
    path = _local_path(url) if url is not None else default_path(output or "")
    return SqliteLedger(path, create=create, busy_s=busy_s)


def sync_ledger(output: str) -> tuple[int, int]:
    """Send the pending updates of an output's ledger to Supabase; return how many it accepted and how many it rejected.

    Raises:
        LedgerError: the output has no ledger, Supabase is down, or it rejects the key.
    """
    counts: tuple[int, int] = _import_module("supabase").sync(default_path(output))
    return counts


def default_path(output: str) -> Path:
    """Return the path of an output's ledger: `_ledger.sqlite` in a local output.

    SQLite does not work on an object store, so the ledger of a remote output is in the user's state folder
    (`~/.local/state/audiopipe/ledgers` on Linux), named by a hash of the output's URL. Other machines cannot read it;
    use `--ledger supabase://` for that.
    """
    if "://" not in output or output.startswith("file://"):
        return _local_path(output) / FILE_NAME
    name = hashlib.sha256(output.rstrip("/").encode()).hexdigest()[:16]
    return platformdirs.user_state_path("audiopipe") / "ledgers" / f"{name}.sqlite"


def _import_module(name: str) -> ModuleType:
    """Import a module of this package on demand, because Supabase's client takes a second to import."""
    return importlib.import_module(f"audiopipe.ledger.{name}")


def _local_path(path: str) -> Path:
    return Path(unquote(urlparse(path).path) if path.startswith("file://") else path).expanduser()
