"""Decode a video's audio with a process of its own (`decoder_forks.py`), PCM through a ring (`ring.py`).

Why a process: several of them use several cores, it can be limited and killed, and a crash costs one video. In threads
of ours FFmpeg's libraries need the interpreter once for every 20 ms of audio, and two threads are slower than one.

Files come from strangers. FFmpeg would follow playlists and addresses inside them, so it is given a fixed list of
demuxers and no protocol but the one that reads our own byte range.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from audiopipe.config import RunConfig
from audiopipe.errors import DecoderCrash, NoAudio, TooLong, TruncatedMedia, UndecodableMedia
from audiopipe.media import forkserver as decoder_forks
from audiopipe.media.fetch import Source
from audiopipe.media.ffmpeg_worker import DecodeRequest, Header, OpenRequest
from audiopipe.media.forkserver import ExitStatus
from audiopipe.media.ring import Reader
from audiopipe.types import Media, Pcm, Seconds

__all__ = ["decode", "decoded_channels", "probe", "refuse_truncated"]

DEMUXERS = "matroska,webm,mov,mp4,m4a,ogg,mp3,flac,wav,aac"
PROTOCOLS = "subfile,file"
GUARDED = {"protocol_whitelist": PROTOCOLS, "format_whitelist": DEMUXERS}
SIXTEEN_BITS = frozenset({"u8", "s16", "s16p"})
PROBE_TIMEOUT_S, LONGEST_HEADER = 60.0, 1 << 16
BLOCK_S = 3  # what is handed on at once: each block wakes several threads

WEIGHTED_CHANNELS = (1, 2, 5, 6)  # numbers of channels for which BS.1770 has weights


def probe(source: Source, config: RunConfig, used: Callable[[Seconds], None] | None = None) -> Media:
    """What the media file says of itself.

    Args:
        used: told what reading it took of a CPU.

    Raises:
        UndecodableMedia: no known container, or nothing that could be read in it.
        NoAudio: a container without an audio stream.
        TooLong: it declares more than `max_video_s`.
        DecoderCrash: somebody killed the process that read it.
    """
    name = source.video.uri
    header, said = _header(source, used)
    if (audio := header["audio"]) is None:
        raise NoAudio(f"{name} is {header['container']} without an audio stream that could be read")
    media = Media(header["container"].split(",")[0], declared_s=_declared(header, said, source), **audio)
    if media.channels > config.max_channels:
        raise UndecodableMedia(f"{name} has {media.channels} channels, more than max_channels ({config.max_channels})")
    if media.declared_s is not None and media.declared_s > config.max_video_s:
        raise TooLong(f"{name} declares {media.declared_s:.0f} s, more than max_video_s ({config.max_video_s:.0f})")
    if not 8_000 <= media.sample_rate_hz <= 192_000:
        raise UndecodableMedia(f"{name} has a sample rate of {media.sample_rate_hz} Hz; 8000 to 192000 are measured")
    return media


def _header(source: Source, used: Callable[[Seconds], None] | None) -> tuple[Header, str]:
    """The header, and what FFmpeg complained of on the way."""
    room = bytearray(LONGEST_HEADER)
    with decoder_forks.started("header", OpenRequest(url=source.url, options=GUARDED)) as decoder:
        try:
            size = decoder.samples.read_into(memoryview(room), PROBE_TIMEOUT_S)
            how = decoder.end(PROBE_TIMEOUT_S)
        except TimeoutError:
            _refuse_death(source, decoder.kill(), stopped=True)
            limit = f"{PROBE_TIMEOUT_S:.0f} s"
            raise UndecodableMedia(f"{source.video.uri}: its header kept the decoder busy for {limit}") from None
        finally:
            if used:
                used(decoder.kill().cpu_s)
    _refuse_death(source, how)
    if how.code:
        raise UndecodableMedia(f"{source.video.uri}: {_first_words(how.complaints)}")
    header: Header = json.loads(room[:size])
    return header, how.complaints


def _declared(header: Header, said: str, source: Source) -> float | None:
    """The longest duration that is declared by anyone who should know. FFmpeg's guess from the bit rate is not."""
    guessed = "Estimating duration from bitrate" in said
    declared = (source.video.duration_s, None if guessed else header["duration_s"])
    return max(filter(None, declared), default=None)


def _first_words(said: str) -> str:
    """What FFmpeg complained of first, without its addresses and without our file's name; or how Python gave up."""
    lines = [re.sub(r"\[[^\]]* @ 0x[0-9a-f]+\] ?", "", line).strip() for line in said.splitlines() if line.strip()]
    telling = [line for line in lines if "subfile," not in line] or ["the decoder found nothing that it knows"]
    return telling[-1 if telling[0].startswith("Traceback") else 0][:200]


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
        DecoderCrash: somebody killed the decoder.
        TooLong: there is more than `max_video_s`.
    """
    channels = decoded_channels(media, config)
    exact = channels == media.channels and media.sample_format in SIXTEEN_BITS
    form, dtype = ("s16", np.dtype("<i2")) if exact else ("flt", np.dtype("<f4"))
    asked = DecodeRequest(
        url=source.url, options=GUARDED, sample_rate_hz=media.sample_rate_hz, channels=channels, form=form
    )
    with decoder_forks.started("decode", asked) as decoder:
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


def _judge(source: Source, how: ExitStatus, stopped: bool = False) -> None:
    """Raise unless the decoder ended well; or as we told it to, if it was `stopped`."""
    _refuse_death(source, how, stopped)
    if how.code is not None and how.code > 0:
        # Python's last line is the error itself; above it are lines of code.
        why = how.complaints.strip().rpartition("\n")[2][:200] or "it did not say why"
        raise UndecodableMedia(f"{source.video.uri}: the decoder gave up: {why}")


def _refuse_death(source: Source, how: ExitStatus, stopped: bool = False) -> None:
    """A signal from outside says nothing of the video; one that the decoder brought on itself does."""
    if how.code is None:
        raise DecoderCrash(f"the decoder of {source.video.uri} is lost with the process that forks them")
    if stopped or how.code >= 0:
        return
    if -how.code in (9, 15, 2):
        raise DecoderCrash(f"the decoder of {source.video.uri} was killed by signal {-how.code}")
    raise UndecodableMedia(f"{source.video.uri}: the decoder crashed with signal {-how.code}")


def _blocks(
    samples: Reader,
    source: Source,
    media: Media,
    size: int,
    channels: int,
    dtype: np.dtype[Any],
    config: RunConfig,
) -> Iterator[Pcm]:
    frames, filled = 0, size
    while filled == size:
        block = np.empty((size, channels), dtype)
        filled = samples.read_into(block.data.cast("B"), config.decode_timeout_s) // block[0].nbytes
        frames += filled
        if frames > config.max_video_s * media.sample_rate_hz:
            raise TooLong(f"{source.video.uri} is longer than max_video_s ({config.max_video_s:.0f})")
        if filled:
            yield block[:filled].T


def refuse_truncated(source: Source, media: Media, decoded_s: float, config: RunConfig) -> None:
    """Raise if the audio is missing, or ends well before its declared duration; containers round theirs a little."""
    if decoded_s == 0:
        raise UndecodableMedia(f"{source.video.uri}: not one sample of its {media.codec} could be decoded")
    declared = media.declared_s or 0.0
    if config.truncated == "reject" and decoded_s < declared - max(1.0, 0.02 * declared):
        raise TruncatedMedia(
            f"{source.video.uri} ends after {decoded_s:.1f} of {declared:.1f} s; truncated='keep' takes what there is"
        )
