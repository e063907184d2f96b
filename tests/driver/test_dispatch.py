from collections.abc import Iterator

import pytest
from distributed import Client, LocalCluster
from factories import config, shard_of
from waiting import wait_until

from audiopipe.config import RunConfig
from audiopipe.driver.dispatch import Dispatcher
from audiopipe.errors import StoreError
from audiopipe.types import Shard, ShardResult

SHARD, OTHER = shard_of([]), shard_of([], index=1)
MISSING = "tcp://127.0.0.1:1"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster,
        Client(cluster) as client,
    ):
        yield client


def fail(shard: Shard, config: RunConfig, run_id: str, worker: str) -> ShardResult:
    raise StoreError(f"{shard.name} on {worker}")


def test_a_shard_that_is_submitted_again_runs_again(client: Client) -> None:
    dispatcher = Dispatcher(config(), "run", "driver", fail)
    for _ in range(2):
        dispatcher.start(client, SHARD, None, isolated=False, last_attempt=False)
        ended = dispatcher.take_next(60.0)
        assert ended is not None
        future, shard = ended
        assert (shard, future.status) == (SHARD, "error")
        assert "en-000000 on driver/0" in str(future.exception())
    assert dispatcher.take_next(0.0) is None


def test_shards_whose_workers_have_left_are_stranded(client: Client) -> None:
    dispatcher = Dispatcher(config(), "run", "driver", fail)
    dispatcher.start(client, SHARD, [MISSING], isolated=False, last_attempt=False)
    dispatcher.start(client, OTHER, None, isolated=False, last_attempt=False)
    wait_until(lambda: not dispatcher.finished.empty())
    assert dispatcher.take_stranded([MISSING]) == []
    assert dispatcher.take_stranded(["tcp://127.0.0.1:2"]) == [SHARD]
    assert list(dispatcher.running.values()) == [OTHER]


def test_the_second_attempt_of_a_shard_is_discarded_with_the_first(client: Client) -> None:
    dispatcher = Dispatcher(config(), "run", "driver", fail)
    for _ in range(2):
        dispatcher.start(client, SHARD, [MISSING], isolated=False, last_attempt=False)
    assert len(dispatcher.others(SHARD.name)) == 2
    dispatcher.discard(SHARD.name)
    assert dispatcher.running == {}
    assert dispatcher.take_stranded([]) == []
