"""A stream splits a dataset among readers without overlap or loss, shuffles by seed, and resumes in an epoch."""

from __future__ import annotations

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import wav_video
from output_factory import config, make_output
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from audiopipe.bench.loaders import run_benchmark
from audiopipe.dataset.epoch import EpochOrder
from audiopipe.dataset.read_ahead import coalesce
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.segment import Segment
from audiopipe.errors import ConfigError
from audiopipe.store.objects import Store

SEGMENTS_PER_VIDEO = 14


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """70 segments in three shards of two languages."""
    folder = tmp_path_factory.mktemp("stream")
    for number in range(5):
        spans = [
            {"start": 0.1 + 0.5 * n, "end": 0.5 + 0.5 * n, "text": f"{number} {n}"} for n in range(SEGMENTS_PER_VIDEO)
        ]
        language = ("en", "de")[number % 2]
        (folder / language).mkdir(exist_ok=True)
        wav_video(folder / language, f"v{number}", 8.0, json=json.dumps({"segments": spans}).encode())
    make_output(config(folder, folder / "out", shard_videos=2, language="all"))
    return Dataset(str(folder / "out"))


@pytest.fixture(scope="module")
def keys(dataset: Dataset) -> list[str]:
    return [segment.key for segment in dataset]


def key_of(segment: Segment) -> str:
    return segment.key


def sample_of(segment: Segment) -> tuple[str, int, float]:
    return segment.key, len(segment.audio), float(segment.audio.sum())


def read(stream: Any) -> list[str]:
    return [segment.key for segment in stream]


def test_a_stream_yields_what_iteration_yields(dataset: Dataset, keys: list[str]) -> None:
    stream = dataset.iterate()
    assert len(keys) == len(stream) == 5 * SEGMENTS_PER_VIDEO
    assert read(stream) == keys
    for segment, expected in zip(stream, dataset, strict=True):
        assert segment.read_bytes() == expected.read_bytes()
        assert segment.row == expected.row
        assert segment.metrics == expected.metrics


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("world_size", "workers"), [(1, 1), (2, 1), (3, 4), (12, 1)])
def test_readers_get_parts_without_overlap_or_loss(
    dataset: Dataset, keys: list[str], world_size: int, workers: int, shuffle: bool
) -> None:
    readers = [(rank, worker) for rank in range(world_size) for worker in range(workers)]
    parts = [
        read(dataset.iterate(shuffle, 1, rank, world_size, (worker, workers), columns=["text"], buffer=16))
        for rank, worker in readers
    ]
    assert sorted(key for part in parts for key in part) == sorted(keys)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    ranks = [len(dataset.iterate(shuffle, 1, rank, world_size, (0, workers))) for rank in range(world_size)]
    assert sum(ranks) == len(keys)


def test_all_readers_get_as_many_with_drop_last(dataset: Dataset) -> None:
    parts = [read(dataset.iterate(rank=rank, world_size=4, drop_last=True)) for rank in range(4)]
    assert [len(part) for part in parts] == [17] * 4
    assert len({key for part in parts for key in part}) == 68


def test_seed_and_epoch_decide_the_order(dataset: Dataset, keys: list[str]) -> None:
    stream = dataset.iterate(shuffle=True, seed=7)
    first = read(stream)
    assert first != keys
    assert read(stream) == first == read(dataset.iterate(shuffle=True, seed=7))
    assert read(dataset.iterate(shuffle=True, seed=8)) != first
    stream.set_epoch(1)
    assert read(stream) != first
    assert sorted(read(stream)) == sorted(keys)


def test_neighbors_are_torn_apart() -> None:
    # The mean distance of consecutive segments is near a third of the layout, as in a random order.
    counts = [1000] * 8
    order = EpochOrder(counts, 0, 0, 0, 8000, 1024)
    rows = np.concatenate([batch.rows for batch in order.batches(0)])
    assert sorted(rows.tolist()) == list(range(8000))
    assert np.abs(np.diff(rows)).mean() == pytest.approx(8000 / 3, rel=0.1)


@pytest.mark.parametrize("position", [0, 1, 16, 41, 70])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_state_resumes_in_the_middle_of_an_epoch(dataset: Dataset, shuffle: bool, position: int) -> None:
    def make() -> Any:
        return dataset.iterate(shuffle, seed=3, buffer=16, columns=[])

    stream = make()
    stream.set_epoch(2)
    whole = read(stream)
    iterator = iter(stream)
    begin = [next(iterator).key for _ in range(position)]
    state = json.loads(json.dumps(stream.state_dict()))
    resumed = make()
    resumed.load_state_dict(state)
    assert begin + read(resumed) == whole
    assert resumed.epoch == 2
    assert read(resumed) == whole, "the next iteration starts at the beginning"


