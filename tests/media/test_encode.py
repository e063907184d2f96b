import io
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pytest
import soundfile as sf
from factories import tones

from audiopipe.media.encode import SUFFIXES, encode

SAMPLES = (tones(2.0, 16_000, 1)[0] * 32767).astype(np.int16)


def decode(data):
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        pcm = np.concatenate([frame.to_ndarray().reshape(-1) for frame in container.decode(stream)])
        return stream.codec_context.name, stream.rate, pcm


@pytest.mark.parametrize("audio_format", sorted(SUFFIXES))
@pytest.mark.parametrize("length", [1, 159, 6401, 32_000])
def test_the_same_samples_give_the_same_bytes(audio_format, length):
    with ThreadPoolExecutor(4) as pool:
        encodings = set(pool.map(lambda _: encode(SAMPLES[:length], 16_000, audio_format), range(8)))
    assert len(encodings) == 1


@pytest.mark.parametrize("audio_format", ["flac", "wav"])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("length", [1, 15, 4095, 4097, 32_000])
def test_lossless_formats_give_back_every_sample(audio_format, rate, length):
    extremes = SAMPLES[:length].copy()
    extremes[:: max(1, length // 7)] = [-32768] * len(extremes[:: max(1, length // 7)])
    samples, decoded_rate = sf.read(io.BytesIO(encode(extremes, rate, audio_format)), dtype="int16")
    assert decoded_rate == rate
    assert (samples == extremes).all()


@pytest.mark.parametrize("rate", [8_000, 12_000, 16_000, 24_000, 48_000])
@pytest.mark.parametrize("seconds", [0.4, 1.0, 1.2345])
def test_opus_keeps_the_length_to_the_sample_at_its_granule(rate, seconds):
    samples = (tones(seconds, rate, 1)[0] * 32767).astype(np.int16)
    data = encode(samples, rate, "opus")
    codec, decoded_rate, pcm = decode(data)
    assert (codec, decoded_rate) == ("opus", 48_000)
    # The last page's granule position minus the pre-skip is the length at 48 kHz.
    last_page = data.rindex(b"OggS")
    skip = int.from_bytes(data[data.index(b"OpusHead") + 10 :][:2], "little")
    assert int.from_bytes(data[last_page + 6 : last_page + 14], "little") - skip == round(len(samples) * 48_000 / rate)
    assert abs(len(pcm) - len(samples) * 48_000 / rate) <= 1000


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_mp3_keeps_its_rate_and_its_length_to_a_frame(rate):
    samples = (tones(1.3, rate, 1)[0] * 32767).astype(np.int16)
    _, decoded_rate, pcm = decode(encode(samples, rate, "mp3"))
    assert decoded_rate == rate
    assert abs(len(pcm) - len(samples)) <= 2 * 1152


@pytest.mark.parametrize("audio_format", ["opus", "mp3"])
def test_lossy_formats_keep_the_spectral_peak(audio_format):
    _, rate, pcm = decode(encode(SAMPLES, 16_000, audio_format))
    decoded = pcm / (32768 if pcm.dtype == np.int16 else 1.0)
    spectra = [np.abs(np.fft.rfft(x, 1 << 18)) for x in (SAMPLES / 32768, decoded)]
    peaks = [spectrum.argmax() * r / (1 << 18) for spectrum, r in zip(spectra, (16_000, rate), strict=True)]
    assert peaks[1] == pytest.approx(peaks[0], abs=2.0)


@pytest.mark.parametrize("audio_format", sorted(SUFFIXES))
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
@pytest.mark.parametrize("peak", [1_000, 32_767])
def test_every_format_keeps_the_level(audio_format, rate, peak):
    tone = np.sin(2 * np.pi * 997 * np.arange(3 * rate) / rate)
    data = encode((peak * tone).astype(np.int16), rate, audio_format)
    pcm = decode(data)[2]
    decoded = pcm / (32768 if pcm.dtype == np.int16 else 1.0)
    middle = decoded[len(decoded) // 4 : -len(decoded) // 4]
    assert 20 * np.log10(np.sqrt(2 * (middle**2).mean()) / (peak / 32768)) == pytest.approx(0, abs=0.05)


def test_silence_and_full_scale_encode_in_every_format():
    for audio_format in SUFFIXES:
        for value in (0, 32767, -32768):
            assert encode(np.full(8000, value, np.int16), 16_000, audio_format)
