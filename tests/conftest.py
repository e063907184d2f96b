import fcntl
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

# Two test processes share two cores, so one thread each: OpenMP's threads of both would wait for each other. It is
# set before the first import of torch, and what a test starts inherits it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples on every machine, and no folder of them in a checkout that may be read-only.
settings.register_profile("audiopipe", database=None, derandomize=True, deadline=None)
settings.load_profile("audiopipe")

# Child processes inherit it: a dashboard on a fixed port would fail to bind while another test has that port.
os.environ.setdefault("AUDIOPIPE_PROFILES", str(Path(__file__).with_name("profiles.yaml")))

# As `cluster.connect` sets it, for the clients that tests make themselves: Python 3.11 can deadlock in the profiler.
dask.config.set({"distributed.worker.profile.enabled": False})


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """Start a real PostgreSQL, as root or any other user: `.psql(sql) -> str`, `.get_uri()`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs warns of XDG_RUNTIME_DIR when pgserver is imported
        import pgserver
    folder = Path(tempfile.mkdtemp(prefix="audiopipe-pg-"))  # a new one: pgserver opens the folders above it to all
    server = pgserver.get_server(folder / "data", cleanup_mode="stop")
    yield server
    server.cleanup()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make six good videos in English and one of every defect: `catalog.parquet`, `truth.json`, `videos/`.

    The processes of one `pytest -n` share it.
    """
    from audiopipe.bench.corpus import make_corpus

    cache = Path(os.environ.get("AUDIOPIPE_DEMO_CACHE", Path(__file__).parents[1] / "demo" / "corpus" / "cache"))
    session = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        session = session.parent
    directory = session / "tiny" / "corpus"
    with (session / "tiny.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (session / "tiny.made").exists():
            make_corpus(directory, videos=6, languages=("en",), cache=cache, log=lambda line: None)
            (session / "tiny.made").touch()
    return directory
