import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audiopipe.dataset.commit import Commit, commit_name, commit_shard, publish, read_commit, reopen_shard, upload
from audiopipe.errors import VerifyError
from audiopipe.store.objects import Store
from audiopipe.types import DeadLetter, ShardResult

SHARD = "en-000000"


def result(attempt: str, device: str = "cpu") -> ShardResult:
    return ShardResult(
        *(SHARD, "en", 0, attempt, "run", "worker", 2, 1, 3, 2, {"noisy": 1}, 6.0, 4.0, 100, 50, {"decode": 1.0}),
        *(1.5, "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:01+00:00"),
        dead_letters=(DeadLetter("v", "en", "fetch", "MissingSource", "nothing there", True),),
        device=device,
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "out"))


def upload_attempt(store: Store, attempt: str, data: bytes, folder: Path, device: str = "cpu") -> Commit:
    """Upload the two objects of an attempt and return its commit, which is not yet created."""
    files = {}
    for name in ("audio_000000.tar", "videos_000000.parquet"):
        files[f"en/{name}"] = folder / f"{attempt}-{name}"
        files[f"en/{name}"].write_bytes(data + name.encode())
    return Commit(result(attempt, device), upload(store, SHARD, attempt, files), "digest")


def assert_committed(store: Store, data: bytes, attempt: str) -> None:
    committed = read_commit(store, SHARD)
    assert committed is not None
    assert committed.result.attempt == attempt
    assert store.read("en/audio_000000.tar") == data + b"audio_000000.tar"
    assert store.read("en/videos_000000.parquet") == data + b"videos_000000.parquet"
    assert sorted(store.list()) == [commit_name(SHARD), "en/audio_000000.tar", "en/videos_000000.parquet"]


def test_a_commit_comes_back_as_it_was_written(store: Store, tmp_path: Path) -> None:
    commit = upload_attempt(store, "a", b"A", tmp_path)
    assert Commit.from_json(commit.to_json()) == commit


def test_a_lost_race_publishes_the_winner_and_removes_the_loser(store: Store, tmp_path: Path) -> None:
    winner, loser = upload_attempt(store, "a", b"A", tmp_path), upload_attempt(store, "b", b"B", tmp_path)
    assert commit_shard(store, winner).attempt == "a"
    assert commit_shard(store, loser).attempt == "a"
    assert_committed(store, b"A", "a")


def test_a_straggler_publishes_a_winner_killed_before_publishing(store: Store, tmp_path: Path) -> None:
    winner = upload_attempt(store, "a", b"A", tmp_path)
    straggler = upload_attempt(store, "b", b"B", tmp_path, device="cuda:0")
    assert store.create(commit_name(SHARD), winner.to_json())  # and killed here
    assert commit_shard(store, straggler).device == "cpu"
    assert_committed(store, b"A", "a")


def test_an_attempt_that_was_killed_before_its_commit_does_not_count(store: Store, tmp_path: Path) -> None:
    upload_attempt(store, "a", b"A", tmp_path)  # and killed here
    assert read_commit(store, SHARD) is None
    commit_shard(store, upload_attempt(store, "b", b"B", tmp_path))
    assert store.read("en/audio_000000.tar").startswith(b"B")


def test_an_attempt_keeps_its_parts_when_its_create_times_out(store: Store, tmp_path: Path) -> None:
    commit = upload_attempt(store, "a", b"A", tmp_path)
    assert store.create(commit_name(SHARD), commit.to_json())  # the response is lost, and the request is sent again
    assert commit_shard(store, commit).attempt == "a"
    assert_committed(store, b"A", "a")


@pytest.mark.parametrize("killed_after", [0, 1, 2])
def test_a_half_published_commit_is_finished_by_the_next_reader(
    store: Store, tmp_path: Path, killed_after: int
) -> None:
    commit = upload_attempt(store, "a", b"A", tmp_path)
    store.create(commit_name(SHARD), commit.to_json())
    for item in commit.objects[:killed_after]:
        store.publish(item.part, item.name, item.size)
    publish(store, commit)
    publish(store, commit)
    assert_committed(store, b"A", "a")


def test_many_attempts_at_once_make_one_shard(store: Store, tmp_path: Path) -> None:
    commits = [upload_attempt(store, f"{number}", b"%d" % number, tmp_path) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        winners = {result.attempt for result in pool.map(lambda commit: commit_shard(store, commit), commits)}
    assert len(winners) == 1
    (winner,) = winners
    assert_committed(store, winner.encode(), winner)


def test_a_commit_without_its_objects_names_the_repairing_command(store: Store, tmp_path: Path) -> None:
    commit = upload_attempt(store, "a", b"A", tmp_path)
    commit_shard(store, commit)
    store.remove_all(["en/audio_000000.tar"])
    with pytest.raises(VerifyError, match=r"is committed but missing; .*`audiopipe resume .* --shard en-0"):
        publish(store, commit)


def test_a_withdrawn_shard_is_open_again(store: Store, tmp_path: Path) -> None:
    commit_shard(store, upload_attempt(store, "a", b"A", tmp_path))
    reopen_shard(store, SHARD, ["en/audio_000000.tar", "en/videos_000000.parquet", "en/never_there"])
    assert store.list() == {}
    commit_shard(store, upload_attempt(store, "b", b"B", tmp_path))
    assert_committed(store, b"B", "b")


def test_no_byte_of_a_commit_can_change_unseen(store: Store, tmp_path: Path) -> None:
    data = upload_attempt(store, "a", b"A", tmp_path).to_json()
    for position in range(0, len(data), 3):
        with pytest.raises(VerifyError, match="is damaged"):
            Commit.from_json(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
    for other in (b"", b"{}", b"[]", data[:-1], json.dumps(json.loads(data)).encode()):
        with pytest.raises(VerifyError, match="is damaged"):
            Commit.from_json(other)


def test_a_commit_cannot_be_changed_in_memory(store: Store, tmp_path: Path) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        upload_attempt(store, "a", b"A", tmp_path).config_digest = "other"  # type: ignore[misc]
