"""Scorers are created from their names."""

import subprocess
import sys

import pytest
import torch

from audiopipe import kernels
from audiopipe.errors import ConfigError
from audiopipe.scorers.registry import create_scorers, known_scorers, stored_columns
from audiopipe.scorers.scorer import ScorerBatch, SegmentInfo


def test_signal_has_the_metrics_as_columns() -> None:
    scorers = create_scorers("signal")
    assert [scorer.name for scorer in scorers] == ["signal"]
    columns = {column.name: (column.unit, column.description) for column in stored_columns(scorers)}
    assert columns == {name: tuple(metric) for name, metric in kernels.METRICS.items()}


def test_signal_measures_what_the_kernels_measure() -> None:
    samples = 0.1 * torch.randn(2, 1, 16_000, generator=torch.Generator().manual_seed(0))
    samples[1, :, 9_000:] = 0
    segments = [SegmentInfo("a", "en", 1.0, None, None)] * 2
    values = create_scorers("signal")[0].score(ScorerBatch(samples, [16_000, 9_000], segments))
    expected = kernels.measure(samples[1:, :, :9_000], 16_000)
    for name in kernels.METRICS:
        assert values[name][1] == pytest.approx(float(getattr(expected, name)), rel=1e-5, abs=1e-5, nan_ok=True)


def test_unknown_scorer_is_refused_with_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="unknown scorer 'dnsmoss': did you mean 'dnsmos'"):
        create_scorers("signal,dnsmoss")
    with pytest.raises(ConfigError, match="unknown scorer 'qqq': known are signal, dnsmos, speakers, transcript"):
        create_scorers("signal,qqq")


@pytest.mark.parametrize("names", ["", "signal,", ",signal"])
def test_empty_names_are_refused(names: str) -> None:
    with pytest.raises(ConfigError, match="names separated by commas"):
        create_scorers(names)


def test_a_scorer_cannot_be_listed_twice() -> None:
    with pytest.raises(ConfigError, match="signal"):
        create_scorers("signal,signal")


def test_speaker_options_need_the_scorer_speakers() -> None:
    with pytest.raises(ConfigError, match="speaker_labels needs the scorer 'speakers'"):
        create_scorers("signal", speaker_labels=True)


def test_known_scorers_start_with_the_built_in_ones() -> None:
    assert known_scorers()[:4] == ["signal", "dnsmos", "speakers", "transcript"]


def test_the_registry_imports_no_torch() -> None:
    code = "import sys, audiopipe.scorers.registry, audiopipe.scorers.signal; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
