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
from dataclasses import replace
from itertools import pairwise

import av
import av.container
import av.filter
import av.logging
from av.filter.context import FilterContext

from audiopipe.media.declared import declared_end
from audiopipe.media.messages import AudioStream, DecodeReport, DecodeRequest, Header, HeaderRequest, OpenRequest
from audiopipe.media.ring import Writer
from audiopipe.media.timeline import JITTER_S, Clock, PcmOutput, find_starts, frame_time
from audiopipe.media.tracks import choose_track

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

# Frames of 20 ms are collected to two thirds of a second before anything is done with them.
CHUNK_SAMPLES = 32768
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
        duration = container.duration
        header = Header(
            container=container.format.name,
            duration_s=None if duration is None else duration / av.time_base,
            audio=_describe_audio(container, request.language),
        )
        out.write(memoryview(header.to_json()))


def decode(request: DecodeRequest, ring: Writer) -> DecodeReport:
    """Write interleaved samples on the clock of the file until it ends.

    Raises:
        av.FFmpegError: decoding cannot continue.
        TimestampError: the timestamps do not define one clock.
    """
    output = PcmOutput(ring, request.frame_bytes)
    for url in [request.url, *request.links]:
        first = output.written
        with _open_input(OpenRequest(url, request.options)) as container:
            stream = container.streams.audio[request.track]
            has_timestamps = container.format.name not in UNTIMED_CONTAINERS
            clock = Clock(find_starts(container, stream), float(stream.time_base or 0), has_timestamps)
            is_complete = _decode_continuous(container, url, request, replace(clock), output)
        if not is_complete:
            output.skip = output.written - first
            clock.trusted_s = output.skip / request.sample_rate_hz
            with _open_input(OpenRequest(url, request.options)) as container:
                _decode_by_packets(container, request, clock, output)
    return DecodeReport(gap_s=output.silence / request.sample_rate_hz)


def preload_codecs() -> None:
    """Open the common codecs once, so that forks inherit the tables that codecs compute on first use."""
    for name in COMMON_CODECS:
        with suppress(av.FFmpegError):  # some codecs open only with a header
            av.CodecContext.create(name, "r").open()


def _open_input(request: OpenRequest) -> av.container.InputContainer:
    # Titles and names in the file may have any encoding; they are not used.
    return av.open(request.url, options=request.options, metadata_errors="replace")


def _describe_audio(container: av.container.InputContainer, language: str) -> AudioStream | None:
    """Describe the audio stream for a language; None if there is none that can be decoded."""
    track = choose_track(container.streams.audio, language)
    if track is None:
        return None
    context = track.stream.codec_context
    return AudioStream(
        codec=context.codec.canonical_name,
        sample_rate_hz=context.sample_rate,
        channels=context.layout.nb_channels,
        sample_format=context.format.name,
        end_s=declared_end(container, track.stream),
        track=track.index,
        label=track.label,
        note=track.note,
        start_s=(container.start_time or 0) / av.time_base,
    )


def _decode_continuous(
    container: av.container.InputContainer, url: str, request: DecodeRequest, clock: Clock, output: PcmOutput
) -> bool:
    """Decode with a graph that reads the file itself, as long as its timestamps agree with the number of samples.

    Returns:
        False at the first chunk that may have a gap or an overlap, which is not written, or if the format changes.
    """
    stream = container.streams.audio[request.track]
    pending, pending_s = None, None
    try:
        for frame in _read_chunks(stream.codec_context.layout, url, request):
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


def _read_chunks(layout: av.AudioLayout, url: str, request: DecodeRequest) -> Frames:
    """Decode with a graph that reads the file itself. Each chunk has the timestamp of its first sample.

    Raises:
        av.PatchWelcomeError: the format of the stream changes.
    """
    graph = _new_graph()
    options = ":".join(f"{name}={value}" for name, value in request.options.items())
    source = graph.add("amovie", filename=url, format_opts=options, streams=f"a:{request.track}", dec_threads="1")
    _build_graph(graph, source, layout.nb_channels, _layout_name(layout, request.channels), request)
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        except av.PatchWelcomeError:
            raise
        except av.FFmpegError:  # a packet that could not be decoded, and is consumed
            continue
        assert isinstance(frame, av.AudioFrame)
        yield frame


