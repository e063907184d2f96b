import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A real PostgreSQL, as root and as anybody else: `.psql(sql) -> str`, `.get_uri()`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns of XDG_RUNTIME_DIR when pgserver is imported
        import pgserver
    folder = Path(tempfile.mkdtemp(prefix="audiopipe-pg-"))  # of its own: pgserver opens the folders above it to all
    server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    yield server
    server.cleanup()
    shutil.rmtree(folder)
