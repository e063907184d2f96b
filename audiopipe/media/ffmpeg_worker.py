"""Read the header of a file, or decode its first audio stream to PCM: the work of a decoder process (`forkserver.py`).

FFmpeg's libraries run in one thread here. The `ffmpeg` program has one thread each for reading, decoding, filtering and
writing, which pass frames of 20 ms to each other. Iterating over packets in Python costs, in addition to the decoding
itself, three quarters of its time for AAC and two fifths for Opus. So the file is read, decoded and mixed within a
filter graph (`amovie`), which returns two thirds of a second at a time. That graph supports streams of one format only:
a stream that changes its sample rate or layout in the middle is decoded packet by packet instead.

The graph counts samples; each chunk's timestamp shows whether the count is right. At the first chunk where it is not,
packet-by-packet decoding takes over and places every frame at its timestamp (`timeline.py`).

What cannot be decoded is skipped, and decoding continues, as in media players: it leaves a gap, which becomes silence.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from functools import partial

import av
import av.container
import av.logging

from audiopipe.media.audio_header import describe_audio
from audiopipe.media.channel_meter import ChannelMeter
from audiopipe.media.declared import declared_end
from audiopipe.media.filter_graph import (
    CHUNK_SAMPLES,
    add_tap,
    build_graph,
    layout_name,
    new_buffer_graph,
    new_graph,
    next_tapped,
    write_ready,
)
from audiopipe.media.messages import AudioStream, DecodeReport, DecodeRequest, Header, HeaderRequest, OpenRequest
from audiopipe.media.ring import Writer
from audiopipe.media.timeline import JITTER_S, Clock, PcmOutput, StreamError, find_starts, frame_time

__all__ = [
    "AudioStream",
    "DecodeReport",
    "DecodeRequest",
    "Header",
    "OpenRequest",
    "decode",
    "preload_codecs",
    "read_header",
]

LINK_TOLERANCE_S = 0.25  # a chain may have many short links
# FFmpeg computes their timestamps, from a bit rate or a sample rate that may change in the middle.
UNTIMED_CONTAINERS = frozenset({"aac", "mp3", "wav", "w64"})
COMMON_CODECS = ("aac", "opus", "mp3float", "vorbis", "flac")

Frames = Iterator[av.AudioFrame]


def read_header(request: HeaderRequest, out: Writer) -> None:
    """Write the `Header` of a file as JSON. FFmpeg's warnings go to this process's stderr.

    Raises:
        av.FFmpegError: the file cannot be opened.
    """
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.WARNING)
    with _open_input(request) as container:
        audio, problem = describe_audio(container, partial(_open_input, request), request.language)
        header = Header(container.format.name, _duration_of(container), audio, problem, len(container.streams))
    if header.audio is not None and request.links:
        track = header.audio.track
        ends = [header.audio.end_s, *(_read_end(OpenRequest(url, request.options), track) for url in request.links)]
        end_s = None if None in ends else sum(filter(None, ends))
        header = replace(header, duration_s=end_s, audio=replace(header.audio, end_s=end_s))
    out.write(memoryview(header.to_json()))


def decode(request: DecodeRequest, ring: Writer) -> DecodeReport:
    """Write interleaved samples on the clock of the file until it ends.

    Raises:
        av.FFmpegError: decoding cannot continue.
        TimestampError: the timestamps do not define one clock.
    """
    output, missing = PcmOutput(ring, request.frame_bytes), None
    meter: ChannelMeter | None = None
    for number, url in enumerate([request.url, *request.links], 1):
        first = output.written
        with _open_link(url, number, request) as container:
            stream = _find_stream(container, request, number)
            declared_s = _read_end(OpenRequest(url, request.options), request.track) if request.links else None
            has_timestamps = container.format.name not in UNTIMED_CONTAINERS
            clock = Clock(find_starts(container, stream), float(stream.time_base or 0), has_timestamps)
            if request.counts_channels and meter is None:
                meter = ChannelMeter(stream.codec_context.layout.nb_channels)
            before = deepcopy(meter)
            is_complete = _decode_continuous(container, url, request, replace(clock), output, meter)
        if not is_complete:
            meter = before
            output.skip = output.written - first
            clock.trusted_s = output.skip / request.sample_rate_hz
            with _open_input(OpenRequest(url, request.options)) as container:
                _decode_by_packets(container, request, clock, output, meter)
        decoded_s = (output.written - first) / request.sample_rate_hz
        if missing is None and declared_s and decoded_s < declared_s - max(LINK_TOLERANCE_S, 0.02 * declared_s):
            missing = f"link {number} of {len(request.links) + 1} ends after {decoded_s:.1f} of {declared_s:.1f} s"
    counts = None if meter is None else meter.finish()
    return DecodeReport(output.silence / request.sample_rate_hz, missing, counts)


def preload_codecs() -> None:
    """Open the common codecs once, so that forks inherit the tables that codecs compute on first use."""
    for name in COMMON_CODECS:
        with suppress(av.FFmpegError):  # some codecs open only with a header
            av.CodecContext.create(name, "r").open()


def _open_input(request: OpenRequest) -> av.container.InputContainer:
    # Titles and names in the file may have any encoding; they are not used.
    return av.open(request.url, options=request.options, metadata_errors="replace")


def _open_link(url: str, number: int, request: DecodeRequest) -> av.container.InputContainer:
    try:
        return _open_input(OpenRequest(url, request.options))
    except av.FFmpegError as error:
        if not request.links:
            raise
        raise StreamError(f"link {number} of {len(request.links) + 1}: {error.strerror}") from None


def _duration_of(container: av.container.InputContainer) -> float | None:
    """Return the duration of a file in seconds, None if it is unknown."""
    return None if container.duration is None else container.duration / av.time_base


def _read_end(request: OpenRequest, track: int) -> float | None:
    """Return the declared end of a link in seconds, None if it is unknown or if the link cannot be opened."""
    with suppress(av.FFmpegError), _open_input(request) as container:
        streams = container.streams.audio
        return declared_end(container, streams[min(track, len(streams) - 1)]) if streams else None
    return None


def _find_stream(container: av.container.InputContainer, request: DecodeRequest, link: int = 1) -> av.AudioStream:
    """Return the audio stream to decode; the last one of a link that has fewer than the first.

    Raises:
        StreamError: there is none.
    """
    streams = container.streams.audio
    if not streams:
        raise StreamError(f"link {link} of {len(request.links) + 1} has no audio stream that can be read")
    return streams[min(request.track, len(streams) - 1)]


def _decode_continuous(
    container: av.container.InputContainer,
    url: str,
    request: DecodeRequest,
    clock: Clock,
    output: PcmOutput,
    meter: ChannelMeter | None,
) -> bool:
    """Decode with a graph that reads the file itself, as long as its timestamps agree with the number of samples.

    Returns:
        False at the first chunk that may have a gap or an overlap, which is not written, or if the format changes.
    """
    stream = _find_stream(container, request)
    pending, pending_s = None, None
    try:
        for frame in _read_chunks(container, url, request, meter):
            time_s = frame_time(frame)
            if pending is None:
                output.write_silence(round(clock.move(time_s) * request.sample_rate_hz))
            elif clock.deviation(time_s):
                return False
            else:
                output.write(pending)
            clock.position_s += frame.samples / request.sample_rate_hz
            pending, pending_s = frame, time_s
    except av.PatchWelcomeError:
        return False
    if pending is None:
        return True
    if pending_s is not None and clock.has_timestamps and _has_jump(container, stream, pending_s):
        return False
    output.write(pending)
    return True


def _has_jump(container: av.container.InputContainer, stream: av.AudioStream, start_s: float) -> bool:
    """Check whether the timestamps of the packets from `start_s` to the end have a gap or an overlap."""
    end_s = None
    with suppress(av.FFmpegError):
        container.seek(round(start_s / (stream.time_base or 1)), stream=stream)
        for packet in container.demux(stream):
            if packet.pts is None or packet.duration is None or packet.time_base is None:
                continue
            time_s = float(packet.pts * packet.time_base)
            if end_s is not None and time_s > start_s and abs(time_s - end_s) >= JITTER_S - 1e-3:
                return True
            end_s = time_s + float(packet.duration * packet.time_base)
    return False


def _read_chunks(
    container: av.container.InputContainer, url: str, request: DecodeRequest, meter: ChannelMeter | None
) -> Frames:
    """Decode with a graph that reads the file itself. Each chunk has the timestamp of its first sample.

    Raises:
        av.PatchWelcomeError: the format of the stream changes.
    """
    graph = new_graph()
    stream = _find_stream(container, request)
    layout, track = stream.codec_context.layout, list(container.streams.audio).index(stream)
    options = ":".join(f"{name}={value}" for name, value in request.options.items())
    source = graph.add("amovie", filename=url, format_opts=options, streams=f"a:{track}", dec_threads="1")
    source, tap = (source, None) if meter is None else add_tap(graph, source)
    name = layout_name(layout, request.channels)
    sink = build_graph(graph, source, layout.nb_channels, name, request, is_collected=tap is not None)
    chunks, measured = 0, 0
    while True:
        try:
            if tap is not None and meter is not None and measured <= chunks:
                measured = next_tapped(chunks)
                with suppress(av.BlockingIOError, av.EOFError):
                    meter.add_chunk(tap.pull())
            frame = sink.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        except av.PatchWelcomeError:
            raise
        except av.FFmpegError:  # a packet that could not be decoded, and is consumed
            continue
        assert isinstance(frame, av.AudioFrame)
        chunks += 1
        yield frame


def _decode_by_packets(
    container: av.container.InputContainer,
    request: DecodeRequest,
    clock: Clock,
    output: PcmOutput,
    meter: ChannelMeter | None,
) -> None:
    """Decode a stream whose format may change in the middle, and whose timestamps may jump.

    The output skips what `_decode_continuous` wrote, whose timestamps are not compared again.
    """
    graph, graph_format, layout, pushed = None, None, "", 0
    for frame in _decode_packets(container, request):
        layout = layout or layout_name(frame.layout, request.channels)
        if meter is not None:
            meter.add(frame)
        frame_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        jump = round(clock.move(frame_time(frame)) * request.sample_rate_hz)
        clock.position_s += frame.samples / frame.sample_rate
        if graph is None or jump or frame_format != graph_format:
            if graph is not None:
                graph.push(None)
                write_ready(graph, output)
            output.write_silence(max(jump, 0))
            output.skip += max(-jump, 0)
            graph, graph_format, pushed = new_buffer_graph(frame, layout, request), frame_format, 0
        graph.push(frame)
        pushed += frame.samples
        if pushed >= CHUNK_SAMPLES:
            pushed = 0
            write_ready(graph, output)
    if graph is not None:
        graph.push(None)
        write_ready(graph, output)


def _decode_packets(container: av.container.InputContainer, request: DecodeRequest) -> Frames:
    """Yield the frames of the first audio stream that can be decoded."""
    stream = _find_stream(container, request)
    stream.codec_context.thread_count = 1
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):  # the file ends, maybe within a packet or in garbage
            return
        try:
            for frame in packet.decode():
                assert isinstance(frame, av.AudioFrame)
                yield frame
        except av.EOFError:
            return
        except av.FFmpegError:
            continue
