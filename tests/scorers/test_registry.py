"""Scorers are created from their names."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from audiopipe import kernels
from audiopipe.errors import ConfigError
from audiopipe.scorers import registry
from audiopipe.scorers.registry import GROUP, create_scorers, known_scorers, stored_columns
from audiopipe.scorers.scorer import Column, ScorerBatch, SegmentInfo
from audiopipe.scorers.signal import Signal


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


def test_a_package_with_two_meanings_of_a_name_is_refused(monkeypatch, tmp_path):
    for number in (1, 2):
        info = tmp_path / f"p{number}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: p{number}\nVersion: 1\n")
        (info / "entry_points.txt").write_text(f"[{GROUP}]\ntwice = p{number}:Scorer\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="several packages have a scorer 'twice': p1:Scorer, p2:Scorer"):
        create_scorers("twice")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"name": "a,b"}, "its name 'a,b' must be"),
        ({"name": "decode"}, "the name 'decode' is that of a stage"),
        ({"version": 1}, "its version 1 must be"),
        ({"columns": ()}, "has no columns"),
        ({"columns": ("x",)}, "'x' is not a Column"),
        ({"columns": (Column("X y", "float", "1", "x"),)}, "the column 'X y' must have a name"),
        ({"columns": (Column("x", "double", "1", "x"),)}, "column 'x' has type 'double', not float, int, bool, string"),
        ({"columns": (Column("x", "int", None, "x"),)}, "column 'x' needs texts"),
        ({"columns": (Column("x", "int", "1", "x"),) * 2}, "column 'x' twice"),
    ],
)
def test_a_wrong_scorer_is_refused_by_name(monkeypatch, attributes, message):
    wrong = type("Wrong", (Signal,), {"name": "wrong", "columns": (Column("x", "int", "1", "x"),), **attributes})
    monkeypatch.setitem(registry.BUILT_IN, "wrong", f"{__name__}:Wrong")
    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(Wrong=wrong))
    with pytest.raises(ConfigError, match=message):
        stored_columns(create_scorers("wrong"))
