import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import wait_until

from audiopipe.pipeline.prefetch import Prefetcher, interleave, submit_ahead


@pytest.fixture(autouse=True)
def no_leaks():
    before = set(threading.enumerate())
    yield
    wait_until(lambda: set(threading.enumerate()) <= before, "the end of all threads")


def recorded(items, pulled):
    for item in items:
        pulled.append(item)
        yield item


@given(st.lists(st.integers(0, 9)), st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_items_come_in_order_whatever_they_weigh(items, limit):
    with closing(Prefetcher(items, limit, weight=lambda item: item)) as ahead:
        assert list(ahead) == items


def test_it_runs_ahead_by_the_limit_and_no_further():
    pulled = []
    with closing(Prefetcher(recorded(range(100), pulled), 3)) as ahead:
        wait_until(lambda: len(pulled) == 4)  # three wait, the thread holds the fourth
        time.sleep(0.05)
        assert len(pulled) == 4
        assert next(ahead) == 0
        wait_until(lambda: len(pulled) == 5)


def test_it_records_how_many_items_waited_at_each_request():
    depths = []
    with closing(Prefetcher(range(3), 3, on_take=depths.append)) as ahead:
        wait_until(lambda: ahead._finished)
        assert list(ahead) == [0, 1, 2]
    assert depths == []  # the depth is not recorded after the end of the input
    with closing(Prefetcher(recorded(range(9), []), 2, on_take=depths.append)) as ahead:
        wait_until(lambda: len(ahead._waiting) == 2)
        next(ahead)
    assert depths == [2]


def test_an_item_heavier_than_the_limit_still_passes_alone():
    pulled = []
    with closing(Prefetcher(recorded([50, 50, 50], pulled), 10, weight=lambda item: item)) as ahead:
        wait_until(lambda: len(pulled) == 2)
        time.sleep(0.05)
        assert len(pulled) == 2
        assert list(ahead) == [50, 50, 50]


def test_an_exception_comes_where_it_arose_and_once():
    def broken():
        yield 1
        raise ValueError("broken")

    with closing(Prefetcher(broken(), 5)) as ahead:
        assert next(ahead) == 1
        with pytest.raises(ValueError, match="broken"):
            next(ahead)
        with pytest.raises(StopIteration):
            next(ahead)


def test_closing_early_ends_the_producer_and_its_clean_up():
    cleaned = threading.Event()

    def endless():
        try:
            while True:
                yield 1
        finally:
            cleaned.set()

    ahead = Prefetcher(endless(), 2)
    assert next(ahead) == 1
    ahead.close()
    assert cleaned.is_set()


def test_closing_before_anything_was_taken_ends_the_thread():
    Prefetcher(iter(range(10)), 1).close()


def test_closing_twice_is_harmless():
    ahead = Prefetcher([1, 2], 1)
    ahead.close()
    ahead.close()


def test_an_error_in_the_producers_clean_up_does_not_hang_consumers():
    def bad_end():
        try:
            yield 1
            yield 2
        finally:
            raise OSError("clean-up failed")

    ahead = Prefetcher(bad_end(), 1)
    assert next(ahead) == 1
    ahead.close()


def test_futures_come_in_order_although_work_ends_in_another():
    def work(n):
        time.sleep(0.02 if n % 2 else 0.0)
        return n * n

    with ThreadPoolExecutor(4) as pool:
        assert [(n, f.result()) for n, f in submit_ahead(pool, work, range(9), 3)] == [(n, n * n) for n in range(9)]


def test_work_is_started_only_so_far_ahead():
    pulled = []
    with ThreadPoolExecutor(8) as pool, closing(submit_ahead(pool, str, recorded(range(100), pulled), 3)) as ahead:
        next(ahead)
        assert pulled == [0, 1, 2, 3, 4]  # the last item was pulled and not started


def test_work_under_way_is_bounded_by_weight_too_but_never_to_nothing():
    pulled = []
    with ThreadPoolExecutor(8) as pool:
        ahead = submit_ahead(pool, str, recorded([6, 6, 6, 1, 1, 50, 1], pulled), 3, limit=10, weight=lambda n: n)
        assert next(ahead)[0] == 6
        assert pulled == [6, 6]
        assert [n for n, _ in ahead] == [6, 6, 1, 1, 50, 1]


def test_closing_cancels_what_has_not_begun():
    release, ran = threading.Event(), []

    def work(n):
        release.wait(60)
        ran.append(n)

    with ThreadPoolExecutor(1) as pool:
        ahead = submit_ahead(pool, work, range(10), 4)
        next(ahead)
        ahead.close()
        release.set()
    assert ran == [0]


def test_a_failure_is_raised_at_its_own_item_alone():
    with ThreadPoolExecutor(2) as pool:
        results = [f.exception() for _, f in submit_ahead(pool, lambda n: 1 // n, [1, 0, 1], 2)]
    assert [type(error).__name__ for error in results] == ["NoneType", "ZeroDivisionError", "NoneType"]


def interleaved(streams, cycle_length=3, block_length=2, threads=3, limit=4):
    return interleave(streams, cycle_length, block_length, threads, limit, lambda item: 1)


def items_of(n, count):
    yield from ((n, i) for i in range(count))


def slow(n, count):
    for i in range(count):
        time.sleep(0.001 * (n % 3))
        yield n, i


@pytest.mark.parametrize("threads", [0, 1, 2, 5])
def test_the_order_is_the_same_with_any_number_of_threads(threads):
    counts = [5, 1, 0, 4, 7, 2, 2]
    expected = list(interleaved((items_of(n, c) for n, c in enumerate(counts)), threads=0))
    items = list(interleaved((slow(n, c) for n, c in enumerate(counts)), threads=threads))
    assert items == expected
    assert len(items) == sum(counts)


def test_streams_take_turns_and_a_new_one_replaces_a_finished_one():
    streams = (items_of(n, c) for n, c in enumerate([3, 1, 3, 1]))
    order = list(interleaved(streams, cycle_length=2, block_length=2))
    assert order == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (0, 2), (3, 0), (2, 2)]


@given(st.lists(st.integers(0, 9), max_size=9), st.integers(1, 4), st.integers(1, 4), st.integers(0, 4))
@settings(max_examples=40)
def test_every_item_comes_once_and_in_the_order_of_its_stream(counts, cycle_length, block_length, threads):
    items = list(interleaved((items_of(n, c) for n, c in enumerate(counts)), cycle_length, block_length, threads))
    assert sorted(items) == [(n, i) for n, c in enumerate(counts) for i in range(c)]
    for n, c in enumerate(counts):
        assert [i for m, i in items if m == n] == list(range(c))


def test_streams_with_threads_work_at_the_same_time():
    meeting = threading.Barrier(3, timeout=60)

    def stream(n):
        meeting.wait()
        yield n

    assert list(interleaved(stream(n) for n in range(3))) == [0, 1, 2]


def test_closing_early_closes_every_stream_and_opens_none():
    opened, closed = [], []

    def stream(n):
        opened.append(n)
        try:
            while True:
                yield n
        finally:
            closed.append(n)

    items = interleaved((stream(n) for n in range(5)), threads=2)
    assert [next(items) for _ in range(5)] == [0, 0, 1, 1, 2]
    items.close()
    assert sorted(closed) == sorted(opened) == [0, 1, 2]


@pytest.mark.parametrize("threads", [0, 3])
def test_a_broken_stream_raises_after_its_earlier_items(threads):
    def stream(n):
        yield n
        if n == 1:
            raise OSError("broken")

    items = interleaved((stream(n) for n in range(5)), threads=threads)
    assert [next(items) for _ in range(4)] == [0, 3, 4, 1]
    with pytest.raises(OSError, match="broken"):
        next(items)
