import threading
import time

import pytest

from audiopipe.pipeline.timing import StageTimer


def test_seconds_of_a_stage_add_up_over_threads():
    timer = StageTimer()

    def work():
        with timer.measure("decode"):
            time.sleep(0.05)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.2 <= timer.seconds()["decode"] < 0.4
    assert timer.wall_s < 0.2


def test_the_cpu_time_of_another_process_counts_for_its_stage():
    timer = StageTimer()
    with timer.measure("decode"):
        time.sleep(0.02)
    timer.add_cpu("decode", 1.5)
    assert timer.cpu_seconds()["decode"] == pytest.approx(1.5, abs=0.02)
    assert timer.seconds()["decode"] < 0.5


def test_a_stage_that_fails_is_timed_all_the_same():
    timer = StageTimer()

    def fail():
        with timer.measure("fetch"):
            time.sleep(0.01)
            raise OSError("x")

    with pytest.raises(OSError, match="x"):
        fail()
    assert timer.seconds()["fetch"] >= 0.01


def test_iterating_times_the_wait_for_items_and_not_their_use():
    def slow():
        for i in range(3):
            time.sleep(0.01)
            yield i

    timer = StageTimer()
    for _ in timer.iterate("decode", slow()):
        time.sleep(0.05)
    assert 0.03 <= timer.seconds()["decode"] < 0.1


def test_items_are_counted_and_the_end_of_a_stream_is_not():
    timer = StageTimer()
    assert list(timer.iterate("decode", iter("abc"))) == ["a", "b", "c"]
    assert list(timer.iterate("decode", iter(""))) == []
    with timer.measure("score", items=128):
        pass
    with timer.measure("score", items=0):
        pass
    assert timer.items() == {"decode": 3, "score": 128}


def test_waiting_is_time_and_not_work():
    timer = StageTimer()
    with timer.measure("fetch"):
        time.sleep(0.05)
    assert timer.seconds()["fetch"] >= 0.05
    assert timer.cpu_seconds()["fetch"] < 0.02


def test_the_depth_of_a_queue_is_its_mean():
    timer = StageTimer()
    for depth in (0, 1, 5):
        timer.record_depth("scored", depth)
    assert timer.depths() == {"scored": 2.0}


def test_a_measurement_costs_microseconds():
    timer = StageTimer()
    started = time.perf_counter()
    for _ in range(2000):
        with timer.measure("x"):
            pass
    assert (time.perf_counter() - started) / 2000 < 100e-6
