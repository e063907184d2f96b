import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from hypothesis import settings

# The same examples on every machine, and no folder of them in a checkout that may be read-only.
settings.register_profile("audiopipe", database=None, derandomize=True, deadline=None)
settings.load_profile("audiopipe")

# As `cluster.connect` sets it, for the clients that tests make themselves: Python 3.11 can deadlock in the profiler.
dask.config.set({"distributed.worker.profile.enabled": False})


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


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six good videos in English and every flaw there is: `catalog.parquet`, `truth.json`, `videos/`."""
    from audiopipe.bench.corpus import make_corpus

    cache = Path(os.environ.get("AUDIOPIPE_DEMO_CACHE", Path(__file__).parents[1] / "demo" / "corpus" / "cache"))
    directory = tmp_path_factory.mktemp("tiny") / "corpus"
    make_corpus(directory, videos=6, languages=("en",), cache=cache, log=lambda line: None)
    return directory
