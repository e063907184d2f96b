"""Start the servers of a soak, and choose its folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from audiopipe.bench.servers.s3 import S3Server
from audiopipe.bench.servers.s3_proxy import FaultyProxy, faulty_proxy
from audiopipe.bench.servers.supabase import Supabase, apply_migrations, postgres_server, supabase_server
from audiopipe.errors import ConfigError

__all__ = ["SoakServers", "soak_folder", "start_servers"]


@dataclass(frozen=True)
class SoakServers:
    """The servers of a soak; `endpoint` is that of the proxy before the S3 server."""

    s3: S3Server
    endpoint: str
    proxy: FaultyProxy
    supabase: Supabase


@contextmanager
def start_servers(folder: Path, fault_share: float, seed: int) -> Iterator[SoakServers]:
    """Start the servers, with the keys of the S3 server in this process's environment.

    Args:
        fault_share: share of the requests to S3 that fail.

    Raises:
        ConfigError: node is not installed.
    """
    if not shutil.which("npm"):
        raise ConfigError("the Supabase server needs node and npm: install them")
    with ExitStack() as stack:
        s3 = S3Server(folder / "s3")
        s3.start()
        stack.callback(s3.kill)
        endpoint, proxy = stack.enter_context(faulty_proxy(s3, fault_share, seed))
        postgres = stack.enter_context(postgres_server())
        apply_migrations(postgres)
        supabase = stack.enter_context(supabase_server(postgres))
        stack.enter_context(_environment(s3.environment()))
        yield SoakServers(s3, endpoint, proxy, supabase)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set variables of this process until the end of the block."""
    saved = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


@contextmanager
def soak_folder(folder: Path | None) -> Iterator[Path]:
    """Yield the folder of a soak: a given one, which is kept, or a temporary one."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="audiopipe-soak-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)
