import numpy as np
import pytest
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiopipe import kernels

PAIRS = [
    (48_000, 16_000),
    (44_100, 16_000),
    (16_000, 48_000),
    (8_000, 16_000),
    (22_050, 24_000),
    (96_000, 44_100),
    (11_025, 16_000),
]


def convert(x: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    return kernels.resample(torch.from_numpy(x)[None, None], from_rate, to_rate)[0, 0].numpy()


def sweep_gain_db(from_rate: int, to_rate: int, shares: np.ndarray) -> np.ndarray:
    """Measure the gain of the conversion for tones at `shares` of the lower Nyquist frequency."""
    n = np.arange(from_rate)
    window = np.hanning(len(n))
    gains = []
    for hz in shares * min(from_rate, to_rate) / 2:
        y = convert(window * np.sin(2 * np.pi * hz / from_rate * n), from_rate, to_rate)
        gains.append(10 * np.log10((y**2).sum() / to_rate / ((window**2).sum() / 2 / from_rate)))
    return np.array(gains)


@pytest.mark.parametrize(("from_rate", "to_rate"), PAIRS)
def test_the_pass_band_is_flat(from_rate: int, to_rate: int) -> None:
    gains = sweep_gain_db(from_rate, to_rate, np.array([0.01, 0.3, 0.6, 0.8, 0.85, 0.9]))
    np.testing.assert_allclose(gains, 0, atol=0.01)


@pytest.mark.parametrize(("from_rate", "to_rate"), [p for p in PAIRS if p[0] > p[1]])
def test_aliasing_frequencies_are_removed(from_rate: int, to_rate: int) -> None:
    top = from_rate / to_rate
    shares = np.concatenate([[1.005, 1.02, 1.1], np.linspace(1.2, 0.99 * top, 6) if top > 1.3 else []])
    assert sweep_gain_db(from_rate, to_rate, shares).max() < -80


@pytest.mark.parametrize(("from_rate", "to_rate"), [p for p in PAIRS if p[0] < p[1]])
def test_upsampling_leaves_no_images(from_rate: int, to_rate: int) -> None:
    n = np.arange(from_rate)
    y = convert(np.hanning(len(n)) * np.sin(2 * np.pi * 0.4 * n), from_rate, to_rate)
    spectrum = np.abs(np.fft.rfft(y)) ** 2
    image = spectrum[from_rate // 2 :].sum()
    assert 10 * np.log10(image / spectrum.sum()) < -80


@pytest.mark.parametrize(
    ("from_rate", "to_rate"), [*PAIRS, (12_345, 16_000), (47_999, 48_000), (192_000, 8_000), (8_000, 192_000)]
)
def test_length_and_phase_equal_those_of_soxr(from_rate: int, to_rate: int) -> None:
    rng = np.random.default_rng(0)
    n = from_rate // 2 + 7
    knots = np.interp(
        np.arange(n),
        np.arange(0, n + 400, 400 if from_rate > 100_000 else 40),
        rng.standard_normal(len(np.arange(0, n + 400, 400 if from_rate > 100_000 else 40))),
    )
    x = knots * np.hanning(n)
    y, expected = convert(x, from_rate, to_rate), soxr.resample(x, from_rate, to_rate, quality="VHQ")
    assert len(y) == -(-n * to_rate // from_rate)
    shared = min(len(y), len(expected))
    assert abs(len(y) - len(expected)) <= 1
    error = np.sqrt(((y[:shared] - expected[:shared]) ** 2).mean() / (x**2).mean())
    assert error < 2e-3


@settings(max_examples=30)
@given(
    st.integers(8_000, 192_000), st.integers(8_000, 192_000), st.lists(st.integers(0, 4_000), min_size=1, max_size=4)
)
def test_any_ratio_and_length_gives_exact_samples_then_zeros(a: int, b: int, sizes: list[int]) -> None:
    a, b = a // 25 * 25, b // 25 * 25  # ratios with a period of millions of samples are correct but slow
    x = torch.ones(len(sizes), 2, max(sizes))
    y = kernels.resample(x, a, b, torch.tensor(sizes))
    assert y.shape == (len(sizes), 2, kernels.resampled_length(max(sizes), a, b))
    for row, n in zip(y, sizes, strict=True):
        end = kernels.resampled_length(n, a, b)
        assert not row[:, end:].any()
        single = kernels.resample(torch.ones(1, n), a, b)
        torch.testing.assert_close(row[:1, :end], single, atol=1e-5, rtol=0)


def test_tensor_and_int_lengths_agree() -> None:
    n = torch.tensor([0, 1, 2, 3, 44_099, 44_100, 44_101])
    lengths = kernels.resampled_length(n, 44_100, 16_000)
    assert lengths.tolist() == [kernels.resampled_length(int(i), 44_100, 16_000) for i in n]
    assert lengths.tolist() == [int(np.ceil(i * 160 / 441)) for i in n.tolist()]


@pytest.mark.parametrize("to_rate", [16_000, 44_100])
def test_a_list_of_items_equals_a_padded_batch(to_rate: int) -> None:
    x, lengths = torch.randn(4, 2, 1_100_000), torch.tensor([1_100_000, 5_000, 0, 44_100])
    items = [item[:, :n] for item, n in zip(x, lengths, strict=True)]
    expected = kernels.resample(x, 44_100, to_rate, lengths)
    torch.testing.assert_close(kernels.resample(items, 44_100, to_rate), expected, atol=2e-6, rtol=0)


def test_the_same_rate_returns_a_copy() -> None:
    x = torch.randn(2, 1, 100)
    y = kernels.resample(x, 16_000, 16_000, torch.tensor([100, 50]))
    assert torch.equal(y[0], x[0])
    assert not y[1, :, 50:].any()
    y.zero_()
    assert x.any()


def test_resample_takes_int16_and_any_shape() -> None:
    pcm = (torch.randn(3, 4, 2, 1_000) * 3_000).to(torch.int16)
    y = kernels.resample(pcm, 48_000, 16_000)
    assert y.shape == (3, 4, 2, 334)
    torch.testing.assert_close(y, kernels.resample(pcm / 32_768, 48_000, 16_000))
    torch.testing.assert_close(y[1, 2, 0], kernels.resample(pcm[1, 2, 0], 48_000, 16_000))


def test_tiles_do_not_change_the_resampling_of_long_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    from audiopipe.kernels import audio

    x = torch.randn(2, 1, 100_000)
    whole = kernels.resample(x, 44_100, 16_000)
    monkeypatch.setitem(audio.TILE_SAMPLES, "cpu", 10_000)
    torch.testing.assert_close(kernels.resample(x, 44_100, 16_000), whole, atol=1e-6, rtol=0)
