"""Decode every container and codec: samples, channels and byte ranges."""

import os
from dataclasses import replace

import numpy as np
import pytest
from decoded_file import (
    AAC,
    OPUS,
    decode_file,
    no_decoder_remains,  # noqa: F401 - a fixture
)
from factories import config, media_file, source_of, tones

from audiopipe.media import decode

MP3 = ("-c:a", "libmp3lame")
# container, codec, sample rate, channels, ffmpeg options, allowed error (None: exact to 16 bits)
FORMATS = [
    ("webm", "opus", 48_000, 2, OPUS, 0.2),
    ("opus", "opus", 48_000, 1, OPUS, 0.2),
    ("ogg", "opus", 48_000, 2, OPUS, 0.2),
    ("mkv", "opus", 48_000, 2, OPUS, 0.2),
    ("m4a", "aac", 44_100, 2, AAC, 0.2),
    ("m4a", "aac", 44_100, 1, (*AAC, "-movflags", "+faststart"), 0.2),
    ("mp4", "aac", 48_000, 2, AAC, 0.2),
    ("mp3", "mp3", 44_100, 2, MP3, 0.2),
    ("flac", "flac", 48_000, 1, ("-sample_fmt", "s16"), None),
    ("wav", "pcm_s16le", 22_050, 1, (), None),
    ("wav", "pcm_s16le", 8_000, 2, (), None),
    ("mkv", "flac", 96_000, 2, ("-c:a", "flac", "-sample_fmt", "s16"), None),
]


