import doctest
import importlib
import inspect
import pkgutil
import threading
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import reference
import torch
from fake_gpu import DEVICE, fake_gpu
from hypothesis import given, settings
from hypothesis import strategies as st

from audiopipe import kernels

# Tolerance between two ways of batching: float32 rounding differs in products of different shapes.
TOLERANCE = {"loudness_lufs": 1e-4, "momentary_max_lufs": 1e-4, "short_term_max_lufs": 1e-4, "loudness_range_lu": 2e-4}


def assert_same(actual: kernels.Metrics, expected: kernels.Metrics) -> None:
    for name in kernels.METRICS:
        tolerance = {"atol": TOLERANCE.get(name, 1e-4), "rtol": 1e-4}
        torch.testing.assert_close(
            getattr(actual, name),
            getattr(expected, name),
            **tolerance,
            equal_nan=True,
            msg=lambda m, name=name: f"{name}: {m}",
        )


def scenes(count: int, samples: int, channels: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    loud = torch.rand(count, channels, samples // 500 + 1, generator=generator).repeat_interleave(500, -1)
    return torch.randn(count, channels, samples, generator=generator) * 0.2 * loud[..., :samples] ** 2


def test_metrics_have_the_documented_fields_in_order() -> None:
    expected = [
        "loudness_lufs",
        "momentary_max_lufs",
        "short_term_max_lufs",
        "loudness_range_lu",
        "true_peak_dbtp",
        "sample_peak_dbfs",
        "rms_dbfs",
        "crest_db",
        "dc_offset",
        "clipping_ratio",
        "silence_ratio",
        "snr_db",
        "zero_crossing_rate",
        "spectral_centroid_hz",
        "spectral_bandwidth_hz",
        "spectral_rolloff_hz",
        "spectral_flatness",
        "bandwidth_hz",
    ]
    assert [field.name for field in fields(kernels.Metrics)] == expected == list(kernels.METRICS)


def test_metrics_stack_to_one_array() -> None:
    metrics = kernels.measure(scenes(3, 20_000), 16_000)
    assert metrics.to_numpy().shape == (3, 18)
    assert metrics.to_numpy().dtype == np.float32
    np.testing.assert_array_equal(metrics.to_numpy()[:, 6], metrics.rms_dbfs.numpy())


@pytest.mark.parametrize("rate", [16_000, 44_100])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_measure_equals_the_single_kernels(rate: int, channels: int) -> None:
    x = scenes(3, 4 * rate, channels)
    lengths = torch.tensor([4 * rate, 3 * rate + 777, 1234])
    metrics = kernels.measure(x, rate, lengths)
    parts: dict[str, Any] = {}
    result = kernels.loudness(x, rate, lengths)
    parts |= {**vars(result), "loudness_lufs": result.integrated_lufs, "loudness_range_lu": result.range_lu}
    parts |= vars(kernels.levels(x, lengths)) | vars(kernels.spectral(x, rate, lengths))
    for name in kernels.METRICS:
        torch.testing.assert_close(getattr(metrics, name), parts[name], equal_nan=True)
    torch.testing.assert_close(metrics.loudness_lufs, kernels.integrated_loudness(x, rate, lengths), equal_nan=True)


@settings(max_examples=12)
@given(st.lists(st.integers(0, 30_000), min_size=1, max_size=5), st.sampled_from([8_000, 11_025, 16_000, 48_000]))
def test_a_batch_equals_its_items_measured_singly(sizes: list[int], rate: int) -> None:
    x = scenes(len(sizes), 30_000)
    batched = kernels.measure(x, rate, torch.tensor(sizes))
    single = [kernels.measure(item[None, :, :n], rate).stack() for item, n in zip(x, sizes, strict=True)]
    assert_same(batched, kernels.Metrics(*torch.cat(single).unbind(1)))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("dtype", [torch.int16, torch.float32, torch.float64])
def test_a_list_of_items_equals_a_padded_batch(dtype: torch.dtype, channels: int) -> None:
    lengths = torch.tensor([1 << 21, 24_000, 1, 20_011, 0])  # the first is longer than a tile
    x = scenes(5, 1 << 21, channels).double()
    x = (x * 32767).round().to(torch.int16) if dtype == torch.int16 else x.to(dtype)
    items = [item[:, :n] for item, n in zip(x, lengths, strict=True)]
    assert_same(kernels.measure(items, 16_000), kernels.measure(x, 16_000, lengths))
    short = kernels.measure(items[1:], 16_000)
    assert short.loudness_lufs.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_same(short, kernels.measure(x[1:, :, :30_000], 16_000, lengths[1:]))


@pytest.mark.parametrize("sizes", [[50_000, 20_001, 0, 300], [1_200_000, 40], []])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
@pytest.mark.parametrize("to_rate", [16_000, 44_100])
def test_measure_and_resample_equals_both_kernels(
    sizes: list[int], channels: int, dtype: torch.dtype, to_rate: int
) -> None:
    x = scenes(max(len(sizes), 1), max(sizes, default=100), channels)[: len(sizes)]
    x = x if dtype.is_floating_point else (x * 32_767).round().to(torch.int16)
    mono = (x if dtype.is_floating_point else x / 32_768).mean(1, keepdim=True)
    lengths = torch.tensor(sizes, dtype=torch.int64)
    items = [item[:, :size] for item, size in zip(x, sizes, strict=True)]
    expected, signal = kernels.measure(x, 44_100, lengths), kernels.resample(mono, 44_100, to_rate, lengths)
    for audio, valid in [(x, lengths), (items, None)] if sizes else [(x, lengths)]:
        metrics, y = kernels.measure_and_resample(audio, 44_100, to_rate, valid)
        assert_same(metrics, expected)
        torch.testing.assert_close(y, signal, atol=1e-6, rtol=0)


def test_incompatible_items_are_refused() -> None:
    mono, stereo = torch.zeros(1, 100), torch.zeros(2, 100)
    for items, message in [
        ([], "x must be a tensor or a list of at least one item"),
        ([mono, stereo], "all items of x must have the same number of channels"),
        ([mono, mono.double()], "all items of x must have the same number of channels"),
        ([mono[0]], "items of x must have two dimensions"),
        ([torch.zeros(3, 100)], "x must have one of these numbers of channels"),
    ]:
        with pytest.raises(ValueError, match=message):
            kernels.measure(items, 16_000)
    with pytest.raises(ValueError, match="lengths are for a padded batch"):
        kernels.measure([mono], 16_000, torch.tensor([100]))


def test_padding_of_any_value_does_not_change_a_result() -> None:
    x, lengths = scenes(3, 24_000), torch.tensor([24_000, 20_011, 3])
    expected = kernels.measure(x, 16_000, lengths)
    for filler in (float("nan"), float("inf"), 1e30):
        padded = torch.full((3, 1, 40_000), filler)
        for row, item, n in zip(padded, x, lengths, strict=True):
            row[:, :n] = item[:, :n]
        assert_same(kernels.measure(padded, 16_000, lengths), expected)
        y = kernels.resample(padded, 16_000, 8_000, lengths)
        torch.testing.assert_close(y[..., :12_000], kernels.resample(x, 16_000, 8_000, lengths), atol=1e-6, rtol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("position", [0, 11_111, 23_999])
def test_a_bad_sample_is_nan_for_its_item_only(bad: float, position: int) -> None:
    x = scenes(3, 24_000)
    expected = kernels.measure(x, 16_000).stack()
    x[1, 0, position] = bad
    actual = kernels.measure(x, 16_000).stack()
    assert torch.isnan(actual[1]).all()
    torch.testing.assert_close(actual[[0, 2]], expected[[0, 2]], equal_nan=True)
    result = kernels.loudness(x, 16_000)
    assert all(torch.isnan(v[1]).all() for v in vars(result).values() if isinstance(v, torch.Tensor))
    assert torch.isnan(kernels.spectral(x, 16_000).spectral_centroid_hz[1])
    assert torch.isnan(kernels.levels(x).rms_dbfs[1])
    y = kernels.resample(x, 16_000, 48_000)
    assert torch.isfinite(y[[0, 2]]).all()


def test_int16_is_float_of_full_scale_one() -> None:
    pcm = (scenes(2, 20_000) * 32_768).clamp(-32_768, 32_767).to(torch.int16)
    assert_same(kernels.measure(pcm, 16_000), kernels.measure(pcm / 32_768, 16_000))


def test_float64_is_computed_in_float64() -> None:
    x = scenes(2, 60_000).double()
    metrics = kernels.measure(x, 48_000)
    assert metrics.stack().dtype == torch.float64
    exact = [reference.integrated(item.numpy(), 48_000) for item in x]
    np.testing.assert_allclose(metrics.loudness_lufs.numpy(), exact, atol=1e-9)


def test_an_empty_batch_has_empty_results() -> None:
    for batch, samples in ((0, 0), (0, 1_000), (3, 0)):
        x = torch.zeros(batch, 1, samples)
        assert kernels.measure(x, 16_000).stack().shape == (batch, 18)
        assert kernels.loudness(x, 16_000).momentary_lufs.shape == (batch, 0)
        assert kernels.integrated_loudness(x, 16_000).shape == (batch,)
        assert kernels.levels(x).rms_dbfs.shape == (batch,)
        assert kernels.spectral(x, 16_000).snr_db.shape == (batch,)
        assert kernels.resample(x, 16_000, 8_000).shape == (batch, 1, samples // 2)
    assert torch.isnan(kernels.measure(torch.zeros(3, 1, 0), 16_000).stack()).all()


def test_input_is_never_written_to() -> None:
    x = scenes(2, 20_000)
    before = x.clone()
    lengths = torch.tensor([20_000, 5_000])
    kernels.measure(x, 16_000, lengths)
    kernels.resample(x, 16_000, 8_000, lengths)
    kernels.resample(x, 16_000, 16_000, lengths)
    assert torch.equal(x, before)


def test_non_contiguous_views_give_the_same_results() -> None:
    x = scenes(2, 20_000, 2)
    assert_same(kernels.measure(x.mT.contiguous().mT, 16_000), kernels.measure(x, 16_000))
    assert_same(kernels.measure(x[:, :1, ::2], 8_000), kernels.measure(x[:, :1, ::2].contiguous(), 8_000))


def test_a_batch_gives_the_same_bits_on_any_number_of_threads() -> None:
    x = scenes(5, 30_000)
    expected = kernels.measure(x, 17_000).stack()
    results: list[torch.Tensor] = []
    threads = [threading.Thread(target=lambda: results.append(kernels.measure(x, 17_000).stack())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(torch.equal(result.nan_to_num(), expected.nan_to_num()) for result in results)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: kernels.measure(x, 7_999), "sample_rate"),
        (lambda x: kernels.measure(x, 192_001), "sample_rate"),
        (lambda x: kernels.measure(x, 44_100.5), "sample_rate"),  # type: ignore[arg-type]
        (lambda x: kernels.loudness(x[0], 16_000), "x"),
        (lambda x: kernels.integrated_loudness(x.expand(-1, 3, -1), 16_000), "x"),
        (lambda x: kernels.measure(x.long(), 16_000), "x"),
        (lambda x: kernels.levels(x.numpy()), "x"),
        (lambda x: kernels.levels(x, torch.tensor([1])), "lengths"),
        (lambda x: kernels.levels(x, torch.tensor([1, 101])), "lengths"),
        (lambda x: kernels.levels(x, torch.tensor([-1, 1])), "lengths"),
        (lambda x: kernels.levels(x, torch.tensor([1.0, 1.0])), "lengths"),
        (lambda x: kernels.spectral(x, 16_000, n_fft=33), "n_fft"),
        (lambda x: kernels.spectral(x, 16_000, n_fft=512, hop_length=513), "hop_length"),
        (lambda x: kernels.measure_and_resample(x, 16_000, 200_000), "to_rate"),
        (lambda x: kernels.resample(x, 0, 16_000), "from_rate"),
        (lambda x: kernels.resample(x, 16_000, 200_000), "to_rate"),
    ],
)
def test_a_bad_argument_is_named(call: Any, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must "):
        call(torch.zeros(2, 1, 100))


def test_everything_exported_exists_and_is_documented() -> None:
    for name in kernels.__all__:
        value = getattr(kernels, name)
        assert isinstance(value, (dict, float)) or inspect.getdoc(value)


@pytest.mark.parametrize("module", [info.name for info in pkgutil.iter_modules(kernels.__path__)])
def test_doctests_run_and_imports_stay_in_kernels(module: str) -> None:
    loaded = importlib.import_module(f"audiopipe.kernels.{module}")
    assert doctest.testmod(loaded).failed == 0
    for line in inspect.getsource(loaded).splitlines():
        if line.startswith(("import audiopipe", "from audiopipe")):
            assert line.startswith(("from audiopipe.kernels", "from audiopipe.metrics"))  # names and units only


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_equals_the_cpu() -> None:
    for dtype in (torch.int16, torch.float32):
        x = scenes(4, 96_000) if dtype.is_floating_point else (scenes(4, 96_000) * 32_768).to(torch.int16)
        lengths = torch.tensor([96_000, 60_001, 5_000, 0])
        actual, expected = kernels.measure(x.cuda(), 48_000, lengths), kernels.measure(x, 48_000, lengths)
        torch.testing.assert_close(actual.stack().cpu(), expected.stack(), atol=1e-3, rtol=1e-3, equal_nan=True)
        both, y = kernels.measure_and_resample(x.cuda(), 48_000, 16_000, lengths)
        torch.testing.assert_close(both.stack(), actual.stack(), atol=1e-4, rtol=1e-4, equal_nan=True)
        torch.testing.assert_close(y.cpu(), kernels.resample(x, 48_000, 16_000, lengths), atol=1e-5, rtol=0)
        y = kernels.resample(x.cuda(), 48_000, 16_000, lengths).cpu()
        torch.testing.assert_close(y, kernels.resample(x, 48_000, 16_000, lengths), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32, torch.float64])
@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (44_100, 2), (48_000, 6)])
def test_all_kernels_stay_on_the_device_of_the_audio(
    monkeypatch: pytest.MonkeyPatch, rate: int, channels: int, dtype: torch.dtype
) -> None:
    x = scenes(5, rate, channels)
    x = x.to(dtype) if dtype.is_floating_point else (x * 32_768).to(dtype)
    lengths = torch.tensor([rate, rate * 3 // 4, 999, 1, 0])
    calls = {
        "integrated_loudness": lambda x: kernels.integrated_loudness(x, rate, lengths),
        "loudness": lambda x: kernels.loudness(x, rate, lengths),
        "levels": lambda x: kernels.levels(x, lengths),
        "spectral": lambda x: kernels.spectral(x, rate, lengths),
        "measure": lambda x: kernels.measure(x, rate, lengths),
        "resample": lambda x: kernels.resample(x, rate, 16_000, lengths),
        "measure_and_resample": lambda x: kernels.measure_and_resample(x, rate, 16_000, lengths),
    }
    assert set(calls) == {name for name in kernels.__all__ if name[0].islower()} - {"resampled_length"}
    for name, call in calls.items():
        with fake_gpu(monkeypatch):
            results = tensors(call(x.to(DEVICE)))
            assert {tensor.device for tensor in results} == {DEVICE}, name
            results = [tensor.cpu() for tensor in results]
        torch.testing.assert_close(results, tensors(call(x)), atol=1e-4, rtol=1e-4, equal_nan=True)


def tensors(result: Any) -> list[torch.Tensor]:
    """List the tensors of a kernel's result in order."""
    if isinstance(result, tuple):
        return [tensor for part in result for tensor in tensors(part)]
    parts = [result] if isinstance(result, torch.Tensor) else [getattr(result, f.name) for f in fields(result)]
    return [part for part in parts if isinstance(part, torch.Tensor)]


def test_device_work_does_not_grow_with_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []
    for count in (3, 40):
        x = scenes(count, 48_000)
        with fake_gpu(monkeypatch) as counters:
            kernels.measure_and_resample(x.to(DEVICE), 48_000, 16_000)
        counts.append(dict(counters))
    assert counts[0]["waits"] == counts[1]["waits"] <= 5
    assert counts[1]["operations"] <= counts[0]["operations"] < 700
