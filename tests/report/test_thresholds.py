"""Thresholds, labels and bins that the reports share."""

import math

import numpy as np
import pandas as pd
import pytest

from audiopipe.config import RunConfig
from audiopipe.kernels import METRICS
from audiopipe.pipeline.drop_rules import RULES
from audiopipe.report.histogram import bin_edges, clipped_histogram, finite_values
from audiopipe.report.metric_labels import format_metric, metric_name, metric_title, unit_label, with_unit
from audiopipe.report.thresholds import Threshold, active_thresholds


def test_active_thresholds_are_those_with_a_limit_in_rule_order():
    config = RunConfig.of(catalog="c", output="o", min_bandwidth_hz=4000.0, max_silence_ratio=None)
    thresholds = active_thresholds(config.output_fields())
    expected = [parameter for _, _, parameter, _ in RULES if getattr(config, parameter) is not None]
    assert [threshold.parameter for threshold in thresholds] == expected
    assert "min_bandwidth_hz" in expected
    assert "max_silence_ratio" not in expected


@pytest.mark.parametrize(("reason", "metric", "parameter", "breaks"), RULES)
def test_a_threshold_drops_what_the_pipeline_drops(reason, metric, parameter, breaks):
    threshold = Threshold(reason, metric, parameter, 0.5)
    for value in (-1.0, 0.5, 0.6, math.inf, -math.inf, math.nan):
        assert threshold.drops(value) == breaks(value, 0.5), value


def test_margins_are_positive_inside_the_limit():
    values = pd.Series([4.0, 5.0, 7.0])
    assert Threshold("noisy", "snr_db", "min_snr_db", 5.0).margin(values).tolist() == [-1.0, 0.0, 2.0]
    assert Threshold("too_loud", "loudness_lufs", "max_loudness_lufs", 5.0).margin(values).tolist() == [1.0, 0.0, -2.0]


def test_a_threshold_prints_its_limit_and_parameter():
    assert str(Threshold("too_quiet", "loudness_lufs", "min_loudness_lufs", -50.0)) == (
        "loudness (LUFS) below −50: min_loudness_lufs"
    )


@pytest.mark.parametrize(
    ("metric", "title", "unit", "value"),
    [
        ("snr_db", "SNR (dB)", "dB", "−3.0 dB"),
        ("clipping_ratio", "clipping ratio", "share, 0 to 1", "−3.000"),
        ("spectral_flatness", "spectral flatness", "no unit", "−3.000"),
        ("dc_offset", "DC offset", "no unit", "−3.000"),
        ("bandwidth_hz", "bandwidth (Hz)", "Hz", "−3 Hz"),
    ],
)
def test_metric_labels(metric, title, unit, value):
    assert metric_title(metric) == title
    assert title.startswith(metric_name(metric))
    assert unit_label(metric) == unit
    assert with_unit(metric, -3.0) == value
    assert value.startswith(format_metric(metric, -3.0))


def test_titles_of_metrics_are_unique():
    assert len({metric_title(metric) for metric in METRICS}) == len(METRICS)


def test_bins_cover_the_limit_and_outliers_count_in_the_last_bin():
    values = finite_values(pd.Series([*np.linspace(0, 1, 1000), 50.0, math.nan, math.inf]))
    assert len(values) == 1001
    edges = bin_edges(values, 10, limit=2.0)
    assert edges[0] < 0
    assert 2.0 < edges[-1] < 3.0
    assert clipped_histogram(values, edges).sum() == 1001
    assert clipped_histogram(np.array([50.0]), edges)[-1] == 1


def test_equal_values_get_bins_of_some_width():
    edges = bin_edges(np.full(5, -20.0), 4)
    assert edges[0] < -20.0 < edges[-1]
