"""The S3 server of `audiopipe.bench.servers` as fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from audiopipe.bench.servers import start
from audiopipe.bench.servers.s3 import BUCKET, S3Server
from audiopipe.bench.servers.s3_proxy import FaultyProxy, faulty_proxy
from audiopipe.media.access import clear_cache

__all__ = [
    "BUCKET",
    "FaultyProxy",
    "S3Server",
    "clear_caches",
    "faulty_proxy",
    "free_port",
    "new_s3_server",
    "s3_server",
    "server_in_environment",
]


def free_port() -> int:
    """Return a free port for which the one that gRPC uses is free too."""
    return start.free_port(with_grpc=True)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@contextmanager
def server_in_environment(folder: Path) -> Iterator[S3Server]:
    """Start a server, with its keys in the environment until the end of the block."""
    server = S3Server(folder)
    server.start()
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment().items():
                patch.setenv(name, value)
            clear_caches()
            yield server
    finally:
        clear_caches()
        server.kill()


def clear_caches() -> None:
    """Clear the cache of fsspec, which does not know the environment that a file system was made in."""
    from s3fs import S3FileSystem

    S3FileSystem.clear_instance_cache()
    clear_cache()


@pytest.fixture
def new_s3_server(tmp_path: Path) -> Iterator[S3Server]:
    """Start a server for one test, with its keys in the environment."""
    with server_in_environment(tmp_path) as server:
        yield server