def test_a_position_counts_for_its_epoch_only(dataset: Dataset, keys: list[str]) -> None:
    stream = dataset.iterate(shuffle=True, columns=[])
    assert len(read(stream)) == len(keys)
    assert stream.state_dict()["position"] == len(keys)
    stream.set_epoch(1)
    state = stream.state_dict()
    assert (state["epoch"], state["position"]) == (1, 0)
    whole = read(stream)
    iterator = iter(stream)
    begin = [next(iterator).key for _ in range(5)]
    resumed = dataset.iterate(shuffle=True, columns=[])
    resumed.load_state_dict(stream.state_dict())
    resumed.set_epoch(1)
    assert begin + read(resumed) == whole
    resumed.load_state_dict(stream.state_dict())
    resumed.set_epoch(2)
    assert sorted(read(resumed)) == sorted(keys)


@pytest.mark.parametrize("position", [3, 4, 17])
def test_a_part_smaller_than_the_buffer_resumes(dataset: Dataset, position: int) -> None:
    def make() -> Any:
        return dataset.iterate(shuffle=True, rank=1, world_size=4, columns=[])

    stream = make()
    whole = read(stream)
    iterator = iter(stream)
    begin = [next(iterator).key for _ in range(position)]
    resumed = make()
    resumed.load_state_dict(stream.state_dict())
    assert begin + read(resumed) == whole


def test_more_readers_than_segments_get_empty_parts(dataset: Dataset, keys: list[str]) -> None:
    parts = [read(dataset.iterate(True, rank=rank, world_size=100, columns=[])) for rank in range(100)]
    assert sorted(key for part in parts for key in part) == sorted(keys)
    assert [] in parts
    empty = dataset.filter("duration_s > 99")
    assert len(empty) == len(empty.iterate()) == len(read(empty.iterate(shuffle=True))) == 0


def count_threads() -> int:
    return sum("read" in thread.name or "ThreadPool" in thread.name for thread in threading.enumerate())


