"""Fixtures: an empty ledger, and a factory of results to record in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ledger_rows import RUN, shard_result

from audiopipe.ledger import SqliteLedger
from audiopipe.types import ShardResult


@pytest.fixture
def make_result() -> Callable[..., ShardResult]:
    return shard_result


@pytest.fixture
def run_id() -> str:
    return RUN


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    with SqliteLedger(tmp_path / "_ledger.sqlite") as ledger:
        yield ledger
