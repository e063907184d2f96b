import threading
import time

import pytest

from audiopipe.pipeline.timing import StageTimer


def test_seconds_of_a_stage_add_up_over_threads():
    stages = StageTimer()

    def work():
        with stages.measure("decode"):
            time.sleep(0.05)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.2 <= stages.seconds()["decode"] < 0.4
    assert stages.wall_s < 0.2


def test_what_another_process_computed_is_counted_with_its_stage():
    stages = StageTimer()
    with stages.measure("decode"):
        time.sleep(0.02)
    stages.add_cpu("decode", 1.5)
    assert stages.cpu_seconds()["decode"] == pytest.approx(1.5, abs=0.02)
    assert stages.seconds()["decode"] < 0.5


def test_a_stage_that_fails_is_timed_all_the_same():
    stages = StageTimer()

    def fail():
        with stages.measure("fetch"):
            time.sleep(0.01)
            raise OSError("x")

    with pytest.raises(OSError, match="x"):
        fail()
    assert stages.seconds()["fetch"] >= 0.01


def test_iterating_times_the_wait_for_items_and_not_their_use():
    def slow():
        for i in range(3):
            time.sleep(0.01)
            yield i

    stages = StageTimer()
    for _ in stages.iterate("decode", slow()):
        time.sleep(0.05)
    assert 0.03 <= stages.seconds()["decode"] < 0.1


def test_items_are_counted_and_the_end_of_a_stream_is_none():
    stages = StageTimer()
    assert list(stages.iterate("decode", iter("abc"))) == ["a", "b", "c"]
    assert list(stages.iterate("decode", iter(""))) == []
    with stages.measure("score", items=128):
        pass
    with stages.measure("score", items=0):
        pass
    assert stages.items() == {"decode": 3, "score": 128}


def test_waiting_is_time_and_not_work():
    stages = StageTimer()
    with stages.measure("fetch"):
        time.sleep(0.05)
    assert stages.seconds()["fetch"] >= 0.05
    assert stages.cpu_seconds()["fetch"] < 0.02


def test_the_depth_of_a_queue_is_its_mean():
    stages = StageTimer()
    for depth in (0, 1, 5):
        stages.record_depth("scored", depth)
    assert stages.depths() == {"scored": 2.0}


def test_a_reading_costs_microseconds():
    stages = StageTimer()
    started = time.perf_counter()
    for _ in range(2000):
        with stages.measure("x"):
            pass
    assert (time.perf_counter() - started) / 2000 < 100e-6
