import threading
import time
from contextlib import closing

import pytest
from factories import config, shard_of, wav_video
from waiting import wait_until

from audiopipe.pipeline.memory import MemoryBudget, get_worker_budget
from audiopipe.pipeline.prefetch import Prefetcher
from audiopipe.pipeline.shard import process_shard


def start_thread(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_a_shard_waits_for_memory_and_an_oversized_one_runs_alone():
    budget, first, inside, steps = MemoryBudget(100), threading.Event(), threading.Event(), []

    def shard(name, size, work):
        with budget.reserve(size):
            steps.append(f"{name} in")
            inside.set()
            work()
            steps.append(f"{name} out")

    large = start_thread(lambda: shard("large", 500, first.wait))
    assert inside.wait(60)
    small = start_thread(lambda: shard("small", 60, lambda: None))
    time.sleep(0.05)
    assert steps == ["large in"]
    first.set()
    for thread in (large, small):
        thread.join(60)
    assert steps == ["large in", "large out", "small in", "small out"]


def test_shards_that_fit_run_side_by_side():
    budget, meeting = MemoryBudget(100), threading.Barrier(2, timeout=60)

    def shard():
        with budget.reserve(50):
            meeting.wait()

    threads = [start_thread(shard) for _ in range(2)]
    for thread in threads:
        thread.join(60)
    assert not meeting.broken


def test_two_queues_share_one_budget_and_neither_starves_the_other():
    budget = MemoryBudget(10)
    with closing(Prefetcher(range(1, 9), 1000, lambda item: 4, budget=budget)) as left:
        wait_until(lambda: len(left._waiting) == 2)
        with closing(Prefetcher(range(1, 9), 1000, lambda item: 4, budget=budget)) as right:
            # The budget is used up, but an empty queue takes an item nevertheless.
            wait_until(lambda: len(right._waiting) == 1)
            time.sleep(0.05)
            assert (len(left._waiting), len(right._waiting)) == (2, 1)
            assert list(right) == list(range(1, 9))
        assert list(left) == list(range(1, 9))
    assert budget._acquired == 0


def test_closing_releases_all_memory_and_wakes_the_waiters():
    budget = MemoryBudget(1)
    ahead = Prefetcher(range(100), 1000, lambda item: 4, budget=budget)
    wait_until(lambda: len(ahead._waiting) == 1)
    ahead.close()
    assert budget._acquired == 0


@pytest.mark.parametrize("memory_mb", [1, 100_000])
def test_shards_that_take_turns_in_memory_give_the_same_bytes(tmp_path, memory_mb):
    shards = [shard_of([wav_video(tmp_path, f"v{i}{n}", 20.0, 48_000) for n in range(3)], index=i) for i in range(2)]
    shared = config(output=str(tmp_path / "out"), segments="fixed", memory_mb=memory_mb, min_snr_db=None)
    threads = [start_thread(lambda shard=shard: process_shard(shard, shared, "run")) for shard in shards]
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    alone = config(output=str(tmp_path / "alone"), segments="fixed", min_snr_db=None)
    for shard in shards:
        process_shard(shard, alone, "run")
        for name in (f"audio_{shard.index:06d}.tar", f"segments_{shard.index:06d}.parquet"):
            assert (tmp_path / "out/en" / name).read_bytes() == (tmp_path / "alone/en" / name).read_bytes()
    assert get_worker_budget(memory_mb)._acquired == get_worker_budget(memory_mb)._shards == 0
