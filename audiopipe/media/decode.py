"""Decode the audio of a video in a separate process (`decoder_process.py`), which sends PCM through a ring (`ring.py`).

Separate processes use several cores, can be limited and killed, and a crash costs one video. In threads of this process
FFmpeg's libraries would need the interpreter once for every 20 ms of audio, and two threads are slower than one.

Files are not trusted. FFmpeg would follow playlists and addresses inside them, so it may use only a fixed list of
demuxers and the one protocol that reads the given byte range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from audiopipe.config import RunConfig
from audiopipe.errors import DecoderCrash, DecoderTimeout, NoAudio, TooLong, TruncatedMedia, UndecodableMedia
from audiopipe.media import decoder_process
from audiopipe.media.decoder_process import Decoder, ExitStatus
from audiopipe.media.demuxers import DEMUXERS, main_error, name_format
from audiopipe.media.fetch import Source
from audiopipe.media.forkserver import Job
from audiopipe.media.limits import refuse_overlong, refuse_unusual
from audiopipe.media.messages import DecodeReport, DecodeRequest, Header, HeaderRequest
from audiopipe.media.ogg import find_links, starts_as_ogg
from audiopipe.media.wav import SampleBytes, read_sample_bytes
from audiopipe.types import Media, Pcm, Seconds

__all__ = ["decode", "decoded_channels", "probe"]

PROTOCOLS = "subfile,file"
OPEN_OPTIONS = {"protocol_whitelist": PROTOCOLS, "format_whitelist": DEMUXERS}
SIXTEEN_BIT_FORMATS = frozenset({"u8", "s16", "s16p"})
PROBE_TIMEOUT_S, MAX_HEADER_BYTES = 60.0, 1 << 16
BLOCK_S = 3  # shorter blocks wake up several threads more often
OUTSIDE_SIGNALS = (2, 9, 15)  # a decoder does not send these to itself

WEIGHTED_CHANNELS = (1, 2, 5, 6)  # numbers of channels for which BS.1770 has weights

# MPEG-TS has no header: FFmpeg reads packets to find a stream's properties, 5 s and 5 MB by default.
LONG_PROBE_OPTIONS = {"analyzeduration": str(3600 * 10**6), "probesize": str(200 << 20)}
MAX_LINKS = 200  # of a chained Ogg file
RecordCpu = Callable[[Seconds], None]
RecordReport = Callable[[DecodeReport], None]


@dataclass(frozen=True)
class _PcmFormat:
    """The format of decoded blocks, in FFmpeg's terms and in numpy's."""

    sample_rate_hz: int
    channels: int
    sample_format: Literal["s16", "flt"]

    @property
    def dtype(self) -> np.dtype[np.int16] | np.dtype[np.float32]:
        return np.dtype("<i2") if self.sample_format == "s16" else np.dtype("<f4")


def probe(source: Source, config: RunConfig, record_cpu_s: RecordCpu | None = None) -> Media:
    """Read the header of a media file.

    Args:
        record_cpu_s: called with the CPU time of the process that reads the header.

    Raises:
        UndecodableMedia: the container is unknown, or nothing in it can be read.
        NoAudio: the container has no audio stream.
        TooLong: it declares more than `max_video_s`.
        DecoderCrash: the process that read the header was killed from outside.
        DecoderTimeout: it took too long.
    """
    name = source.video.uri
    wav = read_sample_bytes(source.path, source.offset, source.size)
    options = {"ignore_length": "1"} if wav and wav.declared is None else {}
    links = _find_links(source) if starts_as_ogg(source.path, source.offset) else []
    if wav and wav.end is not None:
        links = [(source.offset, wav.end)]
    header, stderr = _read_header(source, options, links, record_cpu_s)
    if header.audio is None and header.container == "mpegts":
        options = LONG_PROBE_OPTIONS
        header, stderr = _read_header(source, options, links, record_cpu_s)
    if header.container == "ogg" and not links and (links := _find_links(source)):  # other bytes come first
        header, stderr = _read_header(source, options, links, record_cpu_s)
    audio = header.audio
    if audio is None and header.problem:
        raise UndecodableMedia(f"{name}: {header.problem}")
    if audio is None:
        raise NoAudio(f"{name} is {header.container} without an audio stream that can be read")
    refuse_unusual(source, header, audio, config)
    container = header.container.split(",")[0]
    declared_s = _declared_end(source, _correct_duration(header, stderr, wav))
    if declared_s is not None and declared_s > config.max_video_s:
        raise TooLong(f"{name} declares {declared_s:.0f} s, more than max_video_s ({config.max_video_s:.0f})")
    return Media(
        container=container,
        codec=audio.codec,
        sample_rate_hz=audio.sample_rate_hz,
        channels=audio.channels,
        sample_format=audio.sample_format,
        declared_s=declared_s,
        start_s=audio.start_s if container == "mpegts" else None,
        links=tuple(links),
        track=audio.track,
        track_label=audio.label,
        track_note=audio.note,
        options=options,
    )


def decoded_channels(media: Media, config: RunConfig) -> int:
    """Return the number of channels that `decode` yields.

    1, the mean of the channels, or all of them with `measure_channels: source` if BS.1770 has weights for them.
    """
    keeps_layout = config.measure_channels == "source" and media.channels in WEIGHTED_CHANNELS
    return media.channels if keeps_layout else 1


def decode(
    source: Source,
    media: Media,
    config: RunConfig,
    block_s: Seconds = BLOCK_S,
    record_cpu_s: RecordCpu | None = None,
    record_report: RecordReport | None = None,
    channels: int | None = None,
) -> Iterator[Pcm]:
    """Decode to blocks [C, T], where C is `channels`, by default `decoded_channels`.

    Blocks are int16 where that is exact, else float32: 16 bits would clip what a lossy decoder puts above full scale.

    Args:
        block_s: the duration of each block but the last.
        record_cpu_s: called at the end with the CPU time of the decoder.
        record_report: called at the end of the file with the decoder's report.

    Raises:
        UndecodableMedia: the decoder failed or crashed.
        DecoderCrash: the decoder was killed from outside.
        DecoderTimeout: the decoder took more than `decode_timeout_s` for a block.
        TooLong: there is more than `max_video_s`.
        TruncatedMedia: a link of a chained file ends early.
    """
    pcm_format = _choose_format(media, channels or decoded_channels(media, config))
    request = DecodeRequest(
        url=_urls(source, media.links)[0],
        options=OPEN_OPTIONS | media.options,
        sample_rate_hz=pcm_format.sample_rate_hz,
        channels=pcm_format.channels,
        sample_format=pcm_format.sample_format,
        links=_urls(source, media.links)[1:],
        track=media.track,
        counts_channels=channels is None and media.channels > 1,
    )
    with decoder_process.start_decoder(Job.DECODE, request) as decoder:
        try:
            yield from _read_blocks(decoder, source, media, pcm_format, round(block_s * media.sample_rate_hz), config)
            status = decoder.wait(config.decode_timeout_s)
            _raise_for_failure(source, status)
            report = DecodeReport.from_json(status.stderr)
            if record_report:
                record_report(report)
            if report.missing and config.truncated == "reject":
                raise TruncatedMedia(f"{source.video.uri}: {report.missing}; truncated='keep' uses what there is")
        except TimeoutError:
            _raise_for_failure(source, decoder.kill(), was_stopped=True)
            limit = f"{config.decode_timeout_s:.0f} s"
            raise DecoderTimeout(f"{source.video.uri}: the decoder hung for {limit} and was stopped") from None
        finally:
            status = decoder.kill()
            if record_cpu_s:
                record_cpu_s(status.cpu_s)


def _find_links(source: Source) -> list[tuple[int, int]]:
    """Return the starts and the ends of the links of a chained Ogg file; an empty list for other Ogg files.

    Raises:
        UndecodableMedia: there are too many.
    """
    try:
        links = find_links(source.path, source.offset, source.size)
    except UndecodableMedia as error:
        raise UndecodableMedia(f"{source.video.uri}: {error}") from None
    if len(links) > MAX_LINKS:
        raise UndecodableMedia(
            f"{source.video.uri} is a chain of {len(links)} Ogg files, more than {MAX_LINKS}; re-encode it"
        )
    return [] if links == [(source.offset, source.offset + source.size)] else links


def _urls(source: Source, links: Sequence[tuple[int, int]]) -> list[str]:
    """Return the addresses of the links of a chained file, or of the whole file."""
    return [source.range_url(start, end) for start, end in links] or [source.url]


def _read_header(
    source: Source, options: dict[str, str], links: Sequence[tuple[int, int]], record_cpu_s: RecordCpu | None
) -> tuple[Header, str]:
    """Read the header in a separate process; return it with FFmpeg's warnings."""
    buffer = bytearray(MAX_HEADER_BYTES)
    request = HeaderRequest(
        url=_urls(source, links)[0],
        options=OPEN_OPTIONS | options,
        language=source.video.language,
        links=_urls(source, links)[1:],
    )
    with decoder_process.start_decoder(Job.HEADER, request) as decoder:
        try:
            size = decoder.samples.read_into(memoryview(buffer), PROBE_TIMEOUT_S)
            status = decoder.wait(PROBE_TIMEOUT_S)
        except TimeoutError:
            _raise_for_death(source, decoder.kill(), was_stopped=True)
            raise DecoderTimeout(f"{source.video.uri}: no header was read in {PROBE_TIMEOUT_S:.0f} s") from None
        finally:
            if record_cpu_s:
                record_cpu_s(decoder.kill().cpu_s)
    _raise_for_death(source, status)
    if status.code:
        raise UndecodableMedia(f"{source.video.uri}: {name_format(source) or main_error(status.stderr)}")
    return Header.from_json(bytes(buffer[:size])), status.stderr


