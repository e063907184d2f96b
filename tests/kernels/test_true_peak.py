import numpy as np
import pytest
import reference
import torch
from reference import TECH_3341_PEAKS

from audiopipe import kernels

RATES = [8_000, 16_000, 44_100, 48_000, 96_000]


def true_peak_dbtp(x: np.ndarray, rate: int) -> float:
    return kernels.loudness(torch.from_numpy(x).float()[None, None], rate).true_peak_dbtp.item()


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("case", TECH_3341_PEAKS)
def test_tech_3341_cases_15_to_19(case: int, rate: int) -> None:
    divisor, phase, amplitude, expected = TECH_3341_PEAKS[case]
    n = np.arange(rate)
    fade = np.minimum(1, np.minimum(n, n[::-1]) / (0.1 * rate))
    x = amplitude * fade * np.sin(2 * np.pi * n / divisor + np.radians(phase))
    assert expected - 0.4 <= true_peak_dbtp(x, rate) <= expected + 0.2


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("offset", range(4))
def test_tech_3341_cases_20_to_23(offset: int, rate: int) -> None:
    assert -0.4 <= true_peak_dbtp(reference.single_peak(rate, offset), rate) <= 0.2


@pytest.mark.parametrize("seed", range(12))
def test_true_peak_of_noise_equals_a_32_fold_interpolation(seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal(48_000) * 0.1
    assert true_peak_dbtp(x, 48_000) == pytest.approx(reference.true_peak_db(x), abs=0.15)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.33, 0.4, 0.45, 0.48])
def test_a_tone_of_any_frequency_peaks_at_its_amplitude(share: float) -> None:
    n = np.arange(48_000)
    x = 0.7 * np.sin(2 * np.pi * share * n + 0.3) * np.hanning(len(n))
    assert true_peak_dbtp(x, 48_000) == pytest.approx(20 * np.log10(0.7), abs=0.05)


def test_a_burst_between_samples_counts_near_louder_samples() -> None:
    n = np.arange(96_000)
    x = 0.69 * np.sin(2 * np.pi * 0.05 * n) * np.hanning(len(n))
    burst = np.arange(-600, 600)
    x[29_400:30_600] += 0.6 * np.cos(np.pi * 0.5 * burst + np.pi / 4) * np.hanning(1200)
    assert true_peak_dbtp(x, 48_000) == pytest.approx(reference.true_peak_db(x), abs=0.05)


def test_true_peak_is_at_least_the_loudest_channels_sample_peak() -> None:
    x = (
        torch.randn(4, 5, 10_001, generator=torch.Generator().manual_seed(1))
        * torch.tensor([0.1, 0.2, 0.9, 0.3, 0.1])[:, None]
    )
    result = kernels.loudness(x, 48_000)
    assert (result.true_peak_dbtp >= result.sample_peak_dbfs).all()
    torch.testing.assert_close(result.sample_peak_dbfs, 20 * x.abs().amax((1, 2)).log10())
    torch.testing.assert_close(result.true_peak_dbtp, kernels.loudness(x[:, 2:3], 48_000).true_peak_dbtp)
