"""Read the header of a file, or decode its first audio stream to PCM: the work of a decoder process (`forkserver.py`).

FFmpeg's libraries run in one thread here. The `ffmpeg` program has one thread each for reading, decoding, filtering and
writing, which pass frames of 20 ms to each other. Iterating over packets in Python costs, in addition to the decoding
itself, three quarters of its time for AAC and two fifths for Opus. So the file is read, decoded and mixed within a
filter graph (`amovie`), which returns two thirds of a second at a time. That graph supports streams of one format only:
a stream that changes its sample rate or layout in the middle is decoded packet by packet instead.

What cannot be decoded is skipped, and decoding continues, as in media players. The reader of the output counts its
samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import pairwise

import av
import av.container
import av.filter
import av.logging
from av.filter.context import FilterContext

from audiopipe.media.ring import Writer

__all__ = ["AudioStream", "DecodeRequest", "Header", "OpenRequest", "decode", "preload_codecs", "read_header"]

# Frames of 20 ms are collected to two thirds of a second before anything is done with them.
CHUNK_SAMPLES = 32768
COMMON_CODECS = ("aac", "opus", "mp3float", "vorbis", "flac")

Frames = Iterator[av.AudioFrame]


@dataclass(frozen=True)
class OpenRequest:
    """The file to open, with FFmpeg's options for opening it."""

    url: str
    options: dict[str, str]


@dataclass(frozen=True)
class DecodeRequest(OpenRequest):
    """The file to decode, and the PCM to decode it to: `sample_format` is s16 or flt."""

    sample_rate_hz: int
    channels: int
    sample_format: str

    @property
    def frame_bytes(self) -> int:
        """Size of one sample of all channels."""
        return self.channels * (2 if self.sample_format == "s16" else 4)


@dataclass(frozen=True)
class AudioStream:
    """The properties of an audio stream that are known before it is decoded."""

    codec: str
    sample_rate_hz: int
    channels: int
    sample_format: str


@dataclass(frozen=True)
class Header:
    """The properties of a file, and of its first audio stream if there is one that can be decoded."""

    container: str
    duration_s: float | None
    audio: AudioStream | None

    @classmethod
    def from_json(cls, data: bytes) -> Header:
        """Parse what `to_json` returns."""
        fields = json.loads(data)
        audio = fields.pop("audio")
        return cls(**fields, audio=None if audio is None else AudioStream(**audio))

    def to_json(self) -> bytes:
        """Serialize for the worker process."""
        return json.dumps(asdict(self)).encode()


def read_header(request: OpenRequest, out: Writer) -> None:
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
            audio=_describe_audio(container.streams.audio),
        )
        out.write(memoryview(header.to_json()))


def decode(request: DecodeRequest, out: Writer) -> None:
    """Write interleaved samples until the file ends.

    Raises:
        av.FFmpegError: decoding cannot continue.
    """
    written = passed = 0
    with _open_input(request) as container:
        try:
            for frame in _decode_in_graph(container.streams.audio[0].codec_context.layout, request):
                written += out.write(memoryview(frame.planes[0])[: frame.samples * request.frame_bytes])
        except av.PatchWelcomeError:
            for frame in _decode_by_packets(container, request):
                size = frame.samples * request.frame_bytes
                out.write(memoryview(frame.planes[0])[min(size, max(0, written - passed)) : size])
                passed += size


def preload_codecs() -> None:
    """Open the common codecs once, so that forks inherit the tables that codecs compute on first use."""
    for name in COMMON_CODECS:
        with suppress(av.FFmpegError):  # some codecs open only with a header
            av.CodecContext.create(name, "r").open()


def _open_input(request: OpenRequest) -> av.container.InputContainer:
    # Titles and names in the file may have any encoding; they are not used.
    return av.open(request.url, options=request.options, metadata_errors="replace")


def _describe_audio(streams: Sequence[av.AudioStream]) -> AudioStream | None:
    """Describe the first audio stream; None if there is none, or none that can be decoded."""
    context = streams[0].codec_context if streams else None
    # FFmpeg leaves these empty for a stream with a damaged header.
    if context is None or context.format is None or not context.sample_rate or not context.layout.nb_channels:
        return None
    return AudioStream(
        codec=context.codec.canonical_name,
        sample_rate_hz=context.sample_rate,
        channels=context.layout.nb_channels,
        sample_format=context.format.name,
    )


def _decode_in_graph(layout: av.AudioLayout, request: DecodeRequest) -> Frames:
    """Decode with a graph that reads the file itself.

    Raises:
        av.PatchWelcomeError: the format of the stream changes.
    """
    graph = _new_graph()
    options = ":".join(f"{name}={value}" for name, value in request.options.items())
    source = graph.add("amovie", filename=request.url, format_opts=options, streams="a:0", dec_threads="1")
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


def _decode_by_packets(container: av.container.InputContainer, request: DecodeRequest) -> Frames:
    """Decode a stream whose format may change in the middle to frames of the requested format."""
    graph, graph_format, layout = None, None, ""
    for frame in _decode_packets(container):
        layout = layout or _layout_name(frame.layout, request.channels)
        frame_format = (frame.format.name, frame.layout.name, frame.sample_rate)
        if graph is None or frame_format != graph_format:
            if graph is not None:
                graph.push(None)
                yield from _pull_frames(graph)
            graph, graph_format, pushed = _new_buffer_graph(frame, layout, request), frame_format, 0
        graph.push(frame)
        pushed += frame.samples
        if pushed >= CHUNK_SAMPLES:
            pushed = 0
            yield from _pull_frames(graph)
    if graph is not None:
        graph.push(None)
        yield from _pull_frames(graph)


def _decode_packets(container: av.container.InputContainer) -> Frames:
    """Yield the frames of the first audio stream that can be decoded."""
    stream = container.streams.audio[0]
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


def _pull_frames(graph: av.filter.Graph) -> Frames:
    """Yield the frames that the graph has ready."""
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        assert isinstance(frame, av.AudioFrame)
        yield frame


def _layout_name(layout: av.AudioLayout, channels: int) -> str:
    """Return the name of a layout if it has this many channels, else FFmpeg's name for any `channels` channels."""
    return str(layout.name) if layout.nb_channels == channels else f"{channels}c"
