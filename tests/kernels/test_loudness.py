import math

import numpy as np
import pytest
import reference
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import SILENCE, TECH_3341_INTEGRATED, TECH_3342, tones

from audiopipe import kernels

OTHER_RATES = [8_000, 11_025, 16_000, 22_050, 44_100]


def batch(*items: np.ndarray, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad items [C, T] with loud samples to one batch; return it with the lengths of the items."""
    longest = max(item.shape[1] for item in items)
    x = torch.full((len(items), items[0].shape[0], longest), 0.9, dtype=dtype)
    for row, item in zip(x, items, strict=True):
        row[:, : item.shape[1]] = torch.from_numpy(item)
    return x, torch.tensor([item.shape[1] for item in items])


@pytest.mark.parametrize("rate", [48_000, *OTHER_RATES])
@pytest.mark.parametrize("case", TECH_3341_INTEGRATED)
def test_tech_3341_integrated(case: int, rate: int) -> None:
    parts, expected = TECH_3341_INTEGRATED[case]
    x = torch.from_numpy(tones(rate, *parts)).float()[None]
    assert kernels.integrated_loudness(x, rate).item() == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("rate", [48_000, *OTHER_RATES])
def test_tech_3341_case_1_reads_the_same_on_all_scales(rate: int) -> None:
    result = kernels.loudness(torch.from_numpy(tones(rate, (20, -23))).float()[None], rate)
    for values in (result.integrated_lufs, result.momentary_lufs[0, 50:], result.short_term_lufs[0, 50:]):
        np.testing.assert_allclose(values.numpy(), -23, atol=0.1)


@pytest.mark.parametrize("rate", [48_000, *OTHER_RATES])
@pytest.mark.parametrize("channels", [5, 6])
def test_tech_3341_case_6_weighs_the_surrounds(rate: int, channels: int) -> None:
    levels = [-28, -28, -24, -30, -30]
    x = np.stack([reference.tone(rate, 20, db) for db in levels])
    if channels == 6:
        x = np.insert(x, 3, reference.tone(rate, 20, -3, hz=60), axis=0)  # a loud LFE channel, which must not count
    result = kernels.integrated_loudness(torch.from_numpy(x).float()[None], rate)
    assert result.item() == pytest.approx(-23, abs=0.1)


@pytest.mark.parametrize("rate", [48_000, *OTHER_RATES])
def test_tech_3341_case_9_short_term_is_constant(rate: int) -> None:
    x = torch.from_numpy(tones(rate, *[(1.34, -20), (1.66, -30)] * 5)).float()[None]
    np.testing.assert_allclose(kernels.loudness(x, rate).short_term_lufs.numpy(), -23, atol=0.1)


@pytest.mark.parametrize("rate", [48_000, *OTHER_RATES])
def test_tech_3341_case_10_short_term_maximum(rate: int) -> None:
    x, lengths = batch(*(tones(rate, (i * 0.15, SILENCE), (3, -23), (1, SILENCE)) for i in range(20)))
    np.testing.assert_allclose(kernels.loudness(x, rate, lengths).short_term_max_lufs.numpy(), -23, atol=0.1)


def test_tech_3341_case_11_short_term_of_a_live_signal() -> None:
    cycle = [((i * 0.15, SILENCE), (3, -38 + i), (3 - i * 0.15, SILENCE)) for i in range(20)]
    x = torch.from_numpy(tones(48_000, *(part for parts in cycle for part in parts))).float()[None]
    values = kernels.loudness(x, 48_000).short_term_lufs[0]
    for i in range(20):
        assert values[i * 600 : i * 600 + 301].max().item() == pytest.approx(-38 + i, abs=0.1)


@pytest.mark.parametrize("rate", [48_000, *OTHER_RATES])
def test_tech_3341_case_12_momentary_is_constant(rate: int) -> None:
    x = torch.from_numpy(tones(rate, *[(0.18, -20), (0.22, -30)] * 25)).float()[None]
    np.testing.assert_allclose(kernels.loudness(x, rate).momentary_lufs[:, 100:].numpy(), -23, atol=0.1)


@pytest.mark.parametrize("rate", [48_000, *OTHER_RATES])
def test_tech_3341_case_13_momentary_maximum(rate: int) -> None:
    x, lengths = batch(*(tones(rate, (i * 0.02, SILENCE), (0.4, -23), (1, SILENCE)) for i in range(20)))
    np.testing.assert_allclose(kernels.loudness(x, rate, lengths).momentary_max_lufs.numpy(), -23, atol=0.1)


def test_tech_3341_case_14_momentary_of_a_live_signal() -> None:
    cycle = [((i * 0.02, SILENCE), (0.4, -38 + i), (0.4 - i * 0.02, SILENCE)) for i in range(20)]
    x = torch.from_numpy(tones(48_000, *(part for parts in cycle for part in parts))).float()[None]
    values = kernels.loudness(x, 48_000).momentary_lufs[0]
    for i in range(20):
        assert values[i * 80 : i * 80 + 41].max().item() == pytest.approx(-38 + i, abs=0.1)


@pytest.mark.parametrize("rate", [48_000, *OTHER_RATES])
@pytest.mark.parametrize("case", TECH_3342)
def test_tech_3342(case: int, rate: int) -> None:
    levels, expected = TECH_3342[case]
    x = torch.from_numpy(tones(rate, *((20, db) for db in levels))).float()[None]
    assert kernels.loudness(x, rate).range_lu.item() == pytest.approx(expected, abs=0.2)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[int, list[np.ndarray]]:
    """Draw a rate and a few items of noise in passages of different levels, with a DC offset and rumble."""
    rate = draw(st.sampled_from([8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000, 12_345, 31_999]))
    channels = draw(st.sampled_from([1, 1, 2, 5, 6]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    items = []
    for _ in range(draw(st.integers(1, 3))):
        n = draw(st.integers(int(0.41 * rate), int(3.5 * rate)))
        passages = 10 ** (rng.uniform(-60, -10, 8) / 20)
        x = rng.standard_normal((channels, n)) * np.repeat(passages, -(-n // 8))[:n]
        t = np.arange(n) / rate
        x += draw(st.sampled_from([0.0, 0.0, 0.2, -0.5])) * np.minimum(t / 0.05, 1)
        x += draw(st.sampled_from([0.0, 0.0, 0.3])) * np.sin(2 * np.pi * draw(st.floats(2, 25)) * t)
        items.append(x)
    return rate, items


@settings(max_examples=25, deadline=None)
@given(scenes())
def test_loudness_equals_the_reference(scene: tuple[int, list[np.ndarray]]) -> None:
    rate, items = scene
    tolerance = 0.001 if rate >= 16_000 else 0.03
    expected = [reference.integrated(x, rate) for x in items]
    for dtype in (torch.float32, torch.float64):
        x, lengths = batch(*items, dtype=dtype)
        np.testing.assert_allclose(kernels.integrated_loudness(x, rate, lengths).numpy(), expected, atol=tolerance)
        result = kernels.loudness(x, rate, lengths)
        np.testing.assert_allclose(result.integrated_lufs.numpy(), expected, atol=tolerance)
    ranges = [reference.loudness_range(item, rate) for item in items]
    np.testing.assert_allclose(result.range_lu.numpy(), ranges, atol=2 * tolerance)
    for row, item in zip(result.momentary_lufs, items, strict=True):
        momentary = [reference.lufs(p) for p in reference.windows(item, rate, 0.4, result.hop_s)]
        assert torch.isfinite(row).sum() == len(momentary)
        np.testing.assert_allclose(row[: len(momentary)].numpy(), momentary, atol=10 * tolerance)


def test_48_khz_is_exact_in_float64() -> None:
    x = np.random.default_rng(0).standard_normal((1, 480_000)) * 0.1 + 0.3
    lufs = kernels.integrated_loudness(torch.from_numpy(x)[None], 48_000)
    assert lufs.dtype == torch.float64
    assert lufs.item() == pytest.approx(reference.integrated(x, 48_000), abs=1e-9)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000, 192_000])
def test_float32_is_exact_despite_strong_dc_and_rumble(rate: int) -> None:
    t = np.arange(3 * rate) / rate
    x = 0.6 * np.minimum(t / 0.05, 1) + 0.3 * np.sin(2 * np.pi * 3 * t) * np.minimum(t, 1)
    x = (x + 0.003 * np.random.default_rng(1).standard_normal(len(t)))[None]
    exact = kernels.integrated_loudness(torch.from_numpy(x)[None], rate).item()
    assert kernels.integrated_loudness(torch.from_numpy(x).float()[None], rate).item() == pytest.approx(exact, abs=5e-4)


def test_an_incomplete_last_block_does_not_count() -> None:
    x = tones(48_000, (0.5, -23), (0.0999, -60), channels=1)
    whole = kernels.integrated_loudness(torch.from_numpy(x[None, :, :24_000]), 48_000).item()
    assert kernels.integrated_loudness(torch.from_numpy(x)[None], 48_000).item() == whole


@pytest.mark.parametrize("rate", [8_000, 11_025, 48_000])
def test_missing_values_are_nan_and_silence_minus_infinity(rate: int) -> None:
    block = round(0.4 * rate)
    lengths = torch.tensor([0, block - 1, block, 2 * rate])
    result = kernels.loudness(torch.zeros(4, 1, 2 * rate), rate, lengths)
    np.testing.assert_array_equal(result.integrated_lufs.numpy(), [math.nan, math.nan, -math.inf, -math.inf])
    np.testing.assert_array_equal(result.momentary_max_lufs.numpy(), [math.nan, math.nan, -math.inf, -math.inf])
    assert torch.isnan(result.short_term_max_lufs).all()
    assert torch.isnan(result.range_lu).all()
    assert (result.true_peak_dbtp == -math.inf).all()
    assert (result.sample_peak_dbfs == -math.inf).all()


def test_tiles_do_not_change_the_loudness_of_long_audio(monkeypatch: pytest.MonkeyPatch) -> None:
    from audiopipe.kernels import audio

    x = torch.randn(3, 2, 200_000, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.2
    lengths = torch.tensor([200_000, 123_456, 77_777])
    whole = kernels.loudness(x, 44_100, lengths)
    monkeypatch.setitem(audio.TILE_SAMPLES, "cpu", 30_000)
    tiled = kernels.loudness(x, 44_100, lengths)
    for name in ("integrated_lufs", "momentary_max_lufs", "short_term_max_lufs", "true_peak_dbtp", "momentary_lufs"):
        torch.testing.assert_close(getattr(tiled, name), getattr(whole, name), atol=1e-4, rtol=0, equal_nan=True)


def test_libebur128_agrees_at_48_khz() -> None:
    from audiopipe.bench.reference_libraries import ebur128_integrated_lufs, find_ebur128

    library = find_ebur128()
    if library is None:
        pytest.skip("libebur128 is not installed")
    x = tones(48_000, (2, -23), (1, -30), (2, -18), channels=1)[0]
    lufs = kernels.integrated_loudness(torch.from_numpy(x)[None, None], 48_000).item()
    assert lufs == pytest.approx(ebur128_integrated_lufs(library, x.astype(np.float32), 48_000), abs=1e-4)