def _correct_duration(header: Header, stderr: str, wav: SampleBytes | None) -> Header:
    """Remove a duration that FFmpeg guessed or that is wrong; take that of a WAV file from its declared size."""
    assert header.audio is not None
    end_s = header.audio.end_s
    if wav and wav.declared and wav.available and end_s:
        end_s *= max(1.0, wav.declared / wav.available)
    elif wav or "Estimating duration from bitrate" in stderr:
        end_s = None
    return replace(header, duration_s=end_s and header.duration_s, audio=replace(header.audio, end_s=end_s))


def _declared_end(source: Source, header: Header) -> Seconds | None:
    """Return the declared end of the audio; the catalog's duration if the file as a whole is shorter than that."""
    in_catalog = source.video.duration_s
    of_audio = header.audio.end_s if header.audio else None
    of_file = max(filter(None, (header.duration_s, of_audio)), default=None)
    if in_catalog and (of_file is None or in_catalog - of_file > max(1.0, 0.02 * in_catalog)):
        return in_catalog
    return of_audio or in_catalog


def _choose_format(media: Media, channels: int) -> _PcmFormat:
    is_exact = channels == media.channels and media.sample_format in SIXTEEN_BIT_FORMATS
    return _PcmFormat(media.sample_rate_hz, channels, "s16" if is_exact else "flt")