def _decode_by_packets(
    container: av.container.InputContainer, request: DecodeRequest, clock: Clock, output: PcmOutput
) -> None:
    """Decode a stream whose format may change in the middle, and whose timestamps may jump.

    The output skips what `_decode_continuous` wrote, whose timestamps are not compared again.
    """
    graph, graph_format, layout, pushed = None, None, "", 0
    for frame in _decode_packets(container, request):
        layout = layout or _layout_name(frame.layout, request.channels)
        frame_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        jump = round(clock.move(frame_time(frame)) * request.sample_rate_hz)
        clock.position_s += frame.samples / frame.sample_rate
        if graph is None or jump or frame_format != graph_format:
            if graph is not None:
                graph.push(None)
                _write_ready(graph, output)
            output.write_silence(max(jump, 0))
            output.skip += max(-jump, 0)
            graph, graph_format, pushed = _new_buffer_graph(frame, layout, request), frame_format, 0
        graph.push(frame)
        pushed += frame.samples
        if pushed >= CHUNK_SAMPLES:
            pushed = 0
            _write_ready(graph, output)
    if graph is not None:
        graph.push(None)
        _write_ready(graph, output)


def _decode_packets(container: av.container.InputContainer, request: DecodeRequest) -> Frames:
    """Yield the frames of the first audio stream that can be decoded."""
    stream = container.streams.audio[request.track]
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


def _new_graph() -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    return graph


def _new_buffer_graph(frame: av.AudioFrame, layout: str, request: DecodeRequest) -> av.filter.Graph:
    """Make a graph that frames of the same format as `frame` are pushed into."""
    graph = _new_graph()
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate, format=frame.format.name, layout=frame.layout.name, time_base=frame.time_base
    )
    return _build_graph(graph, source, frame.layout.nb_channels, layout, request)


def _build_graph(
    graph: av.filter.Graph, source: FilterContext, source_channels: int, layout: str, request: DecodeRequest
) -> av.filter.Graph:
    """Connect a source to filters that collect, mix and convert, and configure the graph.

    If the source has more or fewer channels than requested, each output channel is the mean of all source channels:
    for a mean, and where a stream changes its layout in the middle.
    """
    steps = [source, graph.add("asetnsamples", f"n={CHUNK_SAMPLES}:p=0")]
    if source_channels != request.channels:
        mean = "+".join(f"{1 / source_channels:.9f}*c{index}" for index in range(source_channels))
        gains = "|".join(f"c{index}={mean}" for index in range(request.channels))
        steps += [graph.add("aformat", "sample_fmts=fltp"), graph.add("pan", f"{layout}|{gains}")]
    sample_format = request.sample_format
    if request.channels == 1 and sample_format == "flt":
        sample_format = "fltp"  # planar and interleaved samples of one channel are the same bytes
    output = f"sample_fmts={sample_format}:sample_rates={request.sample_rate_hz}:channel_layouts={layout}"
    steps += [graph.add("aformat", output), graph.add("abuffersink")]
    for step, following in pairwise(steps):
        step.link_to(following)
    graph.configure()
    return graph


def _write_ready(graph: av.filter.Graph, output: PcmOutput) -> None:
    """Write the frames that the graph has ready."""
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        assert isinstance(frame, av.AudioFrame)
        output.write(frame)


def _layout_name(layout: av.AudioLayout, channels: int) -> str:
    """Return the name of a layout if it has this many channels, else FFmpeg's name for any `channels` channels."""
    return str(layout.name) if layout.nb_channels == channels else f"{channels}c"