@pytest.mark.parametrize(("container", "codec", "rate", "channels", "options", "tolerance"), FORMATS)
def test_every_container_and_codec_decodes_to_its_signal(
    tmp_path, container, codec, rate, channels, options, tolerance
):
    truth = tones(1.5, rate, channels)
    media, pcm = decode_file(media_file(tmp_path / f"a.{container}", truth, rate, *options))
    assert (media.codec, media.sample_rate_hz, media.channels) == (codec, rate, channels)
    assert media.declared_s == pytest.approx(1.5, abs=0.1)
    decoded = pcm[0] / 32768 if pcm.dtype == np.int16 else pcm[0]
    expected = truth.mean(0)
    assert abs(len(decoded) - len(expected)) <= 0.06 * rate
    n = min(len(decoded), len(expected)) - rate // 8
    error = np.abs(decoded[rate // 8 : n] - expected[rate // 8 : n]).max()
    assert error < (tolerance or 2 / 32768)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
def test_the_mean_of_the_channels_equals_numpys(tmp_path, channels):
    truth = tones(0.5, 48_000, channels).astype(np.float32)
    path = media_file(tmp_path / "a.wav", truth, 48_000, "-c:a", "pcm_f32le")
    media, pcm = decode_file(path)
    assert media.channels == channels
    assert pcm.dtype == np.float32
    np.testing.assert_allclose(pcm[0], truth.astype(np.float64).mean(0), atol=2e-7, rtol=0)


@pytest.mark.parametrize(
    ("layout", "count"),
    [
        *(("2.1", 3), ("3.1", 4), ("4.1", 5), ("quad", 4), ("hexagonal", 6), ("6.1", 7), ("7.1", 8), ("octagonal", 8)),
        ("5.1(side)", 6),
    ],
)
def test_a_layout_of_any_name_decodes_to_its_mean(tmp_path, layout, count):
    path = media_file(tmp_path / "a.mka", tones(0.2, 16_000, count), 16_000, "-c:a", "pcm_s16le", layout=layout)
    media, pcm = decode_file(path.rename(tmp_path / "a.mkv"))
    assert media.channels == count
    assert pcm.shape == (1, 3200)


def test_sixteen_bits_stay_sixteen_bits(tmp_path):
    ramp = np.arange(-32768, 32768, dtype=np.int16)[None, :]
    path = media_file(tmp_path / "a.flac", ramp, 16_000, sample="s16le")
    _, pcm = decode_file(path)
    assert pcm.dtype == np.int16
    assert (pcm == ramp).all()


def test_sixteen_bit_stereo_stays_exact(tmp_path):
    pair = np.random.default_rng(0).integers(-32768, 32768, (2, 20_000), dtype=np.int16)
    path = media_file(tmp_path / "a.wav", pair, 16_000, sample="s16le")
    _, pcm = decode_file(path, measure_channels="source")
    assert pcm.dtype == np.int16
    assert (pcm == pair).all()


def test_channels_without_weights_are_measured_as_their_mean(tmp_path):
    path = media_file(tmp_path / "a.wav", tones(0.2, 16_000, 3), 16_000, "-c:a", "pcm_f32le")
    _, pcm = decode_file(path, measure_channels="source")
    assert pcm.shape[0] == 1


def test_lossy_audio_above_full_scale_is_not_clipped(tmp_path):
    loud = np.sign(tones(1.0, 44_100, 1)) * 0.99
    _, pcm = decode_file(media_file(tmp_path / "a.m4a", loud, 44_100, *AAC))
    assert np.abs(pcm).max() > 1.05


def test_a_video_stream_is_ignored(tmp_path):
    video = ("-f", "lavfi", "-t", "1", "-i", "color=c=navy:s=64x36:r=10", "-c:v", "mpeg4", "-c:a", "aac")
    media, pcm = decode_file(media_file(tmp_path / "a.mp4", tones(1.0, 16_000, 1), 16_000, *video))
    assert media.codec == "aac"
    assert pcm.shape[1] >= 16_000


def test_a_title_in_another_encoding_is_ignored(tmp_path):
    path = media_file(tmp_path / "a.wav", tones(1.0, 16_000, 1), 16_000, "-metadata", "title=Caf@ noir")
    path.write_bytes(path.read_bytes().replace(b"Caf@", b"Caf\xe9"))
    assert decode_file(path)[1].shape == (1, 16_000)


@pytest.mark.parametrize("formats", [[(44_100, 2), (22_050, 1)], [(22_050, 1), (44_100, 2)]])
@pytest.mark.parametrize("measured", ["mean", "source"])
def test_a_changing_stream_keeps_its_initial_rate_and_channels(tmp_path, formats, measured):
    parts = [media_file(tmp_path / f"{c}.aac", tones(2.0, rate, c), rate, *AAC) for rate, c in formats]
    path = tmp_path / "both.aac"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    media, pcm = decode_file(path, measure_channels=measured)
    rate, channels = formats[0]
    assert (media.sample_rate_hz, media.channels) == (rate, channels)
    assert pcm.shape[0] == (channels if measured == "source" else 1)
    assert pcm.shape[1] == pytest.approx(4 * rate, rel=0.06)
    truth, middle = tones(2.0, *formats[1]).mean(0), pcm.mean(0)[int(2.5 * rate) : int(3.5 * rate)]
    assert middle.std() == pytest.approx(truth.std(), rel=0.1)


def test_blocks_are_three_seconds_and_lose_nothing(tmp_path):
    source = source_of(media_file(tmp_path / "a.wav", tones(7.5, 16_000, 1), 16_000))
    blocks = [block.shape for block in decode.decode(source, decode.probe(source, config()), config())]
    assert blocks == [(1, 48_000), (1, 48_000), (1, 24_000)]


def test_a_byte_range_of_a_tar_decodes_in_place(tmp_path):
    audio = media_file(tmp_path / "a.m4a", tones(1.0, 44_100, 1), 44_100, *AAC)
    data = audio.read_bytes()
    archive = tmp_path / "archive"
    archive.write_bytes(os.urandom(1536) + data + os.urandom(700))
    source = replace(source_of(archive), offset=1536, size=len(data))
    media = decode.probe(source, config())
    pcm = np.concatenate(list(decode.decode(source, media, config())), axis=1)
    assert np.array_equal(pcm, decode_file(audio)[1])
