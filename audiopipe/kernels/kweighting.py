"""The two sections of the K-weighting filter of ITU-R BS.1770-5, at any sample rate.

BS.1770-5 tabulates the two sections for 48 kHz and requires "the same frequency response" at other rates. The bilinear
transform of the analog prototype misses that response by 0.066 dB at 16 kHz and 0.29 dB at 8 kHz, because it compresses
the frequency axis. Therefore the same two sections are fitted to the 48 kHz response: the error is 0.001 dB at 16 kHz
and 0.011 dB at 8 kHz, up to 0.49 of the rate. `python -m audiopipe.kernels.kweighting` runs the fit and prints its
errors.
"""

from __future__ import annotations

import sys
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Section = tuple[Array, Array]

# BS.1770-5, Annex 1, tables 1 and 2.
SHELF_48K: Section = (
    np.array([1.53512485958697, -2.69169618940638, 1.19839281085285]),
    np.array([1.0, -1.69065929318241, 0.73248077421585]),
)
HIGH_PASS_48K: Section = (np.array([1.0, -2.0, 1.0]), np.array([1.0, -1.99004745483398, 0.99007225036621]))

_FIT_ROUNDS = 60


def magnitude_db(sections: tuple[Section, Section], frequencies_hz: Array, sample_rate: int) -> Array:
    """Compute the level of a cascade of two sections at the given frequencies, in dB."""
    delay = np.exp(-2j * np.pi * frequencies_hz / sample_rate)
    response = np.ones_like(delay)
    for b, a in sections:
        response *= (b[0] + b[1] * delay + b[2] * delay**2) / (a[0] + a[1] * delay + a[2] * delay**2)
    return np.asarray(20 * np.log10(np.abs(response)))


def _quadratic(omega: float, q: float) -> Array:
    """Return the polynomial in z^-1 of s^2 + s omega / q + omega^2 with s = (1 - z^-1) / (1 + z^-1).

    The result is multiplied by (1 + z^-1)^2. As a denominator it is stable for any omega, q > 0.
    """
    return np.array([1 + omega / q + omega**2, 2 * omega**2 - 2, 1 - omega / q + omega**2])


def _sections(log_parameters: Array) -> tuple[Section, Section]:
    gain, zero, zero_q, pole, pole_q, corner, corner_q = np.exp(log_parameters)
    shelf, high_pass = _quadratic(pole, pole_q), _quadratic(corner, corner_q)
    return (
        (gain * _quadratic(zero, zero_q) / shelf[0], shelf / shelf[0]),
        (np.array([1.0, -2.0, 1.0]), high_pass / high_pass[0]),
    )


def _bilinear_parameters(sample_rate: int) -> Array:
    """Return the start of the fit: the analog prototype of the 48 kHz table, pre-warped to this rate."""

    def omega_q(polynomial: Array) -> tuple[float, float, float]:
        c0, c1, c2 = polynomial
        square, linear, constant = (c0 - c1 + c2) / 4, (c0 - c2) / 2, (c0 + c1 + c2) / 4
        omega = np.sqrt(constant / square)
        warped = np.tan(np.arctan(omega) * 48_000 / sample_rate)
        return float(warped), float(omega * square / linear), float(square)

    zero, zero_q, top = omega_q(SHELF_48K[0])
    pole, pole_q, bottom = omega_q(SHELF_48K[1])
    corner, corner_q, _ = omega_q(HIGH_PASS_48K[1])
    return np.asarray(np.log([top / bottom, zero, zero_q, pole, pole_q, corner, corner_q]))


def fit(sample_rate: int) -> tuple[Section, Section]:
    """Fit shelf and high-pass for one rate to the 48 kHz response, minimizing the largest error in dB.

    The method is Gauss-Newton on the seven free parameters with Lawson's reweighting, which raises the weights where
    the error is largest, from 4 Hz to 0.4925 of the lower of the two rates.
    """
    top_hz = 0.4925 * min(sample_rate, 48_000)
    frequencies_hz = np.concatenate([np.geomspace(4, top_hz, 300), np.linspace(0.6 * top_hz, top_hz, 100)])
    target_db = magnitude_db((SHELF_48K, HIGH_PASS_48K), frequencies_hz, 48_000)

    def error_db(parameters: Array) -> Array:
        return magnitude_db(_sections(parameters), frequencies_hz, sample_rate) - target_db

    parameters = _bilinear_parameters(sample_rate)
    best, best_error = parameters, np.inf
    weight = np.ones_like(frequencies_hz)
    deltas = 1e-6 * np.eye(len(parameters))
    for _ in range(_FIT_ROUNDS):
        error = error_db(parameters)
        worst = float(np.abs(error).max())
        if worst < best_error:
            best, best_error = parameters, worst
        weight *= np.sqrt(np.abs(error) + 1e-3 * worst)
        weight = np.maximum(weight / weight.max(), 1e-4)
        slope = np.stack([(error_db(parameters + d) - error_db(parameters - d)) / 2e-6 for d in deltas], 1)
        # A little damping keeps the step finite where two parameters have the same effect.
        system = np.vstack([slope * weight[:, None], 1e-4 * np.eye(len(parameters))])
        step = np.linalg.lstsq(system, np.concatenate([-error * weight, np.zeros(len(parameters))]), rcond=None)[0]
        parameters = parameters + np.clip(step, -0.3, 0.3)
    return _sections(best)


@lru_cache(maxsize=64)
def sections(sample_rate: int) -> tuple[Section, Section]:
    """Return shelf and high-pass as (b, a) for a rate: the table of the standard at 48 kHz, a fit at other rates.

    Coefficients are rounded to 12 digits, so that machines whose linear algebra differs in the last bits get the same
    filter.
    """
    if sample_rate == 48_000:
        return SHELF_48K, HIGH_PASS_48K
    (shelf_b, shelf_a), (high_b, high_a) = fit(sample_rate)
    return (shelf_b.round(12), shelf_a.round(12)), (high_b.round(12), high_a.round(12))


def main() -> None:
    """Fit the usual rates and print the largest error of each against the 48 kHz response."""
    for rate in (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 88_200, 96_000, 176_400, 192_000):
        frequencies_hz = np.linspace(10, 0.49 * min(rate, 48_000), 4_000)
        target = magnitude_db((SHELF_48K, HIGH_PASS_48K), frequencies_hz, 48_000)
        error_db = float(np.abs(magnitude_db(sections(rate), frequencies_hz, rate) - target).max())
        sys.stdout.write(
            f"{rate:>7} Hz  worst {error_db:.5f} dB  {[s[0].tolist() + s[1].tolist() for s in sections(rate)]}\n"
        )


if __name__ == "__main__":
    main()
