from types import SimpleNamespace

import pytest

from audiopipe.driver import speculation as straggler
from audiopipe.driver.speculation import LEAST_S, Stragglers


class Clock:
    """Seconds that pass when they are told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(straggler, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def test_who_takes_twice_as_long_as_the_longest_is_late(clock: Clock) -> None:
    seen = Stragglers()
    seen.took(30.0)
    seen.took(60.0)
    assert seen.late(["a"], idle=True) == []
    clock.now += 100
    assert seen.late(["a", "b"], idle=True) == []
    clock.now += 21
    assert seen.late(["a", "b"], idle=True) == ["a"]
    clock.now += 100
    assert seen.late(["b"], idle=True) == ["b"]


def test_time_counts_only_from_when_a_thread_is_idle(clock: Clock) -> None:
    seen = Stragglers()
    seen.took(60.0)
    for _ in range(5):
        assert seen.late(["a"], idle=False) == []
        clock.now += 100
    assert seen.late(["a"], idle=True) == []
    clock.now += 121
    assert seen.late(["a"], idle=False) == [], "something came that it may wait for"
    assert seen.late(["a"], idle=True) == []
    clock.now += 121
    assert seen.late(["a"], idle=True) == ["a"]


def test_nobody_is_late_where_nothing_was_ever_done_and_short_shards_have_time(clock: Clock) -> None:
    seen = Stragglers()
    seen.late(["a"], idle=True)
    clock.now += 10_000
    assert seen.late(["a"], idle=True) == []
    seen = Stragglers()
    seen.took(0.5)
    seen.late(["a"], idle=True)
    clock.now += LEAST_S - 1
    assert seen.late(["a"], idle=True) == []
    clock.now += 2
    assert seen.late(["a"], idle=True) == ["a"]
