"""The scorer `dnsmos` through its interface; tests/models/test_dnsmos.py has the parity with speechmos."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from audiopipe.errors import ConfigError, MissingExtra
from audiopipe.models import dnsmos as networks
from audiopipe.scorers.registry import create_scorers, stored_columns
from audiopipe.scorers.scorer import ScorerBatch, SegmentInfo

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scorer():
    (scorer,) = create_scorers("dnsmos")
    scorer.load(CPU)
    return scorer


def make_batch(lengths, seed=0):
    samples = torch.randn(len(lengths), 1, max(lengths), generator=torch.Generator().manual_seed(seed)) * 0.05
    for row, length in zip(samples, lengths, strict=True):
        row[:, length:] = 0.0
    return ScorerBatch(samples, lengths, [SegmentInfo("v", "en", length / 16_000, None, None) for length in lengths])


def test_columns_are_ratings_from_1_to_5(scorer):
    assert [column.name for column in scorer.columns] == ["dnsmos_sig", "dnsmos_bak", "dnsmos_ovrl", "dnsmos_p808"]
    assert {(column.type, column.unit, column.minimum, column.maximum) for column in scorer.columns} == {
        ("float", "MOS", 1.0, 5.0)
    }
    assert (scorer.sample_rate, scorer.channels, scorer.needs_audio) == (16_000, 1, True)


def test_scores_segments_of_ragged_lengths(scorer):
    lengths = [9_120, 9_281, 6_400]
    batch = make_batch(lengths)
    values = scorer.score(batch)
    expected = scorer._networks([row[0, :length] for row, length in zip(batch.samples, lengths, strict=True)])
    assert list(values) == [column.name for column in scorer.columns]
    np.testing.assert_allclose(np.stack(list(values.values()), axis=1), expected.numpy(), rtol=1e-6)
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in values.values())


def test_padding_and_neighbors_change_nothing(scorer):
    batch = make_batch([9_120, 9_280])
    alone = ScorerBatch(batch.samples[:1, :, :9_120], [9_120], batch.segments[:1])
    for name, value in scorer.score(alone).items():
        assert value[0] == scorer.score(batch)[name][0]


def test_out_of_memory_reaches_the_pipeline(scorer, monkeypatch):
    def fail(network, samples, count, period):
        raise torch.OutOfMemoryError("too little memory")

    monkeypatch.setattr(networks.P835, "forward", fail)
    with pytest.raises(torch.OutOfMemoryError):
        scorer.score(make_batch([9_120]))


def test_without_speechmos_the_extra_is_named(monkeypatch):
    networks.load_dnsmos.cache_clear()
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    (scorer,) = create_scorers("dnsmos")
    with pytest.raises(MissingExtra, match=r"the scorer 'dnsmos' needs the package speechmos: .*audiopipe\[dnsmos\]"):
        scorer.load(CPU)
    networks.load_dnsmos.cache_clear()


def test_half_precision_is_for_gpus_and_has_a_name(scorer):
    (half,) = create_scorers("dnsmos_half")
    assert (half.name, half.columns) == ("dnsmos_half", scorer.columns)
    assert half._is_half(torch.device("cuda"))
    assert not half._is_half(CPU)
    with pytest.raises(ConfigError, match="dnsmos_sig"):
        stored_columns(create_scorers("dnsmos,dnsmos_half"))


def test_columns_are_read_without_torch():
    program = (
        "from audiopipe.scorers.dnsmos import Dnsmos; import sys; print(len(Dnsmos.columns), 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["4", "False"]
