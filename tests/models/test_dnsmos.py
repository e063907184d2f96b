"""Check the DNSMOS networks against `speechmos` under onnxruntime, and the ways to compute them against each other."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from audiopipe.bench.corpus import load_speech
from audiopipe.models import dnsmos, dnsmos_windows
from audiopipe.models.dnsmos import Dnsmos, load_dnsmos
from audiopipe.models.dnsmos_p808 import P808, mel_matrix
from audiopipe.models.dnsmos_p835 import P835
from audiopipe.models.dnsmos_windows import RATE_HZ, WINDOW, window_indices

CPU = torch.device("cpu")
CACHE = Path(os.environ.get("AUDIOPIPE_DEMO_CACHE", Path(__file__).parents[2] / "demo/corpus/cache"))
TOLERANCE = 1e-3  # of a rating from that of speechmos
KEYS = ("sig_mos", "bak_mos", "ovrl_mos", "p808_mos")


@pytest.fixture(scope="module")
def model():
    return load_dnsmos(CPU)


@pytest.fixture(scope="module")
def reference():
    """Return the function that rates one segment with speechmos as it is shipped."""
    from speechmos import dnsmos as shipped

    def rate(samples):
        result = shipped.run(samples, RATE_HZ)
        return np.array([result[key] for key in KEYS])

    return rate


def make_noise(seconds, seed=0, amplitude=0.05):
    """Synthesize bursts of noise: [T] float32."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * RATE_HZ)
    return (rng.normal(0, amplitude, samples) * (np.arange(samples) % 9000 < 4000)).clip(-1, 1).astype(np.float32)


