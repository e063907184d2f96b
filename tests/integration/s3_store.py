"""A store on a real S3 server, with its keys in the environment."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from s3_server import BUCKET, S3Server, clear_caches

from audiopipe.store import retry as store_errors
from audiopipe.store.objects import Store


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[dict[str, str]], None]]:
    """Yield a function that sets the AWS variables for the next store."""

    def set_to(variables: dict[str, str]) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        clear_caches()

    monkeypatch.setattr(store_errors, "WAIT_S", 0.01)
    yield set_to
    clear_caches()


@pytest.fixture
def s3(s3_server: S3Server, environment: Callable[[dict[str, str]], None]) -> Store:
    environment(s3_server.environment())
    return Store(f"s3://{BUCKET}/{uuid.uuid4().hex}")


def upload_corpus(catalog: Path, s3: Store) -> str:
    """Upload the corpus to the store; return the address of its catalog there."""
    for path in catalog.parent.rglob("*"):
        if path.is_file():
            s3.upload(path, f"corpus/{path.relative_to(catalog.parent)}")
    return f"{s3.url}/corpus/catalog.parquet"
