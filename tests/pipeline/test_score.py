import math

import numpy as np
import pytest
import torch
from factories import clip, config

from audiopipe import kernels
from audiopipe.dataset.schema import METRIC_NAMES
from audiopipe.errors import WorkerFailure
from audiopipe.pipeline.batch import Batch
from audiopipe.pipeline.drop_rules import RULES
from audiopipe.pipeline.score import drop_reason, resolve_device, score
from audiopipe.types import Clip, Span

CPU = torch.device("cpu")
GOOD = dict.fromkeys(METRIC_NAMES, 0.0) | {
    "loudness_lufs": -20.0,
    "clipping_ratio": 0.0,
    "silence_ratio": 0.1,
    "snr_db": 30.0,
    "bandwidth_hz": 8000.0,
}
ALL_RULES = {"max_loudness_lufs": -5.0, "min_bandwidth_hz": 3000.0}


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("too_quiet", {"loudness_lufs": -50.1}),
        ("too_quiet", {"loudness_lufs": -math.inf}),
        ("too_loud", {"loudness_lufs": -4.9}),
        ("clipped", {"clipping_ratio": 0.0051}),
        ("mostly_silence", {"silence_ratio": 0.91}),
        ("noisy", {"snr_db": 4.9}),
        ("narrow_band", {"bandwidth_hz": 2999.0}),
        ("too_quiet", {"loudness_lufs": -60.0, "snr_db": 0.0, "silence_ratio": 1.0}),
        (None, {}),
    ],
)
def test_the_first_broken_rule_names_the_reason(reason, change):
    assert drop_reason(GOOD | change, config(**ALL_RULES)) == reason


@pytest.mark.parametrize("metric", [rule.metric for rule in RULES])
def test_an_undefined_metric_drops_no_segment(metric):
    assert drop_reason(GOOD | {metric: math.nan}, config(**ALL_RULES)) is None


def test_a_threshold_switched_off_drops_nothing():
    no_limits = dict.fromkeys(rule.field for rule in RULES)
    worst = GOOD | {"loudness_lufs": -math.inf, "clipping_ratio": 1.0, "silence_ratio": 1.0, "snr_db": -math.inf}
    assert drop_reason(worst, config(**no_limits)) is None


def test_a_limit_itself_passes():
    edge = GOOD | {"loudness_lufs": -50.0, "clipping_ratio": 0.005, "silence_ratio": 0.9, "snr_db": 5.0}
    assert drop_reason(edge, config()) is None


def keep_all(**more):
    return config(**{**dict.fromkeys(rule.field for rule in RULES), **more})


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_clip_scores_the_same_alone_and_in_any_company(dtype):
    members = [clip(40_000 + 900 * i, 48_000, dtype=dtype, index=i, seed=i) for i in range(5)]
    together = score(Batch(tuple(members)), keep_all(), CPU)
    for member, in_batch in zip(members, together, strict=True):
        (alone,) = score(Batch((member,)), keep_all(), CPU)
        np.testing.assert_allclose(in_batch.metrics, alone.metrics, rtol=2e-4, atol=2e-4)
        assert np.abs(in_batch.samples.astype(int) - alone.samples).max() <= 1


def test_the_same_batch_gives_the_same_bits():
    batch = Batch(tuple(clip(40_000, 48_000, dtype=np.float32, index=i, seed=i) for i in range(5)))
    first, second = (score(batch, keep_all(), CPU) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.metrics, b.metrics)
        assert (a.samples == b.samples).all()


def test_one_bad_clip_leaves_its_neighbors_unchanged():
    good = clip(16_000, dtype=np.float32)
    bad = Clip("v", 1, Span(1, 2), 16_000, np.full((1, 16_000), np.nan, np.float32))
    first, second, third = score(Batch((good, bad, good)), keep_all(), CPU)
    assert np.isnan(second.metrics).all()
    assert (second.drop_reason, second.samples) == ("not_finite", None)
    np.testing.assert_array_equal(first.metrics, third.metrics)
    assert np.isfinite(first.metrics[METRIC_NAMES.index("loudness_lufs")])


@pytest.mark.parametrize("sample", [math.nan, math.inf, -math.inf, 1e30, -2e3])
def test_a_sample_that_is_not_finite_drops_its_segment(sample):
    good = clip(32_000, dtype=np.float32)
    pcm = good.pcm.copy()
    pcm[0, 7000] = sample
    bad = Clip("v", 1, good.span, 16_000, pcm)
    expected, scored = score(Batch((good, bad)), keep_all(), CPU)
    assert (expected.drop_reason, scored.drop_reason, scored.samples) == (None, "not_finite", None)
    for name in ("loudness_lufs", "snr_db", "sample_peak_dbfs"):
        index = METRIC_NAMES.index(name)
        assert scored.metrics[index] == pytest.approx(expected.metrics[index], abs=1.0)


def test_metrics_are_those_of_the_kernels_in_order():
    source = clip(16_000, dtype=np.float32)
    (scored,) = score(Batch((source,)), keep_all(), CPU)
    direct = kernels.measure(torch.from_numpy(source.pcm)[None], 16_000).stack()[0].numpy()
    np.testing.assert_array_equal(scored.metrics, direct)


