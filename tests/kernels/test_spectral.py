import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import reference
import torch
from scipy.signal import fftconvolve, firwin

from audiopipe import kernels

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import librosa
    import soxr


def librosa_means(x: np.ndarray, rate: int, n_fft: int, hop_length: int) -> list[float]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="n_fft=.* is too large for input signal")
        magnitude = np.abs(librosa.stft(x, n_fft=n_fft, hop_length=hop_length, pad_mode="constant"))
    return [
        float(values.mean())
        for values in (
            librosa.feature.spectral_centroid(S=magnitude, sr=rate, n_fft=n_fft),
            librosa.feature.spectral_bandwidth(S=magnitude, sr=rate, n_fft=n_fft),
            librosa.feature.spectral_rolloff(S=magnitude, sr=rate, n_fft=n_fft),
            librosa.feature.spectral_flatness(S=magnitude),
        )
    ]


def features(result: kernels.Spectral, item: int) -> list[float]:
    names = ("spectral_centroid_hz", "spectral_bandwidth_hz", "spectral_rolloff_hz", "spectral_flatness")
    return [getattr(result, name)[item].item() for name in names]


PURE_TONE = 3  # index in `signals`


def signals(rate: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    speech = reference.speech_like(rate, 2.0)
    return [
        rng.standard_normal(rate) * 0.1,
        speech,
        speech + rng.standard_normal(len(speech)) * 1e-4,
        reference.tone(rate, 0.7, -6, hz=0.21 * rate),
        np.concatenate([np.zeros(rate), rng.standard_normal(rate // 3)]),
        rng.standard_normal(100),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("rate", "n_fft", "hop"), [(48_000, 2048, 512), (16_000, 512, 256), (8_000, 400, 160), (22_050, 2048, 1024)]
)
def test_features_equal_those_of_librosa(rate: int, n_fft: int, hop: int, dtype: torch.dtype) -> None:
    items = signals(rate)
    lengths = torch.tensor([len(item) for item in items])
    x = torch.full((len(items), 1, int(lengths.max())), 0.7, dtype=dtype)
    for row, item in zip(x, items, strict=True):
        row[0, : len(item)] = torch.from_numpy(item)
    result = kernels.spectral(x, rate, lengths, n_fft=n_fft, hop_length=hop)
    for i, item in enumerate(items):
        expected = librosa_means(item.astype(np.float32 if dtype == torch.float32 else np.float64), rate, n_fft, hop)
        actual = features(result, i)
        if i == PURE_TONE and dtype == torch.float32:
            # The bandwidth of a tone is mostly rounding of the float32 FFT, which differs between libraries.
            assert actual.pop(1) == pytest.approx(expected.pop(1), rel=1e-2)
        np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_the_default_frame_is_about_43_ms() -> None:
    x = torch.randn(1, 1, 16_000, generator=torch.Generator().manual_seed(0))
    for rate, n_fft in ((48_000, 2048), (44_100, 2048), (16_000, 512), (8_000, 256), (96_000, 4096)):
        explicit = kernels.spectral(x, rate, n_fft=n_fft, hop_length=n_fft // 2)
        assert features(kernels.spectral(x, rate), 0) == features(explicit, 0)


def speech(rate: int) -> list[np.ndarray]:
    """Return real speech if AUDIOPIPE_SPEECH names a folder of 16 kHz WAV files, else speech-like signals."""
    folder = os.environ.get("AUDIOPIPE_SPEECH")
    if folder is None:
        return [reference.speech_like(rate, seconds, seed) for seed, seconds in enumerate([5, 5, 8, 10])]
    import soundfile

    files = sorted(Path(folder).glob("*.wav"))
    return [soxr.resample(soundfile.read(path)[0], 16_000, rate) for path in files]


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
@pytest.mark.parametrize("snr", [5, 10, 20, 30, 40])
def test_snr_is_the_ratio_to_the_added_noise(snr: float, rate: int) -> None:
    rng = np.random.default_rng(snr)
    for x in speech(rate):
        noise = rng.standard_normal(len(x))
        noisy = x + noise * np.sqrt((x**2).mean() / (noise**2).mean() / 10 ** (snr / 10))
        estimate = kernels.spectral(torch.from_numpy(noisy).float()[None, None], rate).snr_db.item()
        assert estimate == pytest.approx(snr, abs=2)


def hum(length: int, rate: int, hertz: float, harmonics: int) -> np.ndarray:
    phase = 2 * np.pi * hertz * np.arange(length) / rate
    return sum((np.sin(k * phase + k) / k for k in range(1, harmonics + 1)), np.zeros(length))


@pytest.mark.parametrize("rate", [16_000, 48_000])
@pytest.mark.parametrize(("hertz", "harmonics"), [(50, 1), (60, 10), (100, 1), (50, 20), (1000, 1)])
@pytest.mark.parametrize("snr", [5, 10, 20, 30])
def test_steady_hum_counts_as_noise(snr: float, hertz: float, harmonics: int, rate: int) -> None:
    errors = []
    for x in speech(rate):
        noise = hum(len(x), rate, hertz, harmonics)
        noisy = x + noise * np.sqrt((x**2).mean() / (noise**2).mean() / 10 ** (snr / 10))
        errors.append(kernels.spectral(torch.from_numpy(noisy).float()[None, None], rate).snr_db.item() - snr)
    assert np.mean(errors) == pytest.approx(0, abs=2)
    assert np.abs(errors).max() < 3.5


def test_snr_of_noise_is_low_and_of_clean_speech_high() -> None:
    noise = torch.randn(1, 1, 80_000, generator=torch.Generator().manual_seed(0))
    assert kernels.spectral(noise, 16_000).snr_db < 0
    clean = torch.from_numpy(reference.speech_like(16_000, 5.0)).float()[None, None]
    assert kernels.spectral(clean, 16_000).snr_db > 45
    assert torch.isnan(kernels.spectral(noise[..., :2_000], 16_000).snr_db).all()


def bandwidth(x: np.ndarray, rate: int) -> float:
    return kernels.spectral(torch.from_numpy(x).float()[None, None], rate).bandwidth_hz.item()


def full_band(rate: int, kind: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(4 * rate)
    spectrum = np.fft.rfft(x)
    slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[kind]
    x = np.fft.irfft(spectrum / np.arange(1, len(spectrum) + 1) ** slope)
    syllables = np.repeat(rng.uniform(0.02, 1, 40), rate // 10)
    return 0.1 * x / x.std() * syllables[: len(x)]


@pytest.mark.parametrize("kind", ["white", "pink", "brown"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_bandwidth_of_a_full_band_signal_is_nyquist(rate: int, kind: str) -> None:
    assert bandwidth(full_band(rate, kind), rate) == rate / 2


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize(
    ("rate", "cutoff"), [(16_000, 3_400), (16_000, 6_000), (48_000, 4_000), (48_000, 11_025), (48_000, 20_000)]
)
def test_bandwidth_is_the_cutoff_of_a_low_pass(rate: int, cutoff: int, quantized: bool) -> None:
    for kind in ("white", "pink"):
        x = fftconvolve(full_band(rate, kind), firwin(1001, cutoff, fs=rate, window=("kaiser", 9)), "same")
        x = np.round(x * 32_768) / 32_768 if quantized else x
        assert bandwidth(x, rate) == pytest.approx(cutoff, abs=300)


@pytest.mark.parametrize(
    ("low", "rate"), [(8_000, 16_000), (8_000, 48_000), (16_000, 48_000), (22_050, 44_100), (24_000, 48_000)]
)
def test_upsampled_audio_has_its_original_bandwidth(low: int, rate: int) -> None:
    for kind in ("white", "pink"):
        assert bandwidth(soxr.resample(full_band(low, kind), low, rate), rate) == pytest.approx(low / 2, abs=300)


def test_silence_has_no_spectrum() -> None:
    result = kernels.spectral(torch.zeros(1, 1, 16_000), 16_000)
    assert all(torch.isnan(value).all() for value in vars(result).values())
