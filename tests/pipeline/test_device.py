import os
import threading
import time

import numpy as np
import pytest
import torch
from factories import clip, config
from fake_gpu import DEVICE, absent_gpu

from audiopipe import kernels
from audiopipe.pipeline.batch import Batch
from audiopipe.pipeline.device import SharedExclusiveLock, transfer
from audiopipe.pipeline.score import score

CPU = torch.device("cpu")
NO_RULES = {"min_loudness_lufs": None, "max_silence_ratio": None, "min_snr_db": None, "max_clipping_ratio": None}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU on this machine")


def batch_of(count=6, dtype=np.int16, seed=0):
    return Batch(tuple(clip(16_000 + 100 * i, index=i, seed=seed + i, dtype=dtype) for i in range(count)))


def same_bits(found, expected):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a.metrics, b.metrics)
        np.testing.assert_array_equal(a.samples, b.samples)


def test_memory_pressure_changes_neither_shape_nor_bits(monkeypatch):
    batches = [batch_of(seed=10 * i) for i in range(4)]
    expected = [score(batch, config(**NO_RULES), CPU) for batch in batches]
    real, lock, state, shapes = kernels.measure_and_resample, threading.Lock(), {"inside": 0, "failed": 0}, []

    def crowded(x, *arguments):
        with lock:
            state["inside"] += 1
            shapes.append(len(x))
            full = state["inside"] > 1
            state["failed"] += full
        try:
            time.sleep(0.05)
            if full:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(x, *arguments)
        finally:
            with lock:
                state["inside"] -= 1

    monkeypatch.setattr(kernels, "measure_and_resample", crowded)
    found = [None] * 4

    def one(number):
        found[number] = score(batches[number], config(**NO_RULES), CPU)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state["failed"] >= 1
    assert set(shapes) == {6}
    for a, b in zip(found, expected, strict=True):
        same_bits(a, b)


def test_exclusive_and_shared_holders_wait_for_each_other():
    gate, steps, go = SharedExclusiveLock(), [], threading.Event()

    def beside():
        with gate.shared():
            steps.append("beside in")
            go.wait(5)
            steps.append("beside out")

    def alone():
        with gate.exclusive():
            steps.append("alone in")
            time.sleep(0.05)
            steps.append("alone out")

    first = threading.Thread(target=beside)
    first.start()
    while not steps:
        time.sleep(0.001)
    second = threading.Thread(target=alone)
    second.start()
    while not gate._waiting:
        time.sleep(0.001)
    third = threading.Thread(target=beside)
    third.start()
    time.sleep(0.05)
    go.set()
    for thread in (first, second, third):
        thread.join(5)
    assert steps == ["beside in", "beside out", "alone in", "alone out", "beside in", "beside out"]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_batch_that_was_fed_before_scores_as_one_that_was_not(dtype):
    batch = batch_of(dtype=dtype)
    fed = transfer(batch, CPU)
    assert {clip.dtype for clip in fed.samples} == {{np.int16: torch.int16, np.float32: torch.float32}[dtype]}
    same_bits(score(fed, config(**NO_RULES), CPU), score(batch, config(**NO_RULES), CPU))


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("normalize_lufs", [None, -23.0])
def test_a_batch_on_a_device_stream_gives_the_cpus_result(monkeypatch, dtype, normalize_lufs):
    asked = config(**NO_RULES, normalize_lufs=normalize_lufs)
    with absent_gpu(monkeypatch) as seen:
        fed = transfer(batch_of(dtype=dtype), DEVICE)
        assert (fed.samples.device, fed.samples.dtype) == (DEVICE, torch.from_numpy(np.empty(0, dtype)).dtype)
        assert fed.ready.stream is not torch.cuda.current_stream()
        found = score(fed, asked, DEVICE)
        assert torch.cuda.current_stream().waited_for == [fed.ready]
    assert seen["waits"] < 10
    for one, expected in zip(found, score(batch_of(dtype=dtype), asked, CPU), strict=True):
        np.testing.assert_allclose(one.metrics, expected.metrics, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(one.samples, expected.samples, atol=1)
        assert one.gain_db == pytest.approx(expected.gain_db, abs=1e-3)


def test_a_batch_waits_on_the_host_for_room_on_the_device(monkeypatch):
    with absent_gpu(monkeypatch):
        expected = score(batch_of(), config(**NO_RULES), DEVICE)
        with monkeypatch.context() as full:
            full.setattr(torch.Tensor, "to", out_of_memory)
            fed = transfer(batch_of(), DEVICE)
        assert (fed.samples.device, fed.ready) == (CPU, None)
        same_bits(score(fed, config(**NO_RULES), DEVICE), expected)


def out_of_memory(*arguments, **keywords):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_sums_of_a_gpu_are_asked_to_come_out_the_same():
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


@needs_cuda
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_gpu_gets_samples_unchanged_over_a_separate_stream(dtype):
    device = torch.device("cuda")
    fed = transfer(batch_of(dtype=dtype), device)
    assert (fed.samples.device.type, fed.ready is not None) == ("cuda", True)
    assert fed.samples.dtype == {np.int16: torch.int16, np.float32: torch.float32}[dtype]
    samples, _ = fed.tile(device, slice(None))
    expected = np.empty(batch_of().shape, dtype)
    batch_of(dtype=dtype).collate(expected)
    np.testing.assert_array_equal(samples.cpu().numpy(), expected)


@needs_cuda
def test_on_a_gpu_the_same_batch_gives_the_same_bits_from_any_thread():
    device, asked = torch.device("cuda"), config(**NO_RULES)
    expected = score(batch_of(), asked, device)
    found = []
    threads = [threading.Thread(target=lambda: found.append(score(batch_of(), asked, device))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        same_bits(one, expected)
