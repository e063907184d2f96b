"""Decode a video's audio with a process of its own (`decoder.py`), PCM over a pipe.

Why a process: several of them use several cores, it can be limited and killed, and a crash costs one video. In threads
of ours FFmpeg's libraries need the interpreter once for every 20 ms of audio, and two threads are slower than one.

Files come from strangers. FFmpeg would follow playlists and addresses inside them, so it is given a fixed list of
demuxers and no protocol but the one that reads our own byte range.
"""

from __future__ import annotations

import fcntl
import json
import re
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import IO

import av
import imageio_ffmpeg
import numpy as np

from audiopipe.config import RunConfig
from audiopipe.errors import DecoderDied, NoAudio, TooLong, TruncatedMedia, UndecodableMedia
from audiopipe.source import Source
from audiopipe.types import Media, Pcm

__all__ = ["decode", "decoded_channels", "probe", "refuse_truncated"]

DEMUXERS = "matroska,webm,mov,mp4,m4a,ogg,mp3,flac,wav,aac"
PROTOCOLS = "subfile,file"
GUARDED = ["-nostdin", "-protocol_whitelist", PROTOCOLS, "-format_whitelist", DEMUXERS]
# Not `-m`: nothing of this package is needed there. `-P`, or its `types.py` would stand in for Python's.
DECODER = (sys.executable, "-P", str(Path(__file__).with_name("decoder.py")))
SIXTEEN_BITS = frozenset({"u8", "s16", "s16p"})
MEMORY_BYTES = 4 << 30
PROBE_TIMEOUT_S = 60.0
PIPE_BYTES = 1 << 20
BLOCK_S = 3  # what is handed on at once: each block wakes several threads
F_SETPIPE_SZ = 1031

# ffmpeg's own summary of a file; metadata lines are indented further, so a title cannot pass for one of these.
FORMAT = re.compile(r"^Input #0, (\S+), from ", re.MULTILINE)
DURATION = re.compile(r"^  Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)", re.MULTILINE)
STREAM = re.compile(r"^  Stream #0:\d+\S*: Audio: (\w+).*?, (\d+) Hz, ([^,\n]+), (\w+)", re.MULTILINE)
WEIGHTED_CHANNELS = (1, 2, 5, 6)  # numbers of channels for which BS.1770 has weights


