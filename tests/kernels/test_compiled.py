"""Compare compiled kernels with the plain ones of torch, which a GPU and a machine without Numba use."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_measure import assert_same, scenes

from audiopipe import kernels
from audiopipe.kernels import compiler
from audiopipe.kernels.compiled_fft import transform
from audiopipe.kernels.fft_plan import plan_fft
from audiopipe.kernels.fingerprint import Fingerprint

pytestmark = pytest.mark.skipif(not compiler.is_available(), reason="Numba is not installed or turned off")
RATES = [8_000, 11_025, 12_345, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000]


def make_audio(rate: int, channels: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Make five items of different lengths, one with clipping and silence."""
    x = scenes(5, 2 * rate, channels)
    x[1, :, rate // 3 : rate // 2] = 0
    x[1] *= 3
    x = x.clamp(-1, 32_767 / 32_768)
    lengths = torch.tensor([2 * rate, rate + 77, rate // 2 + 1, 33, 0])
    return (x * 32_768).round().to(torch.int16) if dtype == torch.int16 else x, lengths


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("channels", "dtype"), [(1, torch.float32), (1, torch.int16), (2, torch.float32)])
def test_compiled_kernels_equal_the_plain_ones(
    monkeypatch: pytest.MonkeyPatch, rate: int, channels: int, dtype: torch.dtype
) -> None:
    x, lengths = make_audio(rate, channels, dtype)
    to_rate = 48_000 if rate == 16_000 else 16_000
    metrics, signal = kernels.measure_and_resample(x, rate, to_rate, lengths)
    monkeypatch.setattr(compiler, "is_available", lambda: False)
    expected, plain_signal = kernels.measure_and_resample(x, rate, to_rate, lengths)
    assert_same(metrics, expected)
    torch.testing.assert_close(metrics.loudness_lufs, expected.loudness_lufs, atol=1e-4, rtol=0, equal_nan=True)
    torch.testing.assert_close(signal, plain_signal, atol=3e-6, rtol=0)


@settings(max_examples=25, deadline=None)
@given(
    rate=st.sampled_from([8_000, 8_001, 12_345, 16_000, 44_100, 47_999, 48_000, 96_000]),
    channels=st.sampled_from([1, 2, 5, 6]),
    samples=st.integers(1, 5_000),
    bad=st.sampled_from([None, float("nan"), float("inf"), -float("inf")]),
    share=st.floats(0.02, 1),
    phase=st.floats(0.1, 0.9),
    data=st.data(),
)
def test_items_of_any_kind_have_the_same_metrics(
    rate: int, channels: int, samples: int, bad: float | None, share: float, phase: float, data: st.DataObject
) -> None:
    """One item has a tone of any frequency, one a sample that may not be a number, one is of any length, even empty.

    A little noise is in the tone: blocks with exactly the same peak are taken in any order.
    """
    x = scenes(3, samples, channels)
    x[0] = 0.5 * torch.sin(torch.pi * (share * torch.arange(samples) + phase)) + 0.01 * x[0]
    lengths = torch.tensor([samples, samples, data.draw(st.integers(0, samples))])
    if bad is not None:
        x[1, data.draw(st.integers(0, channels - 1)), data.draw(st.integers(0, samples - 1))] = bad
    metrics, signal = kernels.measure_and_resample(x, rate, 16_000, lengths)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "is_available", lambda: False)
        expected, plain_signal = kernels.measure_and_resample(x, rate, 16_000, lengths)
    assert_same(metrics, expected)
    torch.testing.assert_close(signal[[0, 2]], plain_signal[[0, 2]], atol=1e-5, rtol=0)


def test_tones_below_half_the_rate_have_the_same_true_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    share, phase = torch.linspace(0.9, 0.999, 12), torch.linspace(0, torch.pi, 12)
    x = 0.5 * torch.sin(torch.pi * share[:, None, None] * torch.arange(1_000) + phase[:, None]).flatten(0, 1)[:, None]
    peaks = kernels.measure(x, 48_000).true_peak_dbtp
    monkeypatch.setattr(compiler, "is_available", lambda: False)
    torch.testing.assert_close(peaks, kernels.measure(x, 48_000).true_peak_dbtp, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [8, 280, 352, 1024, 3528, 13 * 64])
def test_eight_transforms_equal_those_of_numpy(size: int) -> None:
    plan = plan_fft(size)
    assert plan is not None
    signals = np.random.default_rng(size).standard_normal((8, size, 2)).astype(np.float32)
    rows = np.ascontiguousarray(signals.transpose(1, 2, 0)).reshape(-1)
    transform(rows, size, plan.radices, plan.factors)
    parts = rows.reshape(size, 2, 8)[plan.order]
    expected = np.fft.fft(signals[..., 0] + 1j * signals[..., 1])
    np.testing.assert_allclose((parts[:, 0] + 1j * parts[:, 1]).T, expected, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("size", [0, 6, 17 * 8])
def test_sizes_without_passes_have_no_plan(size: int) -> None:
    assert plan_fft(size) is None


def test_every_channel_is_resampled(monkeypatch: pytest.MonkeyPatch) -> None:
    x, lengths = make_audio(44_100, 3, torch.float32)
    y = kernels.resample(x, 44_100, 16_000, lengths)
    monkeypatch.setattr(compiler, "is_available", lambda: False)
    torch.testing.assert_close(y, kernels.resample(x, 44_100, 16_000, lengths), atol=3e-6, rtol=0)


def test_a_result_does_not_depend_on_the_batch() -> None:
    x, lengths = make_audio(48_000, 1, torch.float32)
    metrics, signal = kernels.measure_and_resample(x, 48_000, 16_000, lengths)
    alone, y = kernels.measure_and_resample([x[1, :, : int(lengths[1])]], 48_000, 16_000)
    assert torch.equal(alone.stack()[0].nan_to_num(), metrics.stack()[1].nan_to_num())
    assert torch.equal(y[0], signal[1, :, : y.shape[-1]])


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_fingerprints_of_16_bits_have_the_same_events(
    monkeypatch: pytest.MonkeyPatch, rate: int, channels: int
) -> None:
    x = (scenes(1, 30 * rate, channels)[0] * 32_768).round().to(torch.int16)

    def events() -> list[int]:
        fingerprint = Fingerprint(rate, channels)
        fingerprint.add(x)
        return fingerprint.finish().tolist()

    compiled = events()
    monkeypatch.setattr(compiler, "is_available", lambda: False)
    assert compiled == events()
    assert compiled


MEASURE = """
import torch
from audiopipe import kernels
from audiopipe.kernels import compiler
print(compiler.is_available(), kernels.measure(torch.ones(1, 1, 8_000), 8_000).sample_peak_dbfs.item())
"""


def run_measure(environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", MEASURE]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True, timeout=200).stdout


def test_the_environment_turns_compilation_off() -> None:
    assert run_measure({**os.environ, "AUDIOPIPE_COMPILE": "0"}).split() == ["False", "0.0"]


@pytest.mark.parametrize("name", ["compiler.py", "compiled_fft.py", "vectors.py", "vector_types.py"])
def test_the_cache_is_invalid_after_a_change_of(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The options of the compiler are not in the key of Numba's cache."""
    for path in Path(compiler.__file__).parent.glob("*.py"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(compiler, "__file__", str(tmp_path / "compiler.py"))
    before = compiler._hash_sources.__wrapped__()
    with (tmp_path / name).open("a") as file:
        file.write("# changed")
    assert compiler._hash_sources.__wrapped__() != before


@pytest.mark.slow
def test_processes_that_start_together_fill_one_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURE]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    for _ in range(2):  # the second time from the cache
        processes = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
        assert [process.communicate(timeout=250)[0].split() for process in processes] == [["True", "0.0"]] * 3
        files = sorted(path.name for path in tmp_path.rglob("*.nb*"))
    assert sum(name.endswith(".nbi") for name in files) == len({name.split("-")[0] for name in files})


@pytest.mark.slow
def test_without_a_writable_folder_the_cache_is_temporary(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator"}
    environment.pop("NUMBA_CACHE_DIR", None)
    assert run_measure(environment).split() == ["True", "0.0"]
    folder = tmp_path / f"audiopipe-numba-{os.getuid()}"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.rglob("*.nbi"))
