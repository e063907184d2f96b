"""Build the filter graphs of FFmpeg that collect frames, mix their channels and convert their format."""

from __future__ import annotations

from itertools import pairwise

import av
import av.filter
from av.filter.context import FilterContext

from audiopipe.media.messages import DecodeRequest
from audiopipe.media.timeline import PcmOutput

__all__ = [
    "CHUNK_SAMPLES",
    "add_tap",
    "build_graph",
    "layout_name",
    "new_buffer_graph",
    "new_graph",
    "next_tapped",
    "write_ready",
]

# Frames of 20 ms are collected to two thirds of a second before anything is done with them.
CHUNK_SAMPLES = 32768
TAPPED_FIRST, TAPPED_STEP = 16, 4


def new_graph() -> av.filter.Graph:
    graph = av.filter.Graph()
    graph.threads = 1
    return graph


def new_buffer_graph(frame: av.AudioFrame, layout: str, request: DecodeRequest) -> av.filter.Graph:
    """Make a graph that frames of the same format as `frame` are pushed into."""
    graph = new_graph()
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate, format=frame.format.name, layout=frame.layout.name, time_base=frame.time_base
    )
    build_graph(graph, source, frame.layout.nb_channels, layout, request)
    return graph


def build_graph(
    graph: av.filter.Graph,
    source: FilterContext,
    source_channels: int,
    layout: str,
    request: DecodeRequest,
    is_collected: bool = False,
) -> FilterContext:
    """Connect a source to filters that collect, mix and convert, configure the graph and return its sink.

    If the source has more or fewer channels than requested, each output channel is the mean of all source channels:
    for a mean, and where a stream changes its layout in the middle.

    Args:
        is_collected: the source's frames are chunks already.
    """
    steps = [source] if is_collected else [source, graph.add("asetnsamples", f"n={CHUNK_SAMPLES}:p=0")]
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
    return steps[-1]


def add_tap(graph: av.filter.Graph, source: FilterContext) -> tuple[FilterContext, FilterContext]:
    """Split a source: return the one that goes on, and a sink of the chunks that are measured as they are.

    These are the first ones and every fourth one after them. Chunks are collected before the split.
    """
    collect, split = graph.add("asetnsamples", f"n={CHUNK_SAMPLES}:p=0"), graph.add("asplit", "2")
    select, sink = graph.add("aselect", f"lt(n\\,{TAPPED_FIRST})+not(mod(n\\,{TAPPED_STEP}))"), graph.add("abuffersink")
    source.link_to(collect)
    collect.link_to(split)
    split.link_to(select, 1, 0)
    select.link_to(sink)
    return split, sink


def next_tapped(chunk: int) -> int:
    """Return the number of the first chunk after a given one that is measured."""
    return chunk + 1 if chunk + 1 < TAPPED_FIRST else (chunk // TAPPED_STEP + 1) * TAPPED_STEP


def write_ready(graph: av.filter.Graph, output: PcmOutput) -> None:
    """Write the frames that the graph has ready."""
    while True:
        try:
            frame = graph.pull()
        except (av.BlockingIOError, av.EOFError):
            return
        assert isinstance(frame, av.AudioFrame)
        output.write(frame)


def layout_name(layout: av.AudioLayout, channels: int) -> str:
    """Return the name of a layout if it has this many channels, else FFmpeg's name for any `channels` channels."""
    return str(layout.name) if layout.nb_channels == channels else f"{channels}c"
