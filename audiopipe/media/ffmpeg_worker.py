"""A file's header, and its first audio stream as PCM: what a decoder's process does (`decoder_forks.py`).

FFmpeg's libraries in one thread. The `ffmpeg` program has a thread each for reading, decoding, filtering and writing,
which hand each other frames of 20 ms; and to go from packet to packet in Python costs AAC three quarters of what its
decoding does, and Opus two fifths. So the file is read, decoded and mixed within a filter graph (`amovie`), which
comes up with two thirds of a second at a time. It knows streams of one kind: one that changes its sample rate or layout
in the middle is decoded packet by packet instead.

What cannot be decoded is left out, and the rest goes on, as players do. Whoever reads the output counts its samples.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any, TypedDict

import av
import av.container
import av.filter
import av.logging

from audiopipe.media.ring import Writer

# Frames of 20 ms are gathered to two thirds of a second before anything is done with them.
GATHERED = 32768
COMMON_CODECS = ("aac", "opus", "mp3float", "vorbis", "flac")

Frames = Iterator[av.AudioFrame]


class OpenRequest(TypedDict):
    """What is to be read, with FFmpeg's options for opening it."""

    url: str
    options: dict[str, str]


class Header(TypedDict):
    """What a file says of itself, and of its first audio stream if there is one that can be decoded."""

    container: str
    duration_s: float | None
    audio: AudioStream | None


class AudioStream(TypedDict):
    """What is known of a stream before it is decoded."""

    codec: str
    sample_rate_hz: int
    channels: int
    sample_format: str


class DecodeRequest(OpenRequest):
    """What is to be decoded, and to what: `form` is s16 or flt."""

    sample_rate_hz: int
    channels: int
    form: str


def build_graph(
    graph: av.filter.Graph, source: Any, count: int, layout: str, request: DecodeRequest
) -> av.filter.Graph:
    """From a source of `count` channels: gathers, mixes, converts.

    Where there are more or fewer channels than asked for, each that comes out is their mean: where one is asked for,
    and where a stream changes in its middle to another layout than the one it began with.
    """
    steps = [source, graph.add("asetnsamples", f"n={GATHERED}:p=0")]
    channels, form = request["channels"], request["form"]
    if count != channels:
        mean = "+".join(f"{1 / count:.9f}*c{index}" for index in range(count))
        each = "|".join(f"c{index}={mean}" for index in range(channels))
        steps += [graph.add("aformat", "sample_fmts=fltp"), graph.add("pan", f"{layout}|{each}")]
    if channels == 1:
        form = {"flt": "fltp"}.get(form, form)  # of one channel planes and interleaved samples are the same
    kind = f"sample_fmts={form}:sample_rates={request['sample_rate_hz']}:channel_layouts={layout}"
    steps += [graph.add("aformat", kind), graph.add("abuffersink")]
    for one, following in pairwise(steps):
        one.link_to(following)
    graph.configure()
    return graph


def new_graph() -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    return graph


def layout_of(found: av.AudioLayout, channels: int) -> str:
    return str(found.name) if found.nb_channels == channels else f"{channels}c"


def at_once(kind: av.AudioLayout, request: DecodeRequest) -> Frames:
    """The stream by a graph that reads the file itself.

    Raises:
        av.PatchWelcomeError: what comes now is of another kind than what came before.
    """
    graph = new_graph()
    options = ":".join(f"{name}={value}" for name, value in request["options"].items())
    source = graph.add("amovie", filename=request["url"], format_opts=options, streams="a:0", dec_threads="1")
    build_graph(graph, source, kind.nb_channels, layout_of(kind, request["channels"]), request)
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        except av.PatchWelcomeError:
            raise
        except av.FFmpegError:  # a packet that could not be decoded; it is done with
            continue
        assert isinstance(frame, av.AudioFrame)
        yield frame


def decoded(container: Any) -> Frames:
    """The frames of the first audio stream that can be had, packet by packet."""
    stream = container.streams.audio[0]
    stream.codec_context.thread_count = 1
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.FFmpegError):  # a file that ends in the middle of a packet, or in rubbish
            return
        try:
            yield from packet.decode()
        except av.EOFError:
            return
        except av.FFmpegError:
            continue


def by_packets(container: Any, request: DecodeRequest) -> Frames:
    """Frames of the one kind that was asked for, from a stream that may change its kind in the middle."""
    graph, kind, layout = None, None, ""
    for frame in decoded(container):
        layout = layout or layout_of(frame.layout, request["channels"])
        found = (frame.format.name, frame.layout.name, frame.sample_rate)
        if graph is None or found != kind:
            if graph is not None:
                graph.push(None)
                yield from ready(graph)
            graph, kind, pushed = prepare_graph(frame, layout, request), found, 0
        graph.push(frame)
        pushed += frame.samples
        if pushed >= GATHERED:
            pushed = 0
            yield from ready(graph)
    if graph is not None:
        graph.push(None)
        yield from ready(graph)


def prepare_graph(frame: av.AudioFrame, layout: str, request: DecodeRequest) -> av.filter.Graph:
    """Filters for frames of this one's kind, which are pushed into it."""
    graph = new_graph()
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate, format=frame.format.name, layout=frame.layout.name, time_base=frame.time_base
    )
    return build_graph(graph, source, frame.layout.nb_channels, layout, request)


def ready(graph: av.filter.Graph) -> Frames:
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        assert isinstance(frame, av.AudioFrame)
        yield frame


def opened(file: OpenRequest) -> av.container.InputContainer:
    """The file; titles and names in it may be in any encoding, and are nothing to us."""
    return av.open(file["url"], options=file["options"], metadata_errors="replace")


def get_ready() -> None:
    """Make the tables that codecs make for themselves when they are first opened: forks have them."""
    for name in COMMON_CODECS:
        with suppress(av.FFmpegError):  # some are content with nothing but a header
            av.CodecContext.create(name, "r").open()


def read_header(file: OpenRequest, out: Writer) -> None:
    """Write the file's `Header`, as JSON. FFmpeg's warnings go to where this process complains.

    Raises:
        av.FFmpegError: it is no file that could be read.
    """
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.WARNING)
    with opened(file) as container:
        length = container.duration
        header = Header(
            container=container.format.name,
            duration_s=None if length is None else length / av.time_base,
            audio=_audio(container.streams.audio),
        )
        out.write(memoryview(json.dumps(header).encode()))


def _audio(streams: Sequence[Any]) -> AudioStream | None:
    context = streams[0].codec_context if streams else None
    if context is None or context.format is None or not context.sample_rate or not context.layout.nb_channels:
        return None
    return AudioStream(
        codec=context.codec.canonical_name,
        sample_rate_hz=context.sample_rate,
        channels=context.layout.nb_channels,
        sample_format=context.format.name,
    )


def decode(request: DecodeRequest, out: Writer) -> None:
    """Write interleaved samples until the file ends.

    Raises:
        av.FFmpegError: there is nothing to go on with.
    """
    width = request["channels"] * (2 if request["form"] == "s16" else 4)
    written = passed = 0
    with opened(request) as container:
        try:
            for frame in at_once(container.streams.audio[0].codec_context.layout, request):
                written += out.write(memoryview(frame.planes[0])[: frame.samples * width])
        except av.PatchWelcomeError:
            for frame in by_packets(container, request):
                size = frame.samples * width
                out.write(memoryview(frame.planes[0])[min(size, max(0, written - passed)) : size])
                passed += size