def make_tone(seconds, amplitude):
    return (amplitude * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def rate(model, *segments):
    return model([torch.from_numpy(samples) for samples in segments]).numpy()


def test_windows_equal_those_of_speechmos():
    from speechmos.dnsmos import DNSMOS

    starts = []

    class Session:
        def run(self, _, inputs):
            starts.append(int(inputs["input_1"].flat[0]))
            return [np.zeros((1, 3))]

    shipped = DNSMOS.__new__(DNSMOS)
    shipped.onnx_sess, shipped.p808_onnx_sess = Session(), type("P808", (), {"run": lambda *_: [np.zeros((1, 1))]})()
    shipped.audio_melspec = lambda audio: np.zeros((900, 120))
    lengths = [1, 6400, 72_079, 72_080, 80_000, 144_159, 144_160, 144_161, 159_999, 160_000, 175_999, 176_000]
    for samples in [*lengths, 256_000, 480_000, 480_001, 40 * RATE_HZ, 125 * RATE_HZ]:
        starts.clear()
        seconds = np.arange(samples, dtype=np.float64) // RATE_HZ
        shipped(seconds / 200, RATE_HZ, False)
        expected = window_indices(samples)
        assert len(starts) == len(expected)
        if samples >= WINDOW:
            wave = torch.from_numpy(seconds)
            spans = list(dnsmos_windows.list_spans([samples]))
            assert sum(span.count for span in spans) == len(expected)
            assert [int(dnsmos_windows.cut_span(wave, span)[0]) for span in spans] == [span.first for span in spans]
    assert window_indices(480_000) == list(range(7))  # 7 to 20 are a sample short in float64, and skipped


@pytest.mark.parametrize(
    "samples",
    [
        pytest.param(make_noise(9.01), id="exactly a window"),
        pytest.param(make_noise(0.57), id="repeated frames"),
        pytest.param(make_noise(4.7131), id="repeated with other frames"),
        pytest.param(np.zeros(9_280, np.float32), id="silence"),
        pytest.param(np.sign(make_tone(0.58, 1.0)), id="full scale"),
        pytest.param(make_noise(11.3) + make_tone(11.3, 0.1), id="two windows"),
    ],
)
def test_ratings_equal_speechmos(model, reference, samples):
    assert np.abs(rate(model, samples)[0] - reference(samples)).max() < TOLERANCE


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ratings_of_speech_equal_speechmos(model, reference):
    rng = np.random.default_rng(5)
    prompts = [prompt for voice in load_speech(CACHE, log=lambda line: None).values() for prompt in voice]
    # Most lengths have one window, so that speechmos needs two minutes and not ten.
    lengths = [*rng.uniform(4.505, 5.49, 60), *rng.uniform(9.01, 10.99, 40), *rng.uniform(2.26, 2.74, 40)]
    lengths += [
        *rng.uniform(0.565, 0.68, 20),
        *rng.uniform(11, 13, 10),
        *rng.uniform(0.4, 4.0, 20),
        0.4,
        5.0,
        15.0,
        30.0,
    ]
    lengths += [*rng.uniform(15, 30, 3), *np.arange(460, 540, 20) / 100]
    worst = np.zeros(len(KEYS))
    for number, seconds in enumerate(lengths):
        samples = _cut_speech(prompts, seconds, rng)
        if number % 4 == 1:
            samples = samples + rng.normal(0, 10 ** rng.uniform(-4, -1), len(samples))
        elif number % 4 == 2:
            samples = samples * rng.uniform(5, 40)
        elif number % 4 == 3:
            samples = samples * 10 ** rng.uniform(-2.5, 0)
        samples = samples.clip(-1, 1).astype(np.float32)
        worst = np.maximum(worst, np.abs(rate(model, samples)[0] - reference(samples)))
    assert len(lengths) >= 200
    assert worst.max() < TOLERANCE, worst


def _cut_speech(prompts, seconds, rng):
    """Join prompts with pauses: [T] float64."""
    parts, size = [], round(seconds * RATE_HZ)
    while sum(map(len, parts)) < size:
        parts += [prompts[rng.integers(len(prompts))].pcm(), np.zeros(rng.integers(800, 9600))]
    return np.concatenate(parts)[:size]


def test_neighbors_and_their_order_change_nothing(model):
    segments = [make_noise(seconds, seed) for seed, seconds in enumerate((0.57, 1.14, 9.3, 0.58, 0.57))]
    together = rate(model, *segments)
    order = [3, 0, 4, 2, 1]
    np.testing.assert_array_equal(rate(model, *(segments[i] for i in order)), together[order])
    np.testing.assert_array_equal(rate(model, segments[2])[0], together[2])


def test_a_nan_spoils_only_its_segment(model):
    bad = make_noise(0.57, seed=1)
    bad[100] = np.nan
    ratings = rate(model, make_noise(0.57), bad)
    assert np.isnan(ratings[1]).all()
    np.testing.assert_array_equal(ratings[0], rate(model, make_noise(0.57))[0])


def test_long_segments_are_cut_into_spans_of_bounded_size(model, monkeypatch):
    monkeypatch.setattr(dnsmos_windows, "MAX_WINDOWS", 2)
    segment = make_noise(0.45)  # repeated: four windows
    cut = rate(model, segment)
    monkeypatch.undo()
    np.testing.assert_allclose(cut, rate(model, segment), atol=1e-5)


def test_steps_on_a_cpu_equal_whole_convolutions(model):
    for length in (8, 62, 64, 130):
        frames = torch.randn(length, 161, generator=torch.Generator().manual_seed(length)) * 2 - 4
        with torch.inference_mode():
            steps, whole = model.p835._step_through(frames), model.p835._convolve(frames[None])[0]
        torch.testing.assert_close(steps, whole, atol=1e-4, rtol=1e-4)


def test_the_way_of_a_gpu_gives_the_same_ratings(model, monkeypatch):
    segments = [make_noise(seconds, seed) for seed, seconds in enumerate((11.5, 0.57, 0.45))]
    expected = rate(model, *segments)
    for network in (P835, P808):
        monkeypatch.setattr(network, "_is_cpu", property(lambda network: False))
    monkeypatch.setitem(dnsmos.PASS_FRAMES, "cpu", 4000)
    np.testing.assert_allclose(rate(model, *segments), expected, atol=1e-4)


@pytest.mark.slow
def test_half_precision_changes_ratings_by_less_than_001(model, monkeypatch):
    segments = [make_noise(5.0), make_tone(5.0, 0.3)]
    expected = rate(model, *segments)
    for network in (P835, P808):
        monkeypatch.setattr(network, "_is_cpu", property(lambda network: False))
    assert 0 < np.abs(rate(Dnsmos(half=True).eval(), *segments) - expected).max() < 0.01


def test_mel_bands_equal_those_of_librosa():
    import librosa

    expected = librosa.filters.mel(sr=RATE_HZ, n_fft=321, n_mels=120, dtype=np.float64)
    np.testing.assert_allclose(mel_matrix().T.numpy(), expected, atol=1e-12)


def test_neither_speechmos_nor_onnxruntime_is_imported():
    program = """
import sys, torch
from audiopipe.models.dnsmos import load_dnsmos
load_dnsmos(torch.device("cpu"))
print([name for name in sys.modules if name.partition(".")[0] in ("speechmos", "onnx", "onnxruntime", "librosa")])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_another_version_of_the_weights_is_refused(monkeypatch):
    monkeypatch.setitem(dnsmos.SHA256, dnsmos.P808_FILE, "0" * 64)
    with pytest.raises(ValueError, match=r"model_v8.onnx is not the file of speechmos 0.0.1.1"):
        Dnsmos()


PEAK = """
import resource, sys, torch
from audiopipe.models.dnsmos import load_dnsmos
torch.set_num_threads(1)
model = load_dnsmos(torch.device("cpu"))
count, seconds = int(sys.argv[1]), float(sys.argv[2])
wave = torch.randn(round(seconds * 16_000), generator=torch.Generator().manual_seed(0)) * 0.05
model([wave[:9000]])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model([wave.clone() for _ in range(count)])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("count", "seconds"), [(4, 30.0), (1, 60.0)])
def test_memory_of_long_segments_is_bounded(count, seconds):
    command = [sys.executable, "-c", PEAK, str(count), str(seconds)]
    growth_kb = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert growth_kb < 300_000
