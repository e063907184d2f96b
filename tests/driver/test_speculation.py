import pytest
from clock import Clock
from factories import shard_of

from audiopipe.driver import speculation
from audiopipe.driver.speculation import MIN_OVERDUE_S, SpeculationPolicy
from audiopipe.types import Video

A, B = (shard_of([], index=index) for index in range(2))
SIZE = (0, 0.0)  # unknown


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, speculation)


def test_a_shard_of_twice_the_longest_duration_is_overdue(clock: Clock) -> None:
    policy = SpeculationPolicy()
    policy.record(30.0, *SIZE)
    policy.record(60.0, *SIZE)
    assert policy.overdue([A], idle=True) == []
    clock.now += 100
    assert policy.overdue([A, B], idle=True) == []
    clock.now += 21
    assert policy.overdue([A, B], idle=True) == [A.name]
    clock.now += 100
    assert policy.overdue([B], idle=True) == [B.name]


def test_time_counts_only_from_when_a_thread_is_idle(clock: Clock) -> None:
    policy = SpeculationPolicy()
    policy.record(60.0, *SIZE)
    for _ in range(5):
        assert policy.overdue([A], idle=False) == []
        clock.now += 100
    assert policy.overdue([A], idle=True) == []
    clock.now += 121
    assert policy.overdue([A], idle=False) == [], "something came that it may wait for"
    assert policy.overdue([A], idle=True) == []
    clock.now += 121
    assert policy.overdue([A], idle=True) == [A.name]


def test_no_shard_is_overdue_before_the_first_ends_or_while_short(clock: Clock) -> None:
    policy = SpeculationPolicy()
    policy.overdue([A], idle=True)
    clock.now += 10_000
    assert policy.overdue([A], idle=True) == []
    policy = SpeculationPolicy()
    policy.record(0.5, *SIZE)
    policy.overdue([A], idle=True)
    clock.now += MIN_OVERDUE_S - 1
    assert policy.overdue([A], idle=True) == []
    clock.now += 2
    assert policy.overdue([A], idle=True) == [A.name]


@pytest.mark.parametrize(("small", "large"), [((10, None), (100, None)), ((None, 60.0), (None, 600.0))])
def test_a_shard_that_holds_more_may_take_longer(
    clock: Clock, small: tuple[int | None, float | None], large: tuple[int | None, float | None]
) -> None:
    policy = SpeculationPolicy()
    policy.record(30.0, small[0] or 0, small[1] or 0.0)
    huge = shard_of([Video("w", "en", "w.tar", *large)], index=1)
    assert policy.expected_s(huge) == 300.0
    policy.overdue([huge, A], idle=True)
    clock.now += 599
    assert policy.overdue([huge, A], idle=True) == [A.name]
    clock.now += 2
    assert policy.overdue([huge], idle=True) == [huge.name]
