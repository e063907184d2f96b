from types import SimpleNamespace

import pytest
from distributed import KilledWorker
from factories import shard_of

from audiopipe.driver import retry
from audiopipe.driver.retry import Decision, RetryPolicy
from audiopipe.errors import AudiopipeError, MissingExtra, PermanentStoreError, StoreError

SHARD, OTHER = shard_of([]), shard_of([], index=1)


def attempt(policy: RetryPolicy, error: BaseException | None) -> Decision:
    policy.attempts[SHARD.name] += 1
    return policy.decide(SHARD, error)


def test_a_shard_is_retried_until_its_attempts_are_used_up() -> None:
    policy = RetryPolicy(retries=2)
    assert [attempt(policy, StoreError("away")) for _ in range(3)] == [Decision.RETRY, Decision.RETRY, Decision.STOP]


def test_a_canceled_task_is_retried_too() -> None:
    policy = RetryPolicy(retries=1)
    assert [attempt(policy, None), attempt(policy, None)] == [Decision.RETRY, Decision.STOP]


def test_a_shard_that_killed_workers_is_isolated_once() -> None:
    policy = RetryPolicy(retries=1)
    killed = KilledWorker("shard", None, 1)
    assert attempt(policy, killed) is Decision.ISOLATE
    assert policy.suspects == {SHARD.name}
    assert attempt(policy, killed) is Decision.STOP


def test_an_unexpected_error_isolates_the_last_attempt() -> None:
    policy = RetryPolicy(retries=1)
    assert [attempt(policy, ZeroDivisionError()) for _ in range(3)] == [
        Decision.RETRY,
        Decision.ISOLATE,
        Decision.STOP,
    ]


@pytest.mark.parametrize("error", [PermanentStoreError("no permission"), MissingExtra("needs the package s3fs")])
def test_refusals_in_a_row_exhaust_the_policy(error: AudiopipeError) -> None:
    policy = RetryPolicy(retries=0)
    for _ in range(2):
        assert attempt(policy, error) is Decision.STOP
    policy.record_success()
    for _ in range(2):
        attempt(policy, error)
    assert not policy.exhausted
    attempt(policy, error)
    assert policy.exhausted


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