def test_threads_end_with_their_iteration(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    before = count_threads()
    iterator = iter(dataset.iterate(buffer=8))
    next(iterator)
    assert count_threads() > before
    del iterator
    assert count_threads() == before

    def refuse(segment: Segment) -> None:
        raise ValueError(segment.key)

    with pytest.raises(ValueError, match="v"):
        list(dataset.iterate(buffer=8).map(refuse))
    assert count_threads() == before

    def fail(store: Store, name: str, start: int, size: int) -> bytes:
        raise OSError("the disk is gone")

    monkeypatch.setattr(Store, "read_range", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        list(dataset.iterate(buffer=8))
    assert count_threads() == before


def test_workers_are_forked_in_the_middle_of_an_iteration(dataset: Dataset, keys: list[str]) -> None:
    stream = dataset.iterate(buffer=8)
    iterator = iter(stream)
    begin = [next(iterator).key]
    loader = DataLoader(stream.map(key_of), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert sorted(loader) == sorted(keys)
    assert begin + [segment.key for segment in iterator] == keys


def test_a_state_of_another_iteration_is_refused(dataset: Dataset) -> None:
    state = dataset.iterate(shuffle=True, seed=1).state_dict()
    with pytest.raises(ConfigError, match="seed: 1 there, 2 here"):
        dataset.iterate(shuffle=True, seed=2).load_state_dict(state)
    with pytest.raises(ConfigError, match="segments: 70 there, 42 here"):
        dataset.filter("language = 'en'").iterate(shuffle=True, seed=1).load_state_dict(state)


def test_a_loader_with_workers_reads_each_segment_once(dataset: Dataset, keys: list[str]) -> None:
    stream = dataset.iterate(shuffle=True).map(sample_of)
    loader = DataLoader(stream, batch_size=4, num_workers=2)
    samples = [key for names, _, _ in loader for key in names]
    assert sorted(samples) == sorted(keys)
    assert len(loader) == 18


def test_a_stateful_loader_resumes_its_workers(dataset: Dataset, keys: list[str]) -> None:
    def make() -> Any:
        stream = dataset.iterate(shuffle=True, buffer=16).map(key_of)
        return StatefulDataLoader(stream, batch_size=4, num_workers=2)

    iterator = iter(loader := make())
    begin = [key for _ in range(5) for key in next(iterator)]
    state = loader.state_dict()
    rest = [key for batch in iterator for key in batch]
    resumed = make()
    resumed.load_state_dict(state)
    assert [key for batch in resumed for key in batch] == rest
    assert sorted(begin + rest) == sorted(keys)


def test_a_new_epoch_reaches_persistent_workers(dataset: Dataset, keys: list[str]) -> None:
    stream = dataset.iterate(shuffle=True).map(key_of)
    loader = DataLoader(stream, batch_size=None, num_workers=1, persistent_workers=True)
    first = list(loader)
    stream.set_epoch(1)
    second = list(loader)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(keys)


def test_only_the_ranges_that_a_filter_needs_are_read(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    read_range = Store.read_range

    def count(store: Store, name: str, start: int, size: int) -> bytes:
        reads.append(size)
        return read_range(store, name, start, size)

    monkeypatch.setattr(Store, "read_range", count)
    monkeypatch.setattr("audiopipe.dataset.read_ahead.MAX_GAP_BYTES", 4096)
    chosen = dataset.filter("segment % 7 = 0")
    segments = list(chosen.iterate(shuffle=True))
    assert len(segments) == len(chosen) == 10
    assert sum(reads) == sum(segment.row["audio_bytes"] for segment in segments)
    reads.clear()
    assert len(list(dataset.iterate())) == 70
    assert len(reads) <= 4, "one range for each tar in each batch"


def test_near_places_are_read_by_one_request() -> None:
    places = [("b", 0, 10), ("a", 100, 10), ("a", 0, 10), ("a", 15, 10), ("a", 8 << 20, 9 << 20)]
    ranges = coalesce(places, max_gap=5)
    assert [(item.tar, item.start, item.stop) for item in ranges] == [
        ("b", 0, 10), ("a", 100, 110), ("a", 0, 25), ("a", 8 << 20, 17 << 20)
    ]  # fmt: skip
    assert [item.members for item in ranges] == [(0,), (1,), (2, 3), (4,)]


def test_ranks_come_from_the_environment(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert (dataset.iterate().options.rank, dataset.iterate().options.world_size) == (1, 2)
    assert dataset.iterate(rank=0, world_size=1).options.world_size == 1
    assert dataset.iterate(rank=0).options.world_size == 2
    assert dataset.iterate(world_size=4).options.rank == 1
    with pytest.raises(ConfigError, match="rank 2 is not one of 2 ranks"):
        dataset.iterate(rank=2, world_size=2)


@pytest.mark.parametrize(
    "options", [{"world_size": 0}, {"buffer": 0}, {"threads": 0}, {"seed": -1}, {"worker": (2, 2)}]
)
def test_an_argument_out_of_range_is_refused(dataset: Dataset, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"not one of|must be at least"):
        dataset.iterate(**options)
    with pytest.raises(ConfigError, match="epoch -1 is negative"):
        dataset.iterate().set_epoch(-1)


def test_a_sample_depends_on_its_seed_alone(dataset: Dataset, keys: list[str]) -> None:
    drawn = [segment.key for segment in dataset.sample(10, seed=1)]
    assert drawn == [segment.key for segment in dataset.sample(10, seed=1)]
    assert len(set(drawn)) == 10
    assert set(drawn) < set(keys)
    assert drawn != [segment.key for segment in dataset.sample(10, seed=2)]
    assert len(dataset.sample(1000)) == len(keys)
    assert all(segment.language == "en" for segment in dataset.filter("language = 'en'").sample(5))


def test_a_shortened_tar_ends_a_stream(dataset: Dataset, tmp_path: Path) -> None:
    shutil.copytree(dataset.url, tmp_path / "out")
    (tar, *_) = sorted((tmp_path / "out").glob("*/audio_*.tar"))
    tar.write_bytes(tar.read_bytes()[:20_000])
    with pytest.raises(Exception, match="is shorter than its table says"):
        list(Dataset(str(tmp_path / "out")).iterate())


def test_torch_can_batch_the_audio(dataset: Dataset) -> None:
    def to_tensor(segment: Segment) -> torch.Tensor:
        return torch.from_numpy(segment.audio[:6400])

    batch = next(iter(DataLoader(dataset.iterate().map(to_tensor), batch_size=8)))
    assert batch.shape == (8, 6400)


@pytest.mark.filterwarnings("default")
def test_the_benchmark_reads_all_segments_with_each_reader(dataset: Dataset) -> None:
    rates = run_benchmark(dataset.url, workers=0, rounds=1)
    assert {rate.segments for rate in rates.values()} == {70 - 16}  # without the first batch
    assert all(rate.segments_per_s > 0 for rate in rates.values())
    assert {name.partition(",")[0] for name in rates} == {"audiopipe", "webdataset"}
