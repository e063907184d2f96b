import pytest
from clock import Clock

from audiopipe.driver import steering
from audiopipe.driver.heartbeat import WorkerInfo
from audiopipe.driver.steering import HOLD_S, MAX_HOLD_S, SteeringPolicy


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch, steering)


def worker(name: str, process: int = 0) -> WorkerInfo:
    return WorkerInfo.parse(f"tcp://{name}:{process}", {"name": name})


FLEET = [worker("a"), worker("b"), worker("c")]


def test_a_retry_avoids_the_workers_on_which_its_shard_failed(clock: Clock) -> None:
    policy = SteeringPolicy()
    assert policy.choose("s", FLEET) is None
    policy.record_failure("s", "a")
    clock.now += HOLD_S
    assert policy.choose("s", FLEET) == ["tcp://b:0", "tcp://c:0"]
    assert policy.choose("other", FLEET) is None
    for name in "bc":
        policy.record_failure("s", name)
    assert policy.choose("s", FLEET) is None, "it has failed on all, so each may try again"
    assert policy.untried("s", FLEET) == []


def test_a_worker_that_fails_gets_no_work_for_ever_longer(clock: Clock) -> None:
    policy = SteeringPolicy()
    for number in range(9):
        policy.record_failure(f"s{number}", "a")
        hold_s = min(MAX_HOLD_S, HOLD_S * 2**number)
        clock.now += hold_s - 0.1
        assert policy.choose("s", FLEET) == ["tcp://b:0", "tcp://c:0"]
        clock.now += 0.1
        assert policy.choose("s", FLEET) is None
    policy.record_failure("s", "a")
    policy.record_success("t", "a")
    assert policy.choose("t", FLEET) is None, "a success ends the hold"


def test_holds_of_most_workers_do_not_count(clock: Clock) -> None:
    policy = SteeringPolicy()
    for name in "ab":
        policy.record_failure(f"shard of {name}", name)
    assert policy.choose("s", FLEET) is None, "one worker must not be given the work of three"
    assert policy.choose("s", [*FLEET, worker("d")]) == ["tcp://c:0", "tcp://d:0"]


def test_the_only_worker_is_not_held_back(clock: Clock) -> None:
    policy = SteeringPolicy()
    policy.record_failure("s", "a")
    assert policy.choose("s", FLEET[:1]) is None
    assert policy.choose("s", []) is None


def test_a_retired_worker_is_out_until_a_new_process_of_it_comes(clock: Clock) -> None:
    policy = SteeringPolicy()
    policy.retire("a", "tcp://a:0", "its disk is full")
    assert policy.choose("s", FLEET) == ["tcp://b:0", "tcp://c:0"]
    returned = [worker("a", 1), *FLEET[1:]]
    assert policy.choose("s", returned) is None
    policy.retire("a", "tcp://a:1", "its disk is full")
    assert policy.choose("s", [worker("a", 2), *FLEET[1:]]) == ["tcp://b:0", "tcp://c:0"], "twice is enough"
    assert policy.retired == {"a": "its disk is full"}
    assert SteeringPolicy().sound(FLEET) == FLEET


def test_a_refusal_that_another_worker_does_not_get_is_the_workers() -> None:
    policy = SteeringPolicy()
    policy.record_failure("s", "a", refusal="not mounted")
    policy.record_failure("t", "a", refusal="not mounted")
    assert policy.count_refusals("s") == 1
    assert policy.record_success("other", "b") == {}, "another shard may lie in another place"
    assert policy.record_success("s", "b") == {"a": "not mounted"}
    policy.record_failure("u", "a", refusal="not mounted")
    assert policy.record_success("u", "a") == {}, "it came back by itself"


def test_a_retired_worker_confirms_no_refusal() -> None:
    policy = SteeringPolicy()
    policy.record_failure("s", "full-disk", "its scratch disk is full")
    policy.retire("full-disk", "tcp://1", "its scratch disk is full")
    policy.record_failure("s", "wrong-clock", "the store refuses its time")
    assert policy.count_refusals("s") == 1
    policy.record_failure("s", "sound", "the store refuses its keys")
    assert policy.count_refusals("s") == 2
