"""A media file that refers to other files or addresses cannot make the decoder open them."""

import ctypes
import os
import struct
import subprocess
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from factories import config, media_file, source_of, tones

from audiopipe.bench.corpus.media import find_ffmpeg
from audiopipe.errors import NoAudio, UndecodableMedia
from audiopipe.media.decode import decode, probe


def decode_file(path):
    source = source_of(path)
    return np.concatenate(list(decode(source, probe(source, config()), config())), axis=1)


def playlist(kind, target):
    return {
        "concat": f"ffconcat version 1.0\nfile {target}\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{target}\n#EXT-X-ENDLIST\n",
        "url": f"#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:9/{target.name}\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        "dash": f'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>file://{target}</BaseURL></MPD>',
    }[kind]


@pytest.mark.parametrize("kind", ["concat", "hls", "url", "sdp", "dash"])
@pytest.mark.parametrize("suffix", ["webm", "m4a", "mp3", "wav"])
def test_nothing_outside_the_file_is_followed(tmp_path, kind, suffix):
    target = media_file(tmp_path / "secret.wav", tones(1.0, 16_000, 1), 16_000)
    path = tmp_path / f"a.{suffix}"
    path.write_text(playlist(kind, target))
    with pytest.raises((UndecodableMedia, NoAudio)):
        probe(source_of(path), config())


@contextmanager
def count_opens(path):
    """Yield a list that gets an item for each time the file was opened, as the kernel reports it (inotify)."""
    libc, opens = ctypes.CDLL(None), []
    watch = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(watch, str(path).encode(), 0x20) >= 0  # IN_OPEN
    try:
        yield opens
        with suppress(BlockingIOError):
            opens += [1] * (len(os.read(watch, 1 << 16)) // 16)
    finally:
        os.close(watch)


def refer_to_samples(mov, target):
    """Return the QuickTime file with a data reference (an alias record) that says that its samples lie in `target`.

    The reference grows, and so does every atom around it; the offsets of the samples are then those within `target`.
    """
    name, path = target.name.encode(), str(target).encode()
    front = bytearray(150)
    front[50], front[51 : 51 + len(name)] = len(name), name
    struct.pack_into(">hh", front, 130, 1, 1)  # levels up from the file, and down to the target
    tail = struct.pack(">hH", 18, len(path)) + path + bytes(len(path) % 2) + struct.pack(">hH", -1, 0)
    entry = b"alis" + bytes(4) + bytes(front) + tail
    at = mov.index(b"dref") + 12
    before = struct.unpack_from(">I", mov, at)[0]
    out = bytearray(mov[:at] + struct.pack(">I", len(entry) + 4) + entry + mov[at + before :])
    for atom in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        place = out.index(atom) - 4
        struct.pack_into(">I", out, place, struct.unpack_from(">I", out, place)[0] + len(entry) + 4 - before)
    return bytes(out)


CANARY = 0.5 * np.sin(2 * np.pi * 1234 * np.arange(16_000) / 16_000)[None]


def contains_canary(pcm):
    if not pcm.size:
        return False
    spectrum = np.abs(np.fft.rfft(pcm[0].astype(np.float64)))
    return bool(spectrum.max() > 1 and abs(spectrum.argmax() * 16_000 / pcm.shape[1] - 1234) < 5)


def test_a_file_cannot_reference_samples_of_another_file(tmp_path):
    mov = media_file(tmp_path / "whole.mov", CANARY, 16_000, "-c:a", "pcm_s16le").read_bytes()
    assert contains_canary(decode_file(tmp_path / "whole.mov"))
    canary, path = tmp_path / "canary.raw", tmp_path / "a.mp4"
    canary.write_bytes(mov)  # its samples are at the offsets that the other file names
    samples = mov.index(b"mdat") + 4
    path.write_bytes(refer_to_samples(mov[:samples] + bytes(32_000) + mov[samples + 32_000 :], canary))
    result = subprocess.run(
        [find_ffmpeg(), "-v", "debug", "-i", str(path)], capture_output=True, check=False, timeout=30
    )
    assert b"filename canary.raw" in result.stderr, "ffmpeg does not see the reference in the file"
    with count_opens(canary) as opens:
        canary.read_bytes()
    assert opens, "inotify does not report that the file is opened"
    with count_opens(canary) as opens:
        pcm = decode_file(path)
    assert opens == []
    assert not pcm.any()  # the samples of the file itself are silence


FOLLOWED_BY_FFMPEG = {
    "concat": ("ffconcat version 1.0\nfile {}\n", ["-safe", "0"]),
    "hls": (
        "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{}\n#EXT-X-ENDLIST\n",
        ["-allowed_extensions", "ALL", "-extension_picky", "0"],
    ),
}


@pytest.mark.parametrize("kind", FOLLOWED_BY_FFMPEG)
def test_a_playlist_that_ffmpeg_would_follow_opens_nothing(tmp_path, kind):
    body, options = FOLLOWED_BY_FFMPEG[kind]
    canary = media_file(tmp_path / "canary.wav", CANARY, 16_000)
    path = tmp_path / "a.m4a"
    path.write_text(body.format(canary))
    command = [find_ffmpeg(), "-v", "error", *options, "-f", kind, "-i", str(path), "-f", "s16le", "-"]
    result = subprocess.run(command, capture_output=True, check=False, timeout=30)
    assert contains_canary(np.frombuffer(result.stdout, "<i2")[None]), result.stderr
    with count_opens(canary) as opens, pytest.raises((UndecodableMedia, NoAudio)):
        decode_file(path)
    assert opens == []
