import numpy as np
import pytest
from reference import HIGH_PASS, SHELF, response_48k

from audiopipe.kernels.kweighting import HIGH_PASS_48K, SHELF_48K, fit, magnitude_db, sections

RATES = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 176_400, 192_000]


def test_the_table_is_that_of_the_standard() -> None:
    for section, standard in ((SHELF_48K, SHELF), (HIGH_PASS_48K, HIGH_PASS)):
        np.testing.assert_array_equal(section[0], standard[0])
        np.testing.assert_array_equal(section[1], standard[1])


@pytest.mark.parametrize("rate", [*RATES, 8_001, 12_345, 47_999, 100_003])
def test_every_rate_has_the_48_khz_response(rate: int) -> None:
    frequencies = np.concatenate([np.geomspace(5, 100, 500), np.linspace(100, 0.49 * min(rate, 48_000), 5_000)])
    expected = 20 * np.log10(np.abs(response_48k(frequencies)))
    error = np.abs(magnitude_db(sections(rate), frequencies, rate) - expected).max()
    assert error <= (0.005 if rate >= 16_000 else 0.03)
    assert error <= (0.002 if rate >= 16_000 else 0.012)


@pytest.mark.parametrize("rate", RATES)
def test_every_section_is_stable(rate: int) -> None:
    for _, a in sections(rate):
        assert np.abs(np.roots(a)).max() < 1


def test_the_fit_can_be_rerun() -> None:
    for section, refit in zip(sections(16_000), fit(16_000), strict=True):
        np.testing.assert_allclose(section[0], refit[0], atol=1e-9)
        np.testing.assert_allclose(section[1], refit[1], atol=1e-9)
