from types import SimpleNamespace

import pytest
from distributed import KilledWorker
from factories import shard_of

from audiopipe.driver import retry
from audiopipe.driver.retry import Decision, RetryPolicy
from audiopipe.errors import (
    AudiopipeError,
    BrokenWorker,
    MissingExtra,
    PermanentStoreError,
    ScorerError,
    SourceUnavailable,
    StoreError,
    WorkerFailure,
)

SHARD, OTHER = shard_of([]), shard_of([], index=1)


def attempt(policy: RetryPolicy, error: BaseException | None, **circumstances: int) -> Decision:
    policy.attempts[SHARD.name] += 1
    return policy.decide(SHARD, error, **circumstances)  # type: ignore[arg-type]


def test_a_shard_is_retried_until_its_attempts_are_used_up() -> None:
    policy = RetryPolicy(retries=2)
    assert [attempt(policy, StoreError("away")) for _ in range(3)] == [Decision.RETRY, Decision.RETRY, Decision.LEAVE]


def test_a_canceled_task_is_retried_too() -> None:
    policy = RetryPolicy(retries=1)
    assert [attempt(policy, None), attempt(policy, None)] == [Decision.RETRY, Decision.LEAVE]


def test_a_shard_that_killed_workers_is_isolated_once() -> None:
    policy = RetryPolicy(retries=1)
    killed = KilledWorker("shard", None, 1)
    assert attempt(policy, killed) is Decision.ISOLATE
    assert policy.suspects == {SHARD.name}
    assert attempt(policy, killed) is Decision.LEAVE


def test_an_unexpected_error_isolates_the_last_attempt() -> None:
    policy = RetryPolicy(retries=1)
    assert [attempt(policy, ZeroDivisionError()) for _ in range(3)] == [
        Decision.RETRY,
        Decision.ISOLATE,
        Decision.LEAVE,
    ]


REFUSALS = [PermanentStoreError("no permission"), MissingExtra("needs s3fs"), BrokenWorker("its disk is full")]


@pytest.mark.parametrize("error", REFUSALS)
def test_refusals_in_a_row_stop_a_run_on_one_worker(error: AudiopipeError) -> None:
    policy = RetryPolicy(retries=3)
    assert [attempt(policy, error), attempt(policy, error)] == [Decision.RETRY, Decision.RETRY]
    policy.record_success()
    assert [attempt(policy, error), attempt(policy, error)] == [Decision.RETRY, Decision.LEAVE]
    assert attempt(policy, error) is Decision.STOP


@pytest.mark.parametrize("error", REFUSALS)
def test_a_second_worker_that_is_refused_too_stops_the_run(error: AudiopipeError) -> None:
    policy = RetryPolicy(retries=3)
    assert attempt(policy, error, others=1) is Decision.MOVE
    assert policy.attempts[SHARD.name] == 0, "the refusal may be the worker's, so it costs the shard nothing"
    assert attempt(policy, error, others=0, refused_by=2) is Decision.STOP


def test_a_scorer_that_fails_stops_the_run_at_once() -> None:
    policy = RetryPolicy(retries=3)
    assert attempt(policy, ScorerError("scorer 'x' failed"), others=5) is Decision.STOP


def test_an_unsound_worker_costs_the_shard_no_attempt() -> None:
    policy = RetryPolicy(retries=0)
    for _ in range(5):
        assert attempt(policy, WorkerFailure("its GPU failed"), is_unsound=True) is Decision.MOVE
    assert policy.attempts[SHARD.name] == 0


def test_a_machines_error_on_a_sound_worker_isolates_the_last_attempt() -> None:
    policy = RetryPolicy(retries=1)
    error = WorkerFailure("out of memory")
    assert [attempt(policy, error), attempt(policy, error)] == [Decision.RETRY, Decision.ISOLATE]


def test_a_shard_whose_workers_leave_again_and_again_is_isolated() -> None:
    policy = RetryPolicy(retries=1)
    for is_suspect in (False, True):
        policy.attempts[SHARD.name] += 1
        policy.record_stranded(SHARD)
        assert (SHARD.name in policy.suspects) is is_suspect


def test_missing_sources_pause_the_run_and_one_shard_probes_them() -> None:
    policy, missing = RetryPolicy(retries=2), SourceUnavailable("the folder /videos is not there")
    assert attempt(policy, missing, others=9, refused_by=1) is Decision.MOVE
    assert attempt(policy, missing, others=8, refused_by=2) is Decision.PAUSE, "two of many workers are enough"
    policy.record_success()
    policy.attempts.clear()
    assert attempt(policy, missing) is Decision.PAUSE
    policy.delay(SHARD)
    policy.attempts[OTHER.name] += 1
    assert policy.decide(OTHER, missing) is Decision.MOVE
    assert (policy.probe, policy.attempts[OTHER.name]) == (SHARD.name, 0)
    assert attempt(policy, missing) is Decision.PAUSE
    assert attempt(policy, missing) is Decision.STOP


def test_the_run_continues_once_the_probe_succeeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "BACKOFF_S", 0.0)
    policy = RetryPolicy(retries=2)
    attempt(policy, SourceUnavailable("away"))
    policy.delay(OTHER)
    policy.delay(SHARD)
    assert policy.take_due() == [SHARD], "only the probe"
    policy.record_success()
    assert policy.take_due() == [OTHER]


def test_backoff_doubles_up_to_a_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(retry, "time", SimpleNamespace(monotonic=lambda: clock.now))
    policy = RetryPolicy(retries=9)
    for attempts, backoff in ((1, 2.0), (2, 4.0), (9, 60.0)):
        policy.attempts[SHARD.name] = attempts
        clock.now = 0.0
        policy.delay(SHARD)
        clock.now = backoff - 0.1
        assert policy.take_due() == []
        assert policy.delayed == [SHARD]
        clock.now = backoff
        assert policy.take_due() == [SHARD]
        assert policy.delayed == []


def test_attempts_that_ended_with_their_cluster_do_not_count() -> None:
    policy = RetryPolicy(retries=0)
    policy.attempts.update([SHARD.name, OTHER.name, OTHER.name])
    policy.undo_attempts({SHARD.name: SHARD, OTHER.name: OTHER}.keys())
    assert policy.attempts == {SHARD.name: 0, OTHER.name: 1}
