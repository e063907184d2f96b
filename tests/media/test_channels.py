"""Channels that cancel in their mean: the counts of the decoder, and the choice that follows from them."""

import av
import numpy as np
import pytest
from factories import config, media_file, source_of, tones

from audiopipe.media.channel_meter import ChannelMeter
from audiopipe.media.channels import choose_channel, is_canceling
from audiopipe.media.decode import decode, probe

RATE = 48_000
SPEECH = tones(12.0, RATE, 1)[0].astype(np.float32)
NOISE = np.random.default_rng(0).standard_normal((8, 12 * RATE)).astype(np.float32) * 0.1
FIRST_HALF = np.arange(12 * RATE) < 6 * RATE
START = np.arange(12 * RATE) < 1.5 * RATE
SECOND_SPEAKER = ~FIRST_HALF


def count(channels, name="fltp", frame_samples=32768):
    """Measure channels as frames of a sample format."""
    name = "flt" if len(channels) == 8 else name  # PyAV makes no planar frames of eight channels
    samples = np.stack(channels).astype(np.float32)
    if name.startswith("s16"):
        samples = (samples * 32767).astype(np.int16)
    layout = {1: "mono", 2: "stereo", 3: "2.1", 6: "5.1", 8: "7.1"}[len(samples)]
    meter = ChannelMeter(len(samples))
    for start in range(0, samples.shape[1], frame_samples):
        part = samples[:, start : start + frame_samples]
        data = part if name.endswith("p") else part.T.reshape(1, -1)
        meter.add(av.AudioFrame.from_ndarray(np.ascontiguousarray(data), name, layout))
    return meter.finish()


def choose(counts):
    return choose_channel(counts) if is_canceling(counts) else None


CASES = {
    "inverted": ([SPEECH, -SPEECH], 0),
    "inverted and louder": ([0.9 * SPEECH, -SPEECH], 1),
    "with an offset, which is not sound": ([SPEECH + 0.2, 0.2 - SPEECH], 0),
    "of three one is silent": ([0 * SPEECH, SPEECH, -SPEECH], 1),
    "15 dB below the channels": ([SPEECH, -0.7 * SPEECH], 0),
    "inverted for half of the time": ([SPEECH, np.where(FIRST_HALF, SPEECH, -SPEECH)], 0),
    "inverted for an eighth of the time": ([SPEECH, np.where(START, -SPEECH, SPEECH)], 0),
    "loud and inverted": ([3 * SPEECH, -3 * SPEECH], 0),
    "8 dB below the channels": ([SPEECH, -0.4 * SPEECH], None),
    "one is silent": ([SPEECH, 0 * SPEECH], None),
    "all are silent": ([0 * SPEECH, 0 * SPEECH], None),
    "independent": (list(NOISE[:2]), None),
    "eight are independent": (list(NOISE), None),
    "one of eight has sound": ([SPEECH, *([0 * SPEECH] * 7)], None),
    "a dialog, one speaker on each": ([SPEECH * FIRST_HALF, SPEECH * ~FIRST_HALF], None),
    "a dialog with an inverted start": (list(SPEECH * np.stack([~SECOND_SPEAKER, SECOND_SPEAKER - 1.0 * START])), None),
}


@pytest.mark.parametrize("name", CASES)
def test_a_channel_replaces_a_mean_that_cancels(name):
    channels, expected = CASES[name]
    assert choose(count(channels)) == expected


@pytest.mark.parametrize("name", ["fltp", "flt", "s16p", "s16"])
@pytest.mark.parametrize("frame_samples", [960, 32768])
def test_counts_are_those_of_the_samples_in_any_format(name, frame_samples):
    counts = count([SPEECH, np.where(FIRST_HALF, SPEECH, -SPEECH)], name, frame_samples)
    assert counts.sounding == pytest.approx(12 * RATE / 32768, abs=1)
    assert counts.canceling / counts.sounding == pytest.approx(0.5, abs=0.06)
    power = float(np.mean(np.square(SPEECH)))
    assert counts.energies == pytest.approx([power * counts.sounding] * 2, rel=0.1)


def test_a_damaged_sample_does_not_count():
    damaged = SPEECH.copy()
    damaged[:3] = np.nan, np.inf, 1e30
    assert choose(count([damaged, -1.1 * SPEECH])) == 1


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("webm", ["-c:a", "libopus"]), ("m4a", ["-c:a", "aac"]), ("flac", ["-sample_fmt", "s16"]), ("wav", [])],
)
def test_the_decoder_counts_blocks_of_a_real_file(tmp_path, suffix, options):
    signal = np.stack([SPEECH, np.where(FIRST_HALF, SPEECH, -SPEECH)])
    source = source_of(media_file(tmp_path / f"a.{suffix}", signal, RATE, *options))
    media = probe(source, config())
    reports = []
    mean = list(decode(source, media, config(), record_report=reports.append))
    assert choose(reports[0].channels) == 0
    share = reports[0].channels.canceling / reports[0].channels.sounding
    assert share == pytest.approx(0.5, abs=0.15)
    list(decode(source, media, config(), record_report=reports.append, channels=2))
    assert reports[1].channels is None
    expected = signal.mean(0)
    actual = np.concatenate(mean, axis=-1)[0] / (32768 if mean[0].dtype == np.int16 else 1)
    assert np.abs(actual[RATE : 5 * RATE] - expected[RATE : 5 * RATE]).max() < 0.05
