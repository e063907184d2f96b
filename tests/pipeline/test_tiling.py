"""A batch gives the same bits in any tiling, and other workers of a GPU cannot change how it is tiled."""

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from factories import clip, config
from fake_gpu import DEVICE, SharedDevice, fake_gpu
from hypothesis import given, settings
from hypothesis import strategies as st

from audiopipe import kernels
from audiopipe.config.environment import WORKERS_PER_GPU
from audiopipe.errors import BrokenWorker
from audiopipe.pipeline import device_memory
from audiopipe.pipeline.batch import Batch
from audiopipe.pipeline.device import transfer
from audiopipe.pipeline.device_memory import CONTEXT_BYTES, limit_device_memory, memory_fraction
from audiopipe.pipeline.score import resolve_device, score
from audiopipe.pipeline.scorers import EmittedBatch, ScorerSet
from audiopipe.pipeline.tiles import run_in_tiles
from audiopipe.scorers.scorer import Column, Scorer, SegmentInfo

CPU = torch.device("cpu")
GB = 1 << 30
KEEP_ALL = {"min_loudness_lufs": None, "max_silence_ratio": None, "min_snr_db": None, "max_clipping_ratio": None}


def uneven_memory(rng):
    """Return a kernel that runs out of memory by chance, as next to other programs, unless it has one clip."""
    real = kernels.measure_and_resample

    def measure_and_resample(x, *arguments):
        if len(x) > 1 and rng.random() < 0.6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(x, *arguments)

    return measure_and_resample


@pytest.mark.parametrize(("rate", "normalize_lufs"), [(16_000, None), (44_100, -23.0), (48_000, -23.0)])
def test_any_tiling_on_a_device_gives_the_same_bits(monkeypatch, rate, normalize_lufs):
    batch = Batch(tuple(clip(rate // 2 + 137 * i, rate, index=i, seed=i) for i in range(7)))
    parameters = config(**KEEP_ALL, normalize_lufs=normalize_lufs)
    with fake_gpu(monkeypatch):
        whole = transfer(batch, DEVICE)
        expected = score(whole, parameters, DEVICE)
        for seed in range(4):
            with monkeypatch.context() as patch:
                patch.setattr(torch.cuda, "empty_cache", lambda: None)
                patch.setattr(kernels, "measure_and_resample", uneven_memory(random.Random(seed)))
                tiled = score(whole, parameters, DEVICE)
            for a, b in zip(tiled, expected, strict=True):
                np.testing.assert_array_equal(a.metrics, b.metrics)
                np.testing.assert_array_equal(a.samples, b.samples)
                assert a.gain_db == b.gain_db


class Spectrum(Scorer):
    """A scorer whose values depend on the padding of its input."""

    name, version, sample_rate = "spectrum", "1", 8_000
    columns = (Column("total", "float", "", "sum of the magnitudes"), Column("frames", "int", "", "padded length"))

    def __init__(self, limit=None):
        self.limit = limit

    def load(self, device):
        pass

    def score(self, batch):
        if self.limit is not None and len(batch.segments) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        total = torch.fft.rfft(batch.samples[:, 0]).abs().sum(-1)
        return {"total": total, "frames": [batch.samples.shape[-1]] * len(batch.segments)}


@pytest.mark.parametrize("limit", [4, 2, 1])
def test_scorers_are_given_the_same_samples_in_any_tiling(limit):
    signals = [clip(16_000 + 977 * i, seed=i).pcm[0] for i in range(7)]
    batch = EmittedBatch(signals, [SegmentInfo("v", "en", 1.0, None, None, None)] * 7, 16_000)
    expected = ScorerSet([Spectrum()], CPU).score(batch)
    assert ScorerSet([Spectrum(limit)], CPU).score(batch) == expected


@settings(max_examples=60)
@given(
    total_gb=st.integers(8, 192),
    workers=st.integers(2, 7),
    need=st.floats(0.01, 1.2),
    held=st.lists(st.floats(0, 1), min_size=6, max_size=6),
)
def test_other_workers_cannot_change_the_tiles(total_gb, workers, need, held):
    """Fill the parts of the other workers as far as they may be; a batch of 8 is divided as if it was alone."""

    def tile_sizes(shares):
        device = SharedDevice(total_gb * GB)
        worker = device.process(memory_fraction(device.total_bytes, workers), CONTEXT_BYTES)
        for share in shares[: workers - 1]:
            process = device.process(memory_fraction(device.total_bytes, workers), CONTEXT_BYTES)
            process.allocate(share * process.limit_bytes)
        sizes = []

        def run(tile):
            rows = len(range(8)[tile])
            worker.allocate(need * worker.limit_bytes * rows / 8)
            worker.free()
            sizes.append(rows)
            return [None] * rows

        run_in_tiles(8, run, CPU)
        return sizes

    assert tile_sizes(held) == tile_sizes([])


def test_without_a_limit_the_tiles_depend_on_the_neighbors():
    device = SharedDevice(24 * GB)
    worker, other = device.process(1.0), device.process(1.0)
    worker.allocate(16 * GB)
    worker.free()
    other.allocate(12 * GB)
    with pytest.raises(torch.OutOfMemoryError):
        worker.allocate(16 * GB)


@given(st.integers(12, 192), st.integers(1, 8))
def test_the_parts_and_contexts_of_all_workers_fit(total_gb, workers):
    fraction = memory_fraction(total_gb * GB, workers)
    assert 0 < fraction < 1
    assert workers * (fraction * total_gb * GB + CONTEXT_BYTES) <= total_gb * GB + workers


def test_too_many_workers_for_a_gpu_are_refused():
    with pytest.raises(BrokenWorker, match="8 workers share a GPU of 8 GB"):
        memory_fraction(8 * GB, 8)


def test_a_worker_limits_its_memory_once(monkeypatch):
    limits = []
    monkeypatch.setenv(WORKERS_PER_GPU, "4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=24 * GB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *limit: limits.append(limit))
    limit_device_memory.cache_clear()
    try:
        for _ in range(3):
            assert resolve_device(config()).type == "cuda"
    finally:
        device_memory.limit_device_memory.cache_clear()
    assert limits == [(pytest.approx(5 / 24), torch.device("cuda"))]
