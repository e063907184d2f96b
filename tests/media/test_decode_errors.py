"""Media that cannot be decoded, and decoders that die, hang or are stopped."""

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

import pytest
from decoded_file import (
    OPUS,
    decode_file,
    no_decoder_remains,  # noqa: F401 - a fixture
)
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


def test_a_container_without_an_audio_stream_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    command = [find_ffmpeg(), "-v", "error", "-f", "lavfi", "-t", "1", "-i", "color=s=64x36:r=5", str(path)]
    subprocess.run(command, check=True, timeout=30)
    with pytest.raises(NoAudio, match="without an audio stream"):
        decode.probe(source_of(path), config())


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
                ring.flush()

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
