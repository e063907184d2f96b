"""Slow, straightforward versions of the kernels, and the test signals of the standards."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SHELF = ([1.53512485958697, -2.69169618940638, 1.19839281085285], [1.0, -1.69065929318241, 0.73248077421585])
HIGH_PASS = ([1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621])
WEIGHTS = {1: [1.0], 2: [1.0, 1.0], 5: [1.0, 1.0, 1.0, 1.41, 1.41], 6: [1.0, 1.0, 1.0, 0.0, 1.41, 1.41]}


def response_48k(frequencies_hz: Array) -> npt.NDArray[np.complex128]:
    """Compute the complex response of the two sections of BS.1770-5 at 48 kHz."""
    z = np.exp(2j * np.pi * np.asarray(frequencies_hz) / 48_000)
    response = np.ones_like(z)
    for b, a in (SHELF, HIGH_PASS):
        response = response * (b[0] + b[1] / z + b[2] / z**2) / (a[0] + a[1] / z + a[2] / z**2)
    return response


def k_weighted(x: Array, rate: int) -> Array:
    """Apply the 48 kHz response to one channel: by recursion at 48 kHz, in the frequency domain at other rates."""
    if rate == 48_000:
        from scipy.signal import lfilter

        return lfilter(*HIGH_PASS, lfilter(*SHELF, x))
    n = len(x) + 2 * rate
    # The table ends at 24 kHz; the response is flat there, so it is continued as flat.
    frequencies = np.minimum(np.fft.rfftfreq(n, 1 / rate), 24_000)
    return np.fft.irfft(np.fft.rfft(x, n) * response_48k(frequencies), n)[: len(x)]


def windows(x: Array, rate: int, seconds: float, step_s: float) -> list[float]:
    """Compute the weighted mean square of each complete window of [C, T] audio."""
    y = np.stack([k_weighted(channel, rate) for channel in x])
    powers, index = [], 0
    while True:
        start = int(np.floor(index * step_s * rate + 0.5))
        stop = int(np.floor((index * step_s + seconds) * rate + 0.5))
        if stop > x.shape[1]:
            return powers
        powers.append(float(np.dot(WEIGHTS[len(x)], (y[:, start:stop] ** 2).mean(1))))
        index += 1


def lufs(power: float) -> float:
    """Convert a mean square to LUFS."""
    return -0.691 + 10 * np.log10(power) if power > 0 else -np.inf


def integrated(x: Array, rate: int) -> float:
    """Compute the integrated loudness of BS.1770-5, Annex 1.

    Blocks of 400 ms start every 100 ms; the gates are -70 LUFS and 10 LU below the mean of the blocks above -70 LUFS.
    """
    blocks = windows(x, rate, 0.4, 0.1)
    if not blocks:
        return float("nan")
    audible = [p for p in blocks if lufs(p) > -70]
    if not audible:
        return -np.inf
    gate = lufs(float(np.mean(audible))) - 10
    return lufs(float(np.mean([p for p in audible if lufs(p) > gate])))


def loudness_range(x: Array, rate: int) -> float:
    """Compute the loudness range of EBU Tech 3342.

    Short-term loudness every 100 ms, gates at -70 LUFS and -20 LU, distance of the 10th and 95th percentiles.
    """
    audible = [p for p in windows(x, rate, 3.0, 0.1) if lufs(p) >= -70]
    if not audible:
        return float("nan")
    gate = lufs(float(np.mean(audible))) - 20
    values = sorted(lufs(p) for p in audible if lufs(p) >= gate)
    low, high = (values[int(np.floor((len(values) - 1) * q + 0.5))] for q in (0.10, 0.95))
    return high - low


def true_peak_db(x: Array, factor: int = 32) -> float:
    """Compute the peak of the signal, interpolated in the frequency domain, with silence around it."""
    n = 2 * len(x)
    spectrum = np.fft.rfft(x, n)
    return float(20 * np.log10(np.abs(np.fft.irfft(spectrum, n * factor) * factor).max()))


def tone(rate: int, seconds: float, level_dbfs: float, hz: float = 1000.0, start_s: float = 0.0) -> Array:
    """Return a sine whose phase is zero at time zero, from `start_s`."""
    t = start_s + np.arange(round(seconds * rate)) / rate
    return 10 ** (level_dbfs / 20) * np.sin(2 * np.pi * hz * t)


def tones(rate: int, *parts: tuple[float, float], channels: int = 2) -> Array:
    """Return successive 1 kHz tones of (seconds, dBFS) with continuous phase, equal in all channels: [C, T]."""
    starts = np.cumsum([0.0] + [seconds for seconds, _ in parts])
    audio = [tone(rate, s, db, start_s=t) for (s, db), t in zip(parts, starts, strict=False)]
    return np.tile(np.concatenate(audio), (channels, 1))


SILENCE = -np.inf
# EBU Tech 3341 v4, table 1: cases 1 to 5 and their integrated loudness.
TECH_3341_INTEGRATED = {
    1: ([(20, -23)], -23.0),
    2: ([(20, -33)], -33.0),
    3: ([(10, -36), (60, -23), (10, -36)], -23.0),
    4: ([(10, -72), (10, -36), (60, -23), (10, -36), (10, -72)], -23.0),
    5: ([(20, -26), (20.1, -20), (20, -26)], -23.0),
}
# Cases 15 to 19: divisor of the rate, phase in degrees, amplitude, dBTP.
TECH_3341_PEAKS = {
    15: (4, 0, 0.5, -6.0),
    16: (4, 45, 0.5, -6.0),
    17: (6, 60, 0.5, -6.0),
    18: (8, 67.5, 0.5, -6.0),
    19: (4, 45, 1.41, 3.0),
}
# EBU Tech 3342, table 1: parts of 20 s, and the loudness range.
TECH_3342 = {
    1: ([-20, -30], 10.0),
    2: ([-20, -15], 5.0),
    3: ([-40, -20], 20.0),
    4: ([-50, -35, -20, -35, -50], 15.0),
}


def single_peak(rate: int, offset: int) -> Array:
    """Return the signal of cases 20 to 23: one peak of 0 dBTP, generated at four times the rate and decimated by 4."""
    from scipy.signal import firwin

    t = np.arange(rate) / (4 * rate)
    wave = 0.5 * np.sin(2 * np.pi * rate / 4 * t)
    middle = len(t) // 2 // 16 * 16
    wave[middle : middle + 16] *= 2
    smooth = np.convolve(wave, firwin(801, 0.45 * rate, fs=4 * rate), "same")
    return (smooth / np.abs(smooth).max())[offset::4]


def speech_like(rate: int, seconds: float, seed: int = 0) -> Array:
    """Return harmonics of a varying pitch with a falling envelope, in syllables with pauses, without noise."""
    rng = np.random.default_rng(seed)
    n = round(rate * seconds)
    t = np.arange(n) / rate
    knots = np.arange(0, seconds + 0.2, 0.1)
    pitch = np.interp(t, knots, rng.uniform(90, 180, len(knots)))
    loud = np.interp(t, knots, rng.choice([0.0, 0.0, 0.0, 0.3, 0.6, 1.0], len(knots)))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    harmonics = range(1, int(min(0.45 * rate, 7000) // 180))
    return 0.1 * loud * sum(np.sin(h * phase + h * h) / h**1.2 for h in harmonics)