@cache
def ffmpeg() -> str:
    """The ffmpeg program: the one that the `imageio-ffmpeg` wheel carries, or `IMAGEIO_FFMPEG_EXE`."""
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def probe(source: Source, config: RunConfig) -> Media:
    """What the media file says of itself.

    Raises:
        UndecodableMedia: no known container, or nothing that could be read in it.
        NoAudio: a container without an audio stream.
        TooLong: it declares more than `max_video_s`.
    """
    name = source.video.uri
    try:
        done = subprocess.run(
            [ffmpeg(), "-hide_banner", *GUARDED, "-i", source.url],
            check=False,  # it always fails: there is nothing to write
            capture_output=True,
            timeout=PROBE_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise UndecodableMedia(f"{name}: its header kept the decoder busy for {PROBE_TIMEOUT_S:.0f} s") from None
    if done.returncode < 0:
        _blame(source, done.returncode)
    said = done.stderr.decode(errors="replace")
    container = FORMAT.search(said)
    if container is None:
        raise UndecodableMedia(f"{name}: {_first_words(said)}")
    stream = STREAM.search(said)
    if stream is None:
        raise NoAudio(f"{name} is {container[1]} without an audio stream that could be read")
    rate, channels = int(stream[2]), _channels(stream[3])
    media = Media(container[1].split(",")[0], stream[1], rate, channels, stream[4], _declared(said, source))
    if media.channels > config.max_channels:
        raise UndecodableMedia(f"{name} has {media.channels} channels, more than max_channels ({config.max_channels})")
    if media.declared_s is not None and media.declared_s > config.max_video_s:
        raise TooLong(f"{name} declares {media.declared_s:.0f} s, more than max_video_s ({config.max_video_s:.0f})")
    if not 8_000 <= media.sample_rate_hz <= 192_000:
        raise UndecodableMedia(f"{name} has a sample rate of {media.sample_rate_hz} Hz; 8000 to 192000 are measured")
    return media


def _channels(layout: str) -> int:
    """Of a layout as ffmpeg writes it: `5.1(side)`, `3 channels (FL+FR+FC)`, `ambisonic 1`, `stereo (downmix)`."""
    try:
        return int(av.AudioLayout(layout.strip()).nb_channels)
    except ValueError:
        return int(av.AudioLayout(layout.split(maxsplit=1)[0]).nb_channels)


def _declared(said: str, source: Source) -> float | None:
    """The longest duration that is declared by anyone who should know. ffmpeg's guess from the bit rate is not."""
    declared = [source.video.duration_s] if source.video.duration_s else []
    match = DURATION.search(said)
    if match and "Estimating duration from bitrate" not in said:
        declared.append(int(match[1]) * 3600 + int(match[2]) * 60 + float(match[3]))
    return max(declared, default=None)


def _first_words(said: str) -> str:
    """What ffmpeg complained of first, without its addresses and without our file's name."""
    lines = [re.sub(r"\[[^\]]* @ 0x[0-9a-f]+\] ?", "", line).strip() for line in said.splitlines() if line.strip()]
    telling = [line.removeprefix("Error opening input: ") for line in lines if "subfile," not in line]
    return telling[0][:200] if telling else "the decoder found nothing that it knows"


def decoded_channels(media: Media, config: RunConfig) -> int:
    """Of the blocks of `decode`: 1, the mean, or with `measure_channels: source` all, if there are weights for them."""
    as_it_is = config.measure_channels == "source" and media.channels in WEIGHTED_CHANNELS
    return media.channels if as_it_is else 1


def decode(source: Source, media: Media, config: RunConfig) -> Iterator[Pcm]:
    """Decode to blocks of three seconds: [C, T], int16 where that is exact, else float32 (16 bits would clip what a
    lossy decoder puts above full scale).

    C is `decoded_channels`.

    Raises:
        UndecodableMedia: the decoder gave up or crashed, or took more than `decode_timeout_s` for a block.
        DecoderDied: somebody killed the decoder.
        TooLong: there is more than `max_video_s`.
    """
    channels = decoded_channels(media, config)
    exact = channels == media.channels and media.sample_format in SIXTEEN_BITS
    form, dtype = ("s16", np.dtype("<i2")) if exact else ("flt", np.dtype("<f4"))
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            _command(source, media.sample_rate_hz, channels, form), stdout=subprocess.PIPE, stderr=complaints, bufsize=0
        )
        try:
            assert process.stdout is not None
            resource.prlimit(process.pid, resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            yield from _blocks(process.stdout, source, media, channels, dtype, config)
            code = process.wait(config.decode_timeout_s)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()  # type: ignore[union-attr]
        if code < 0:
            _blame(source, code)
        if code > 0:
            complaints.seek(0)
            why = _last_words(complaints.read().decode(errors="replace"))
            raise UndecodableMedia(f"{source.video.uri}: the decoder gave up: {why}")


def _command(source: Source, sample_rate_hz: int, channels: int, form: str) -> list[str]:
    asked = {
        "url": source.url,
        "options": {"protocol_whitelist": PROTOCOLS, "format_whitelist": DEMUXERS},
        "sample_rate_hz": sample_rate_hz,
        "channels": channels,
        "form": form,
    }
    return [*DECODER, json.dumps(asked)]


def _blocks(
    pipe: IO[bytes], source: Source, media: Media, channels: int, dtype: np.dtype[np.generic], config: RunConfig
) -> Iterator[Pcm]:
    fcntl.fcntl(pipe, F_SETPIPE_SZ, PIPE_BYTES)
    frame = channels * dtype.itemsize
    frames = 0
    while True:
        buffer = bytearray(BLOCK_S * media.sample_rate_hz * frame)
        filled = _fill(pipe, memoryview(buffer), source, config.decode_timeout_s)
        block = np.frombuffer(buffer, dtype, count=filled // frame * channels).reshape(-1, channels).T
        frames += block.shape[1]
        if frames > config.max_video_s * media.sample_rate_hz:
            raise TooLong(f"{source.video.uri} is longer than max_video_s ({config.max_video_s:.0f})")
        if block.shape[1]:
            yield block
        if filled < len(buffer):
            return


def _fill(pipe: IO[bytes], view: memoryview, source: Source, timeout_s: float) -> int:
    """Read until the buffer is full or the decoder is done; the number of bytes read."""
    filled = 0
    deadline = time.monotonic() + timeout_s
    while filled < len(view):
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise UndecodableMedia(f"{source.video.uri}: the decoder hung for {timeout_s:.0f} s and was stopped")
        count = pipe.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            break
        filled += count
    return filled


def _last_words(said: str) -> str:
    """Python's last line is the error itself; above it are lines of code."""
    return said.strip().rpartition("\n")[2][:200] or "it did not say why"


def _blame(source: Source, code: int) -> None:
    """A signal from outside says nothing of the video; one that the decoder brought on itself does."""
    if -code in (9, 15, 2):
        raise DecoderDied(f"the decoder of {source.video.uri} was killed by signal {-code}")
    raise UndecodableMedia(f"{source.video.uri}: the decoder crashed with signal {-code}")


def refuse_truncated(source: Source, media: Media, decoded_s: float, config: RunConfig) -> None:
    """Raise if the audio is missing, or ends well before its declared duration; containers round theirs a little."""
    if decoded_s == 0:
        raise UndecodableMedia(f"{source.video.uri}: not one sample of its {media.codec} could be decoded")
    declared = media.declared_s or 0.0
    if config.truncated == "reject" and decoded_s < declared - max(1.0, 0.02 * declared):
        raise TruncatedMedia(
            f"{source.video.uri} ends after {decoded_s:.1f} of {declared:.1f} s; truncated='keep' takes what there is"
        )
