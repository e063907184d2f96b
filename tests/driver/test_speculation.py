from types import SimpleNamespace

import pytest

from audiopipe.driver import speculation
from audiopipe.driver.speculation import MIN_OVERDUE_S, SpeculationPolicy


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(speculation, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


def test_a_shard_of_twice_the_longest_duration_is_overdue(clock: Clock) -> None:
    policy = SpeculationPolicy()
    policy.record(30.0)
    policy.record(60.0)
    assert policy.overdue(["a"], idle=True) == []
    clock.now += 100
    assert policy.overdue(["a", "b"], idle=True) == []
    clock.now += 21
    assert policy.overdue(["a", "b"], idle=True) == ["a"]
    clock.now += 100
    assert policy.overdue(["b"], idle=True) == ["b"]


def test_time_counts_only_from_when_a_thread_is_idle(clock: Clock) -> None:
    policy = SpeculationPolicy()
    policy.record(60.0)
    for _ in range(5):
        assert policy.overdue(["a"], idle=False) == []
        clock.now += 100
    assert policy.overdue(["a"], idle=True) == []
    clock.now += 121
    assert policy.overdue(["a"], idle=False) == [], "something came that it may wait for"
    assert policy.overdue(["a"], idle=True) == []
    clock.now += 121
    assert policy.overdue(["a"], idle=True) == ["a"]


def test_no_shard_is_overdue_before_the_first_ends_or_while_short(clock: Clock) -> None:
    policy = SpeculationPolicy()
    policy.overdue(["a"], idle=True)
    clock.now += 10_000
    assert policy.overdue(["a"], idle=True) == []
    policy = SpeculationPolicy()
    policy.record(0.5)
    policy.overdue(["a"], idle=True)
    clock.now += MIN_OVERDUE_S - 1
    assert policy.overdue(["a"], idle=True) == []
    clock.now += 2
    assert policy.overdue(["a"], idle=True) == ["a"]
