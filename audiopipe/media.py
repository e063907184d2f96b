"""Decode a video's audio with a process of its own (`decoder_forks.py`), PCM over a pipe.

Why a process: several of them use several cores, it can be limited and killed, and a crash costs one video. In threads
of ours FFmpeg's libraries need the interpreter once for every 20 ms of audio, and two threads are slower than one.

Files come from strangers. FFmpeg would follow playlists and addresses inside them, so it is given a fixed list of
demuxers and no protocol but the one that reads our own byte range.
"""

from __future__ import annotations

import fcntl
import re
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from typing import IO, Any

import av
import imageio_ffmpeg
import numpy as np

from audiopipe import decoder_forks
from audiopipe.config import RunConfig
from audiopipe.decoder import Asked
from audiopipe.errors import DecoderDied, NoAudio, TooLong, TruncatedMedia, UndecodableMedia
from audiopipe.source import Source
from audiopipe.types import Media, Pcm, Seconds

__all__ = ["decode", "decoded_channels", "probe", "refuse_truncated"]

DEMUXERS = "matroska,webm,mov,mp4,m4a,ogg,mp3,flac,wav,aac"
PROTOCOLS = "subfile,file"
GUARDED = ["-nostdin", "-protocol_whitelist", PROTOCOLS, "-format_whitelist", DEMUXERS]
SIXTEEN_BITS = frozenset({"u8", "s16", "s16p"})
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


def decode(
    source: Source,
    media: Media,
    config: RunConfig,
    block_s: Seconds = BLOCK_S,
    used: Callable[[Seconds], None] | None = None,
) -> Iterator[Pcm]:
    """Decode to blocks [C, T], int16 where that is exact, else float32 (16 bits would clip what a lossy decoder puts
    above full scale).

    C is `decoded_channels`.

    Args:
        block_s: how long a block is, but for the last.
        used: told at the end what the decoder took of a CPU.

    Raises:
        UndecodableMedia: the decoder gave up or crashed, or took more than `decode_timeout_s` for a block.
        DecoderDied: somebody killed the decoder.
        TooLong: there is more than `max_video_s`.
    """
    channels = decoded_channels(media, config)
    exact = channels == media.channels and media.sample_format in SIXTEEN_BITS
    form, dtype = ("s16", np.dtype("<i2")) if exact else ("flt", np.dtype("<f4"))
    guarded = {"protocol_whitelist": PROTOCOLS, "format_whitelist": DEMUXERS}
    asked = Asked(url=source.url, options=guarded, sample_rate_hz=media.sample_rate_hz, channels=channels, form=form)
    with decoder_forks.started(asked) as decoder:
        try:
            yield from _blocks(
                decoder.samples, source, media, round(block_s * media.sample_rate_hz), channels, dtype, config
            )
            _judge(source, decoder.end(config.decode_timeout_s))
        except TimeoutError:
            _judge(source, decoder.kill(), stopped=True)
            limit = f"{config.decode_timeout_s:.0f} s"
            raise UndecodableMedia(f"{source.video.uri}: the decoder hung for {limit} and was stopped") from None
        finally:
            how = decoder.kill()
            if used:
                used(how.cpu_s)


def _judge(source: Source, how: decoder_forks.Ended, stopped: bool = False) -> None:
    """Raise unless the decoder ended well; or as we told it to, if it was `stopped`."""
    if how.code is None:
        raise DecoderDied(f"the decoder of {source.video.uri} is lost with the process that forks them")
    if how.code < 0 and not stopped:
        _blame(source, how.code)
    if how.code > 0:
        why = how.words[:200] or "it did not say why"
        raise UndecodableMedia(f"{source.video.uri}: the decoder gave up: {why}")


def _blocks(
    pipe: IO[bytes],
    source: Source,
    media: Media,
    size: int,
    channels: int,
    dtype: np.dtype[Any],
    config: RunConfig,
) -> Iterator[Pcm]:
    fcntl.fcntl(pipe, F_SETPIPE_SZ, PIPE_BYTES)
    frames, filled = 0, size
    while filled == size:
        block = np.empty((size, channels), dtype)
        filled = _fill(pipe, block.data.cast("B"), config.decode_timeout_s) // block[0].nbytes
        frames += filled
        if frames > config.max_video_s * media.sample_rate_hz:
            raise TooLong(f"{source.video.uri} is longer than max_video_s ({config.max_video_s:.0f})")
        if filled:
            yield block[:filled].T


def _fill(pipe: IO[bytes], view: memoryview, timeout_s: Seconds) -> int:
    """Read until the buffer is full or the decoder is done; the number of bytes read."""
    filled = 0
    deadline = time.monotonic() + timeout_s
    while filled < len(view):
        if not select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        count = pipe.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            break
        filled += count
    return filled


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
