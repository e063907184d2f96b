import os
import threading
import time

import numpy as np
import pytest
import torch
from factories import clip, config
from fake_gpu import DEVICE, fake_gpu
from waiting import wait_until

from audiopipe import kernels
from audiopipe.pipeline.batch import Batch
from audiopipe.pipeline.device import SharedExclusiveLock, transfer
from audiopipe.pipeline.score import score

CPU = torch.device("cpu")
NO_RULES = {"min_loudness_lufs": None, "max_silence_ratio": None, "min_snr_db": None, "max_clipping_ratio": None}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")


def batch_of(count=6, dtype=np.int16, seed=0):
    return Batch(tuple(clip(16_000 + 100 * i, index=i, seed=seed + i, dtype=dtype) for i in range(count)))


def assert_same_bits(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a.metrics, b.metrics)
        np.testing.assert_array_equal(a.samples, b.samples)


def test_memory_pressure_changes_neither_shape_nor_bits(monkeypatch):
    batches = [batch_of(seed=10 * i) for i in range(4)]
    expected = [score(batch, config(**NO_RULES), CPU) for batch in batches]
    real, lock, state, shapes = kernels.measure_and_resample, threading.Lock(), {"inside": 0, "failed": 0}, []
    crowd = threading.Event()

    def crowded(x, *arguments):
        with lock:
            state["inside"] += 1
            shapes.append(len(x))
            full = state["inside"] > 1
            state["failed"] += full
        if full:
            crowd.set()
        try:
            assert crowd.wait(60)  # the first batch stays on the device until a second one arrives
            if full:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(x, *arguments)
        finally:
            with lock:
                state["inside"] -= 1

    monkeypatch.setattr(kernels, "measure_and_resample", crowded)
    scored = [None] * 4

    def score_batch(number):
        scored[number] = score(batches[number], config(**NO_RULES), CPU)

    threads = [threading.Thread(target=score_batch, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state["failed"] >= 1
    assert set(shapes) == {6}
    for a, b in zip(scored, expected, strict=True):
        assert_same_bits(a, b)


def test_exclusive_and_shared_holders_wait_for_each_other():
    lock, steps, may_end = SharedExclusiveLock(), [], threading.Event()

    def use_shared():
        with lock.shared():
            steps.append("shared in")
            may_end.wait(60)
            steps.append("shared out")

    def use_exclusive():
        with lock.exclusive():
            steps.append("exclusive in")
            time.sleep(0.05)
            steps.append("exclusive out")

    first = threading.Thread(target=use_shared)
    first.start()
    wait_until(lambda: steps)
    second = threading.Thread(target=use_exclusive)
    second.start()
    wait_until(lambda: lock._exclusive_waiting)
    third = threading.Thread(target=use_shared)
    third.start()
    time.sleep(0.05)
    may_end.set()
    for thread in (first, second, third):
        thread.join(60)
    assert steps == ["shared in", "shared out", "exclusive in", "exclusive out", "shared in", "shared out"]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_batch_that_was_fed_before_scores_as_one_that_was_not(dtype):
    batch = batch_of(dtype=dtype)
    device_batch = transfer(batch, CPU)
    assert {clip.dtype for clip in device_batch.samples} == {{np.int16: torch.int16, np.float32: torch.float32}[dtype]}
    assert_same_bits(score(device_batch, config(**NO_RULES), CPU), score(batch, config(**NO_RULES), CPU))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("normalize_lufs", [None, -23.0])
def test_a_batch_on_a_device_stream_gives_the_cpus_result(monkeypatch, dtype, normalize_lufs):
    parameters = config(**NO_RULES, normalize_lufs=normalize_lufs)
    with fake_gpu(monkeypatch) as counts:
        device_batch = transfer(batch_of(dtype=dtype), DEVICE)
        assert (device_batch.samples.device, device_batch.samples.dtype) == (
            DEVICE,
            torch.from_numpy(np.empty(0, dtype)).dtype,
        )
        assert device_batch.ready.stream is not torch.cuda.current_stream()
        results = score(device_batch, parameters, DEVICE)
        assert torch.cuda.current_stream().waited_for == [device_batch.ready]
    assert counts["waits"] < 10
    for scored, expected in zip(results, score(batch_of(dtype=dtype), parameters, CPU), strict=True):
        np.testing.assert_allclose(scored.metrics, expected.metrics, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(scored.samples, expected.samples, atol=1)
        assert scored.gain_db == pytest.approx(expected.gain_db, abs=1e-3)


def test_a_batch_waits_on_the_host_for_room_on_the_device(monkeypatch):
    with fake_gpu(monkeypatch):
        expected = score(batch_of(), config(**NO_RULES), DEVICE)
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "to", out_of_memory)
            device_batch = transfer(batch_of(), DEVICE)
        assert (device_batch.samples.device, device_batch.ready) == (CPU, None)
        assert_same_bits(score(device_batch, config(**NO_RULES), DEVICE), expected)


def out_of_memory(*arguments, **keywords):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_sums_of_a_gpu_are_asked_to_come_out_the_same():
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@needs_cuda
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_gpu_gets_samples_unchanged_over_a_separate_stream(dtype):
    device = torch.device("cuda")
    device_batch = transfer(batch_of(dtype=dtype), device)
    assert (device_batch.samples.device.type, device_batch.ready is not None) == ("cuda", True)
    assert device_batch.samples.dtype == {np.int16: torch.int16, np.float32: torch.float32}[dtype]
    samples, _ = device_batch.tile(device, slice(None))
    expected = np.empty(batch_of().shape, dtype)
    batch_of(dtype=dtype).collate(expected)
    np.testing.assert_array_equal(samples.cpu().numpy(), expected)


@needs_cuda
def test_on_a_gpu_the_same_batch_gives_the_same_bits_from_any_thread():
    device, parameters = torch.device("cuda"), config(**NO_RULES)
    expected = score(batch_of(), parameters, device)
    results = []
    threads = [threading.Thread(target=lambda: results.append(score(batch_of(), parameters, device))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for result in results:
        assert_same_bits(result, expected)
