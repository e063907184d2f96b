import threading
import time

import pytest

from audiopipe.pipeline import timing
from audiopipe.pipeline.timing import StageTimer


class FakeClock:
    """A clock that stands until it is advanced, in place of the module `time`."""

    def __init__(self):
        self.wall_s, self.cpu_s = 100.0, 0.0

    def perf_counter(self):
        return self.wall_s

    def thread_time(self):
        return self.cpu_s

    def wait(self, seconds):
        self.wall_s += seconds

    def work(self, seconds):
        self.wall_s += seconds
        self.cpu_s += seconds


@pytest.fixture
def clock(monkeypatch):
    fake = FakeClock()
    monkeypatch.setattr(timing, "time", fake)
    return fake


def test_seconds_of_a_stage_add_up_over_threads(clock):
    timer = StageTimer()
    begun, ended = threading.Barrier(5, timeout=60), threading.Barrier(5, timeout=60)

    def work():
        with timer.measure("decode"):
            begun.wait()
            ended.wait()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    begun.wait()
    clock.wait(0.05)
    ended.wait()
    for thread in threads:
        thread.join()
    assert timer.seconds()["decode"] == 0.2
    assert timer.wall_s == pytest.approx(0.05)


def test_the_cpu_time_of_another_process_counts_for_its_stage(clock):
    timer = StageTimer()
    with timer.measure("decode"):
        clock.wait(0.02)
    timer.add_cpu("decode", 1.5)
    assert timer.cpu_seconds()["decode"] == 1.5
    assert timer.seconds()["decode"] == 0.02


def test_a_stage_that_fails_is_timed_all_the_same(clock):
    timer = StageTimer()

    def fail():
        with timer.measure("fetch"):
            clock.wait(0.01)
            raise OSError("x")

    with pytest.raises(OSError, match="x"):
        fail()
    assert timer.seconds()["fetch"] == 0.01


def test_iterating_times_the_wait_for_items_and_not_their_use(clock):
    def slow():
        for i in range(3):
            clock.wait(0.01)
            yield i

    timer = StageTimer()
    for _ in timer.iterate("decode", slow()):
        clock.wait(0.05)
    assert timer.seconds()["decode"] == 0.03


def test_items_are_counted_and_the_end_of_a_stream_is_not():
    timer = StageTimer()
    assert list(timer.iterate("decode", iter("abc"))) == ["a", "b", "c"]
    assert list(timer.iterate("decode", iter(""))) == []
    with timer.measure("score", items=128):
        pass
    with timer.measure("score", items=0):
        pass
    assert timer.items() == {"decode": 3, "score": 128}


def test_waiting_is_time_and_not_cpu_time(clock):
    timer = StageTimer()
    with timer.measure("fetch"):
        clock.wait(0.05)
        clock.work(0.01)
    assert timer.seconds()["fetch"] == 0.06
    assert timer.cpu_seconds()["fetch"] == 0.01


def test_cpu_time_is_that_of_the_measuring_thread():
    timer = StageTimer()
    with timer.measure("decode"):
        before = time.thread_time()
        while time.thread_time() - before < 0.01:
            pass
    assert timer.cpu_seconds()["decode"] >= 0.01


def test_the_depth_of_a_queue_is_its_mean():
    timer = StageTimer()
    for depth in (0, 1, 5):
        timer.record_depth("scored", depth)
    assert timer.depths() == {"scored": 2.0}


def test_a_measurement_costs_microseconds():
    timer = StageTimer()
    started = time.thread_time()
    for _ in range(2000):
        with timer.measure("x"):
            pass
    assert (time.thread_time() - started) / 2000 < 100e-6
