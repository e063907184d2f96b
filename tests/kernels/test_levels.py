import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from audiopipe import kernels


@settings(max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 5_000), st.sampled_from([1, 2, 5]), st.sampled_from(["int16", "float32"]))
def test_levels_are_exact_counts(seed: int, samples: int, channels: int, dtype: str) -> None:
    rng = np.random.default_rng(seed)
    pcm = np.clip(rng.standard_normal((channels, samples)) * 20_000, -32_768, 32_767).astype(np.int16)
    pcm[:, rng.random(samples) < 0.2] = 0
    quiet = rng.integers(0, samples)
    pcm[:, quiet : quiet + 500] //= 4_000
    pcm[0, 0] = 20_000
    x = pcm / 32_768
    samples_in = torch.from_numpy(pcm) if dtype == "int16" else torch.from_numpy(x).float()
    result = kernels.levels(samples_in[None])
    blocks = [x[:, i : i + 32] for i in range(0, samples, 32)]
    silent = sum(block.shape[1] * (np.abs(block).max(1) < 1e-3).sum() for block in blocks)
    rms = math.sqrt((x**2).mean())
    assert result.sample_peak_dbfs.item() == pytest.approx(20 * np.log10(np.abs(x).max()), abs=1e-5)
    assert result.rms_dbfs.item() == pytest.approx(20 * np.log10(rms), abs=1e-4)
    assert result.crest_db.item() == pytest.approx(20 * np.log10(np.abs(x).max() / rms), abs=1e-4)
    assert result.dc_offset.item() == pytest.approx(x.mean(), abs=1e-6)
    assert result.clipping_ratio.item() == pytest.approx(np.mean(np.abs(pcm.astype(int)) >= 32_767), abs=1e-7)
    assert result.silence_ratio.item() == pytest.approx(silent / x.size, abs=1e-7)
    if samples > 1:
        crossings = (np.diff((x < 0).astype(int), axis=1) != 0).sum()
        assert result.zero_crossing_rate.item() == pytest.approx(crossings / (channels * (samples - 1)), abs=1e-7)


def test_dc_offset_of_a_long_item_is_exact() -> None:
    x = torch.full((1, 1, 3_000_001), 0.1)
    x[..., ::2] += 0.05
    assert kernels.levels(x).dc_offset.item() == pytest.approx(0.125, abs=1e-6)


def test_zero_crossings_are_counted_across_tile_edges(monkeypatch: pytest.MonkeyPatch) -> None:
    from audiopipe.kernels import audio

    monkeypatch.setitem(audio.TILE_SAMPLES, "cpu", 64)
    x = torch.ones(1, 1, 1000)
    x[..., 64:] = -1
    x[..., 500:] = 1
    assert kernels.levels(x).zero_crossing_rate.item() == pytest.approx(2 / 999)


def test_levels_of_silence_and_of_an_empty_item() -> None:
    result = kernels.levels(torch.zeros(2, 1, 100), torch.tensor([100, 0]))
    assert result.sample_peak_dbfs[0] == result.rms_dbfs[0] == -math.inf
    assert torch.isnan(result.crest_db).all()
    assert result.silence_ratio[0] == 1
    assert torch.isnan(result.silence_ratio[1])
