"""Work per video is bounded: each limit has a name, and a file beyond it is refused early."""

import struct
import time

import fsspec
import numpy as np
import pytest
from factories import config, media_file, source_of, tones

from audiopipe.errors import NoAudio, TooLarge, TooLong, UndecodableMedia
from audiopipe.media.decode import decode, probe
from audiopipe.media.fetch import fetch
from audiopipe.media.limits import MAX_STREAMS
from audiopipe.types import Video

RATE = 8_000


def decode_file(path, **parameters):
    source = source_of(path)
    media = probe(source, config(**parameters))
    return sum(block.shape[-1] for block in decode(source, media, config(**parameters))) / media.sample_rate_hz


def declare(path, seconds):
    """Write another number of samples into the header of a FLAC file."""
    data = bytearray(path.read_bytes())
    assert data[:4] == b"fLaC"
    fields = struct.unpack_from(">Q", data, 18)[0]  # rate (20 bits), channels (3), bits (5), samples (36)
    struct.pack_into(">Q", data, 18, fields >> 36 << 36 | round(seconds * RATE))
    path.write_bytes(data)
    return path


def test_audio_far_beyond_its_declared_end_is_refused_early(tmp_path):
    path = declare(media_file(tmp_path / "a.flac", np.zeros((1, 3600 * RATE)), RATE), 3)
    assert probe(source_of(path), config()).declared_s == 3
    start = time.process_time()
    with pytest.raises(TooLong, match=r"declares 3 s and is longer than that by more than max_undeclared_s \(600\)"):
        decode_file(path)
    assert time.process_time() - start < 5
    assert decode_file(path, max_undeclared_s=3600) == 3600


def test_audio_a_little_beyond_its_declared_end_is_read(tmp_path):
    path = declare(media_file(tmp_path / "a.flac", tones(60, RATE, 1), RATE), 3)
    assert decode_file(path) == 60


def test_a_file_of_very_many_streams_is_refused(tmp_path):
    maps = [word for _ in range(MAX_STREAMS + 1) for word in ("-map", "0")]
    path = media_file(tmp_path / "a.mkv", tones(0.1, RATE, 1), RATE, *maps, "-c:a", "pcm_s16le")
    with pytest.raises(UndecodableMedia, match=f"has {MAX_STREAMS + 1} streams, more than {MAX_STREAMS}"):
        probe(source_of(path), config())


def test_a_very_large_image_in_a_header_is_passed_over(tmp_path):
    audio = media_file(tmp_path / "a.mp3", tones(3, 16_000, 1), 16_000, "-id3v2_version", "0").read_bytes()
    image = b"\0image/png\0\3\0" + b"\x89PNG\r\n\x1a\n" + bytes(30 << 20)
    frame = b"APIC" + struct.pack(">I", len(image)) + bytes(2) + image
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    (tmp_path / "b.mp3").write_bytes(b"ID3\3\0\0" + size + frame + audio)
    assert decode_file(tmp_path / "b.mp3") == pytest.approx(3, abs=0.1)


# Chunks of these sizes, after the samples, keep FFmpeg's WAV reader from returning.
TRAILERS = [b"\x12\x18u\xbdj\xa4,\xbd\xc2\x94\xa8\xbc", b"x", bytes(4000), b"abcd\xff\xff\xff\xff1234"]


@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize("chunk", [b"", b"LIST\4\0\0\0INFO"])
def test_bytes_after_the_chunks_of_a_wav_are_passed_over(tmp_path, trailer, chunk):
    path = media_file(tmp_path / "a.wav", tones(2, 16_000, 1), 16_000, "-c:a", "pcm_f32le")
    path.write_bytes(path.read_bytes() + chunk + trailer)
    assert decode_file(path) == 2


APPENDED = [("a.wav", ()), ("a.m4a", ("-c:a", "aac")), ("f.mp4", ("-c:a", "aac", "-movflags", "empty_moov"))]


@pytest.mark.parametrize(("name", "options"), APPENDED)
def test_a_file_that_would_be_lost_after_the_first_is_named(tmp_path, name, options):
    path = media_file(tmp_path / name, tones(2, 16_000, 1), 16_000, *options)
    first = path.read_bytes()
    assert decode_file(path) == pytest.approx(2, abs=0.2)
    path.write_bytes(first * 2)
    with pytest.raises(UndecodableMedia, match=f"has another file appended at byte {len(first)}"):
        decode_file(path)


@pytest.mark.parametrize("options", [("a.flac",), ("a.webm", "-c:a", "libopus"), ("a.mkv", "-c:a", "aac"), ("a.mp3",)])
def test_files_that_follow_each_other_are_read(tmp_path, options):
    path = media_file(tmp_path / options[0], tones(2, 16_000, 1), 16_000, *options[1:])
    path.write_bytes(path.read_bytes() * 2)
    assert decode_file(path) == pytest.approx(4, abs=0.2)


@pytest.mark.parametrize("rate", [1, 7_999, 192_001, 2**31 - 1])
def test_a_rate_that_no_speech_has_is_refused(tmp_path, rate):
    path = media_file(tmp_path / "a.wav", tones(1, RATE, 1), RATE)
    data = bytearray(path.read_bytes())
    struct.pack_into("<II", data, data.index(b"fmt ") + 12, rate, min(2 * rate, 2**32 - 1))
    path.write_bytes(data)
    with pytest.raises((UndecodableMedia, NoAudio)):
        decode_file(path)


@pytest.mark.parametrize("protocol", ["", "memory://limits"])
def test_an_object_that_is_too_large_is_not_read(tmp_path, monkeypatch, protocol):
    path = protocol or str(tmp_path)
    if protocol:
        fs = fsspec.filesystem("memory")
        fs.pipe_file("/limits/a.wav", bytes((2 << 20) + 1))
        monkeypatch.setattr(fs, "cat_file", lambda *_, **__: pytest.fail("the object is read"))
    else:
        with (tmp_path / "a.wav").open("wb") as file:
            file.truncate(200 << 30)  # sparse: to read it would take minutes
    (tmp_path / "scratch").mkdir()
    with pytest.raises(TooLarge, match=r"a\.wav has .* MB, more than max_source_mb \(2\)"):
        fetch(Video("v", "en", f"{path}/a.wav"), tmp_path / "scratch", max_mb=2)
    assert list((tmp_path / "scratch").iterdir()) == []
