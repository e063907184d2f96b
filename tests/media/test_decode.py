import io
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from factories import config, list_decoders, media_file, source_of, tones
from waiting import wait_until

from audiopipe.bench.corpus.media import find_ffmpeg
from audiopipe.errors import (
    DecoderCrash,
    DecoderTimeout,
    NoAudio,
    TooLong,
    TruncatedMedia,
    UndecodableMedia,
    UnreadableSource,
)
from audiopipe.media import decode, decoder_process
from audiopipe.media.demuxers import main_error
from audiopipe.media.limits import refuse_truncated
from audiopipe.media.ring import Reader, Writer
from audiopipe.types import Media

OPUS, AAC, MP3 = ("-c:a", "libopus", "-b:a", "96k"), ("-c:a", "aac", "-b:a", "128k"), ("-c:a", "libmp3lame")
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


def decode_file(path, **parameters):
    source = source_of(path)
    media = decode.probe(source, config(**parameters))
    return media, np.concatenate(list(decode.decode(source, media, config(**parameters))), axis=1)


@pytest.fixture(autouse=True)
def no_decoder_remains():
    yield
    assert list_decoders() == []


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


def test_a_container_without_an_audio_stream_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    command = [find_ffmpeg(), "-v", "error", "-f", "lavfi", "-t", "1", "-i", "color=s=64x36:r=5", str(path)]
    subprocess.run(command, check=True, timeout=30)
    with pytest.raises(NoAudio, match="without an audio stream"):
        decode.probe(source_of(path), config())


def test_a_title_in_another_encoding_is_ignored(tmp_path):
    path = media_file(tmp_path / "a.wav", tones(1.0, 16_000, 1), 16_000, "-metadata", "title=Caf@ noir")
    path.write_bytes(path.read_bytes().replace(b"Caf@", b"Caf\xe9"))
    assert decode_file(path)[1].shape == (1, 16_000)


def test_a_stream_with_a_damaged_header_counts_as_none(tmp_path):
    path = media_file(tmp_path / "a.mkv", tones(1.0, 48_000, 2), 48_000, "-c:a", "libvorbis")
    path.write_bytes(path.read_bytes().replace(b"\x01vorbis", b"\x02vorbis", 1))  # FFmpeg then sees no channels
    with pytest.raises(NoAudio, match="is matroska,webm without an audio stream"):
        decode.probe(source_of(path), config())


@pytest.mark.parametrize("data", [b"", b"\x00" * 5000, os.urandom(5000), b"RIFF\xff\xff\xff\xffWAVEfmt "])
def test_garbage_is_undecodable_with_a_reason_without_paths(tmp_path, data):
    path = tmp_path / "a.webm"
    path.write_bytes(data)
    with pytest.raises((UndecodableMedia, NoAudio)) as caught:
        decode.probe(source_of(path), config())
    assert "subfile" not in str(caught.value)


def long_file(tmp_path):
    return media_file(tmp_path / "long.wav", tones(60.0, 48_000, 1), 48_000)


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (signal.SIGKILL, DecoderCrash, "killed by signal 9"),
        (signal.SIGSEGV, UndecodableMedia, "crashed with signal 11"),
        (signal.SIGSTOP, DecoderTimeout, "hung for 1 s"),
    ],
)
def test_a_decoder_that_dies_is_distinct_from_one_that_hangs(tmp_path, number, error, message):
    source, settings = source_of(long_file(tmp_path)), config(decode_timeout_s=1.0)
    blocks = decode.decode(source, decode.probe(source, settings), settings)
    next(blocks)
    (decoder,) = list_decoders()
    decoder.send_signal(number)
    with pytest.raises(error, match=message):
        list(blocks)


@pytest.mark.parametrize(
    ("number", "error", "message"),
    [
        (signal.SIGKILL, DecoderCrash, "killed by signal 9"),
        (signal.SIGSEGV, UndecodableMedia, "crashed with signal 11"),
        (None, DecoderTimeout, "no header was read in 2 s"),
    ],
)
def test_a_dead_header_reader_is_distinct_from_a_hung_one(tmp_path, monkeypatch, number, error, message):
    if number is None:
        monkeypatch.setattr(decode, "PROBE_TIMEOUT_S", 2.0)
    endless = tmp_path / "a.wav"
    os.mkfifo(endless)  # a pipe without a writer
    source = replace(source_of(endless), size=1000)
    with ThreadPoolExecutor(1) as thread:
        probing = thread.submit(decode.probe, source, config())
        wait_until(list_decoders, "the header is being read")
        if number:
            list_decoders()[0].send_signal(number)
        with pytest.raises(error, match=message):
            probing.result()


def test_the_cpu_time_of_reading_a_header_is_recorded(tmp_path):
    cpu_s = []
    decode.probe(source_of(long_file(tmp_path)), config(), cpu_s.append)
    assert len(cpu_s) == 1
    assert 0 < cpu_s[0] < 5


