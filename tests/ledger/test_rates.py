from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from audiopipe.ledger import RunRow, RunStatus, ShardRow
from audiopipe.ledger.rates import MIN_SHARDS, RECENT_SHARDS, estimate_eta, select_window
from audiopipe.types import ShardResult

Make = Callable[..., ShardResult]
START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
RUN = RunRow("r", "all", 10_000, started_at=START.isoformat(), resumed_at=START.isoformat())


@pytest.fixture
def finish(make_result: Make) -> Callable[..., ShardRow]:
    def at(minutes: float, videos: int = 10, **changes: object) -> ShardRow:
        finished_at = (START + timedelta(minutes=minutes)).isoformat()
        return ShardRow.from_result(make_result(0, videos=videos, finished_at=finished_at, **changes))

    return at


def after(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def test_the_rate_is_the_finished_amount_over_the_time(finish: Callable[..., ShardRow]) -> None:
    shards = [finish(1, 10), finish(2, 20, language="fr"), finish(4, 30, worker="host-1")]
    window = select_window(RUN, shards, after(5))
    assert window.videos_per_minute() == pytest.approx(60 / 5)
    assert window.videos_per_minute("fr") == pytest.approx(20 / 5)
    assert window.videos_per_minute(worker_id="host-1") == pytest.approx(30 / 5)
    assert window.segments_per_second() == pytest.approx(60 * 20 / 300)
    assert window.audio_per_second() == pytest.approx(60 * 100 / 300)


def test_the_window_is_ten_minutes_if_it_has_enough_shards(finish: Callable[..., ShardRow]) -> None:
    slow = [finish(minute, 1) for minute in range(1, 50)]
    fast = [finish(50 + minute / 4, 10) for minute in range(1, 41)]
    assert select_window(RUN, [*fast, *slow], after(60)).videos_per_minute() == pytest.approx(40)


def test_the_window_grows_until_it_has_enough_shards(finish: Callable[..., ShardRow]) -> None:
    shards = [finish(5 * index, 10) for index in range(1, 41)]
    window = select_window(RUN, shards, after(200))
    assert len(window.shards) == MIN_SHARDS - 1
    assert window.videos_per_minute() == pytest.approx(2)


def test_the_time_between_two_sessions_does_not_count(finish: Callable[..., ShardRow]) -> None:
    resumed = replace(RUN, resumed_at=after(600).isoformat())
    shards = [finish(minute) for minute in (1, 2, 3, 601, 602)]
    assert select_window(resumed, shards, after(604)).videos_per_minute() == pytest.approx(20 / 4)


def test_an_ended_run_keeps_the_rate_of_its_last_session(finish: Callable[..., ShardRow]) -> None:
    ended = replace(RUN, status=RunStatus.DONE, completed_at=after(100).isoformat())
    shards = [finish(minute) for minute in range(1, 101)]
    for now in (after(100), after(5000)):
        assert select_window(ended, shards, now).videos_per_minute() == pytest.approx(10)


def test_a_truncated_list_has_no_rate_before_its_first_entry(finish: Callable[..., ShardRow]) -> None:
    shards = [finish(minute / 100, 1) for minute in range(1, RECENT_SHARDS * 2 + 1)]
    ended = replace(RUN, status=RunStatus.DONE, completed_at=after(RECENT_SHARDS * 2 / 100).isoformat())
    window = select_window(ended, shards[RECENT_SHARDS:], after(RECENT_SHARDS))
    assert window.videos_per_minute() == pytest.approx(100)


def test_the_eta_is_none_without_shards_and_zero_at_the_end(finish: Callable[..., ShardRow]) -> None:
    assert estimate_eta(select_window(RUN, [], after(5)), 100) is None
    assert select_window(RUN, [], START).videos_per_minute() == 0
    left = estimate_eta(select_window(RUN, [finish(1)], after(2)), 0)
    assert left is not None
    assert left.seconds == 0


def test_few_shards_give_an_eta_without_a_range(finish: Callable[..., ShardRow]) -> None:
    expected = estimate_eta(select_window(RUN, [finish(1), finish(2)], after(2)), 100)
    assert expected is not None
    assert expected.seconds == pytest.approx(600)
    assert (expected.low_s, expected.high_s) == (None, None)


def test_the_range_is_repeatable_and_contains_the_eta(finish: Callable[..., ShardRow]) -> None:
    times = np.cumsum(np.random.default_rng(7).exponential(0.2, 60))
    window = select_window(RUN, [finish(float(time)) for time in times], after(float(times[-1])))
    first, second = estimate_eta(window, 5000), estimate_eta(window, 5000)
    assert first == second
    assert first is not None
    assert first.low_s is not None
    assert first.high_s is not None
    assert first.low_s < first.seconds < first.high_s
    # The mean of 50 exponential gaps has a relative error of 1/7; the 10-90 % range is 1.28 / 7 on each side.
    assert 0.1 < (first.high_s - first.low_s) / first.seconds < 0.8


def test_the_range_covers_the_true_end_as_often_as_stated(finish: Callable[..., ShardRow]) -> None:
    """Simulate shards of random lengths: 8 of 10 true ends should lie in the 10-90 % range."""
    random, inside = np.random.default_rng(42), 0
    for _ in range(60):
        times = np.cumsum(random.exponential(0.2, 160))
        window = select_window(RUN, [finish(float(time)) for time in times[:60]], after(float(times[59])))
        expected, truth = estimate_eta(window, 1000), 60 * float(times[159] - times[59])
        assert expected is not None
        assert expected.low_s is not None
        assert expected.high_s is not None
        inside += expected.low_s <= truth <= expected.high_s
    assert 0.65 <= inside / 60 <= 0.95


def test_regular_shards_give_a_narrower_range(finish: Callable[..., ShardRow]) -> None:
    def spread(minutes: list[float]) -> float:
        expected = estimate_eta(select_window(RUN, [finish(minute) for minute in minutes], after(10)), 1000)
        assert expected is not None
        assert expected.low_s is not None
        assert expected.high_s is not None
        return expected.high_s - expected.low_s

    irregular = sorted(np.random.default_rng(3).uniform(0, 10, 40).tolist())
    assert spread([(index + 1) / 4 for index in range(40)]) < 0.1 * spread(irregular)


def test_the_rate_of_a_stalled_run_falls(finish: Callable[..., ShardRow]) -> None:
    shards = [finish(minute / 4) for minute in range(1, 41)]
    earlier, later = (estimate_eta(select_window(RUN, shards, after(minute)), 1000) for minute in (10, 18))
    assert earlier is not None
    assert later is not None
    assert later.seconds > 1.5 * earlier.seconds
    assert later.low_s is not None
    assert earlier.high_s is not None
    assert later.low_s > earlier.high_s
