"""The S3 server of `audiopipe.bench.servers` as fixtures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from audiopipe.bench.servers import start
from audiopipe.bench.servers.s3 import BUCKET, S3Server
from audiopipe.bench.servers.s3_proxy import FaultyProxy, faulty_proxy
from audiopipe.media.access import clear_cache

__all__ = ["BUCKET", "FaultyProxy", "S3Server", "faulty_proxy", "free_port", "new_s3_server", "s3_server"]


def free_port() -> int:
    """Return a free port for which the one that gRPC uses is free too."""
    return start.free_port(with_grpc=True)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = S3Server(tmp_path_factory.mktemp("s3"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def new_s3_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """Start a server for one test, with its keys in the environment."""
    from s3fs import S3FileSystem

    server = S3Server(tmp_path)
    server.start()
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    clear_cache()
    yield server
    S3FileSystem.clear_instance_cache()
    clear_cache()
    server.kill()