@pytest.mark.parametrize(
    ("stderr", "message"),
    [
        ("[mov,mp4 @ 0x55d0] moov atom not found\nInvalid data found\n", "moov atom not found"),
        ("[in#0 @ 0x1] subfile,,start,0: Invalid data\nInvalid data found", "Invalid data found"),
        ("", "the decoder recognized nothing in it"),
        ('Traceback (most recent call last):\n  File "x"\nMemoryError: no room', "MemoryError: no room"),
    ],
)
def test_the_main_error_is_chosen_among_many_messages(stderr, message):
    assert main_error(stderr) == message


def test_a_decoder_that_only_trickles_is_stopped(tmp_path, monkeypatch):
    source, settings = source_of(long_file(tmp_path)), config(decode_timeout_s=1.0)
    media = decode.probe(source, settings)

    @contextmanager
    def start_slow_decoder(*_):
        control, server_control = socket.socketpair()
        with closing(Reader()) as samples, control, server_control, ThreadPoolExecutor(1) as thread:
            memory, notify = samples.descriptors
            thread.submit(trickle, Writer(memory, os.dup(notify)))
            samples.close_writer_end()
            server_control.send(b"[0, 0.0]")
            try:
                yield decoder_process.Decoder(samples, io.BytesIO(), control)
            finally:
                finished.set()

    def trickle(ring):
        with closing(ring):
            while not finished.wait(0.2):
                ring.write(memoryview(b"ab"))

    finished = Event()
    monkeypatch.setattr(decoder_process, "start_decoder", start_slow_decoder)
    started = time.monotonic()
    with pytest.raises(DecoderTimeout, match="hung"):
        list(decode.decode(source, media, settings))
    assert time.monotonic() - started < 30


def test_a_decoder_that_fails_gives_a_reason(tmp_path):
    source = source_of(long_file(tmp_path))
    media = decode.probe(source, config())
    source.path.write_bytes(bytes(source.size))
    with pytest.raises(UndecodableMedia, match=r"the decoder failed: Invalid data found when processing input$"):
        list(decode.decode(source, media, config()))


def test_a_file_that_is_lost_while_it_is_read_blames_no_video(tmp_path):
    source = source_of(long_file(tmp_path))
    media = decode.probe(source, config())
    source.path.unlink()
    for read in (lambda: list(decode.decode(source, media, config())), lambda: decode.probe(source, config())):
        with pytest.raises(UnreadableSource, match="its file was lost while it was decoded"):
            read()


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


def test_stopping_midway_leaves_no_decoder(tmp_path):
    source = source_of(long_file(tmp_path))
    blocks = decode.decode(source, decode.probe(source, config()), config())
    next(blocks)
    assert len(list_decoders()) == 1
    blocks.close()
    assert list_decoders() == []


def test_a_truncated_webm_is_detected_and_kept_only_on_request(tmp_path):
    whole = media_file(tmp_path / "a.webm", tones(20.0, 48_000, 2), 48_000, *OPUS).read_bytes()
    path = tmp_path / "cut.webm"
    path.write_bytes(whole[: len(whole) // 2])
    media, pcm = decode_file(path)
    seconds = pcm.shape[1] / media.sample_rate_hz
    assert 8 < seconds < 12
    with pytest.raises(TruncatedMedia, match=r"of 20\.0 s"):
        refuse_truncated(source_of(path), media, seconds, config())
    refuse_truncated(source_of(path), media, seconds, config(truncated="keep"))


def test_the_catalogs_duration_replaces_a_missing_one_of_ogg(tmp_path):
    whole = media_file(tmp_path / "a.ogg", tones(20.0, 48_000, 1), 48_000, *OPUS).read_bytes()
    path = tmp_path / "cut.ogg"
    path.write_bytes(whole[: len(whole) // 2])
    source = source_of(path, duration_s=20.0)
    assert decode.probe(source, config()).declared_s == 20.0


def test_containers_may_round_their_duration():
    source = source_of(Path(__file__))
    media = Media("webm", "opus", 48_000, 2, "fltp", 100.0)
    refuse_truncated(source, media, 98.5, config())
    with pytest.raises(TruncatedMedia):
        refuse_truncated(source, media, 97.0, config())
    with pytest.raises(UndecodableMedia, match="not one sample"):
        refuse_truncated(source, media, 0.0, config(truncated="keep"))


def test_too_long_is_found_by_the_header_or_by_counting(tmp_path):
    path = media_file(tmp_path / "a.wav", tones(5.0, 16_000, 1), 16_000)
    source, settings = source_of(path), config(max_video_s=3.0)
    with pytest.raises(TooLong, match="declares 5 s"):
        decode.probe(source, settings)
    wrong = replace(decode.probe(source, config()), declared_s=1.0)
    with pytest.raises(TooLong, match="longer than"):
        list(decode.decode(source, wrong, settings))


def test_too_many_channels_and_odd_rates_are_refused_by_name(tmp_path):
    many = media_file(tmp_path / "many.wav", tones(0.1, 16_000, 6), 16_000)
    with pytest.raises(UndecodableMedia, match="6 channels, more than max_channels"):
        decode.probe(source_of(many), config(max_channels=2))
    slow = media_file(tmp_path / "slow.wav", tones(0.2, 4_000, 1), 4_000)
    with pytest.raises(UndecodableMedia, match="sample rate of 4000 Hz"):
        decode.probe(source_of(slow), config())


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