def _read_blocks(
    decoder: Decoder, source: Source, media: Media, pcm_format: _PcmFormat, block_frames: int, config: RunConfig
) -> Iterator[Pcm]:
    frames, filled = 0, block_frames
    while filled == block_frames:
        block = np.empty((block_frames, pcm_format.channels), pcm_format.dtype)
        filled = decoder.samples.read_into(block.data.cast("B"), config.decode_timeout_s) // block[0].nbytes
        frames += filled
        refuse_overlong(source, media.declared_s, frames / media.sample_rate_hz, config)
        if filled:
            yield block[:filled].T


def _raise_for_failure(source: Source, status: ExitStatus, was_stopped: bool = False) -> None:
    """Raise unless the decoder ended without an error, or was stopped by us."""
    _raise_for_death(source, status, was_stopped)
    if status.code is not None and status.code > 0:  # the last line of a Python traceback is the error itself
        reason = status.stderr.strip().rpartition("\n")[2][:200] or "it gave no reason"
        raise UndecodableMedia(f"{source.video.uri}: the decoder failed: {reason}")


def _raise_for_death(source: Source, status: ExitStatus, was_stopped: bool = False) -> None:
    """Raise if a signal ended the decoder: from outside it says nothing about the video, from the decoder it does."""
    if status.code is None:
        raise DecoderCrash(f"the decoder of {source.video.uri} was lost together with its fork server")
    if status.code:
        source.require_readable()
    if was_stopped or status.code >= 0:
        return
    if -status.code in OUTSIDE_SIGNALS:
        raise DecoderCrash(f"the decoder of {source.video.uri} was killed by signal {-status.code}")
    raise UndecodableMedia(f"{source.video.uri}: the decoder crashed with signal {-status.code}")