@pytest.mark.parametrize(("rate", "expected"), [(48_000, 8_000), (44_100, 8_000), (16_000, 8_000), (22_050, 8_000)])
def test_the_signal_that_comes_out_has_its_length_at_the_new_rate(rate, expected):
    (scored,) = score(Batch((clip(rate // 2, rate),)), keep_all(), CPU)
    assert scored.samples.dtype == np.int16
    assert scored.samples.shape == (expected,)


def test_nothing_is_changed_where_nothing_has_to_be():
    source = clip(16_000, 16_000, dtype=np.int16)
    (scored,) = score(Batch((source,)), keep_all(), CPU)
    assert (scored.samples == source.pcm[0]).all()


def test_a_layout_as_it_is_comes_out_as_its_mean():
    pair = clip(16_000, 16_000, channels=2, dtype=np.int16)
    (scored,) = score(Batch((pair,)), keep_all(measure_channels="source"), CPU)
    assert np.abs(scored.samples - pair.pcm.astype(int).mean(0)).max() <= 0.5


def test_samples_above_full_scale_are_limited_only_on_the_way_out():
    loud = Clip("v", 0, Span(0, 1), 16_000, np.full((1, 16_000), 1.5, np.float32))
    (scored,) = score(Batch((loud,)), keep_all(), CPU)
    assert scored.metrics[METRIC_NAMES.index("sample_peak_dbfs")] == pytest.approx(20 * math.log10(1.5), abs=1e-4)
    assert scored.samples.max() == 32767


@pytest.mark.parametrize("max_clips", [4, 2, 1])
def test_out_of_memory_takes_more_tiles_and_gives_the_same(monkeypatch, max_clips):
    batch = Batch(tuple(clip(16_000 + 100 * i, index=i, seed=i) for i in range(5)))
    expected = score(batch, keep_all(), CPU)
    real, tried = kernels.measure_and_resample, []

    def small_device(x, *arguments):
        tried.append(len(x))
        if len(x) > max_clips:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(x, *arguments)

    monkeypatch.setattr(kernels, "measure_and_resample", small_device)
    tiled = score(batch, keep_all(), CPU)
    assert max(tried) == 5 > max_clips
    assert [scored.index for scored in tiled] == [0, 1, 2, 3, 4]
    for a, b in zip(tiled, expected, strict=True):
        np.testing.assert_allclose(a.metrics, b.metrics, rtol=1e-5, atol=1e-5)
        assert np.abs(a.samples.astype(int) - b.samples).max() <= 1


def test_no_memory_for_one_clip_is_an_error_of_the_machine(monkeypatch):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(kernels, "measure_and_resample", out_of_memory)
    with pytest.raises(WorkerFailure, match="does not have the memory for one clip"):
        score(Batch((clip(16_000), clip(16_000))), keep_all(), CPU)


def loudness_of(scored):
    x = torch.from_numpy(scored.samples / 32768.0)[None, None]
    measured = kernels.measure(x, 16_000)
    return measured.loudness_lufs.item(), measured.true_peak_dbtp.item()


@pytest.mark.parametrize("rate", [16_000, 48_000])
@pytest.mark.parametrize("target", [-23.0, -16.0])
def test_normalizing_reaches_the_target_and_records_the_gain(rate, target):
    batch = Batch((clip(rate * 2, rate), clip(rate * 2 - 900, rate, channels=1, seed=3)))
    plain = score(batch, keep_all(), CPU)
    for before, after in zip(plain, score(batch, keep_all(normalize_lufs=target), CPU), strict=True):
        assert loudness_of(after)[0] == pytest.approx(target, abs=0.01)
        assert after.gain_db == pytest.approx(target - loudness_of(before)[0], abs=0.01)
        np.testing.assert_array_equal(before.metrics, after.metrics)
        assert before.gain_db == 0.0


def test_the_true_peak_ceiling_limits_the_gain():
    (scored,) = score(Batch((clip(48_000, 48_000),)), keep_all(normalize_lufs=-5.0, true_peak_dbtp=-2.0), CPU)
    loudness, peak = loudness_of(scored)
    assert peak == pytest.approx(-2.0, abs=0.02)
    assert loudness < -5.5


@pytest.mark.parametrize("samples", [np.zeros((1, 16_000)), np.full((1, 100), 0.5)])
def test_what_has_no_loudness_is_left_as_it_is(samples):
    source = Clip("v", 0, Span(0, 1), 16_000, samples.astype(np.float32))
    (scored,) = score(Batch((source,)), keep_all(normalize_lufs=-20.0), CPU)
    assert scored.gain_db == 0.0
    np.testing.assert_array_equal(scored.samples, np.round(np.nan_to_num(samples[0]) * 32768))


def test_dropped_clips_have_scores_and_no_samples():
    (scored,) = score(Batch((clip(16_000),)), config(min_loudness_lufs=0.0), CPU)
    assert (scored.drop_reason, scored.samples) == ("too_quiet", None)
    assert np.isfinite(scored.metrics[0])


def test_auto_takes_the_cpu_where_there_is_no_gpu():
    assert resolve_device(config(device="cpu")) == CPU
    assert resolve_device(config()).type == ("cuda" if torch.cuda.is_available() else "cpu")
