"""The decoder, a program of its own: one file's first audio stream to PCM on the standard output.

    python -P decoder.py '{"url": ..., "options": {}, "sample_rate_hz": 48000, "channels": 1, "form": "flt"}'

FFmpeg's libraries in one thread. The `ffmpeg` program has a thread each for reading, decoding, filtering and writing,
which hand each other frames of 20 ms; that costs AAC as much time again as decoding does, and Opus half as much.

What cannot be decoded is left out, and the rest goes on, as players do. Whoever reads the output counts its samples.
Where there is nothing to go on with, the program says why and ends with 1.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from itertools import pairwise
from typing import IO, Any

import av
import av.filter

# Frames of 20 ms are gathered to two thirds of a second before anything is done with them.
GATHERED = 32768

Key = tuple[str, str, int]


class Graph:
    """The filters for frames of one kind: gathers, mixes, converts.

    Where there are more or fewer channels than asked for, each that comes out is their mean: where one is asked for,
    and where a stream changes in its middle to another layout than the one it began with.
    """

    def __init__(self, frame: av.AudioFrame, layout: str, asked: dict[str, Any]) -> None:
        self._graph = av.filter.Graph()
        self._pushed = 0
        source = self._graph.add_abuffer(
            sample_rate=frame.sample_rate, format=frame.format.name, layout=frame.layout.name, time_base=frame.time_base
        )
        steps = [source, self._graph.add("asetnsamples", f"n={GATHERED}:p=0")]
        count, channels, form = frame.layout.nb_channels, asked["channels"], asked["form"]
        if count != channels:
            mean = "+".join(f"{1 / count:.9f}*c{index}" for index in range(count))
            each = "|".join(f"c{index}={mean}" for index in range(channels))
            steps += [self._graph.add("aformat", "sample_fmts=fltp"), self._graph.add("pan", f"{layout}|{each}")]
        if channels == 1:
            form = {"flt": "fltp"}.get(form, form)  # of one channel planes and interleaved samples are the same
        kind = f"sample_fmts={form}:sample_rates={asked['sample_rate_hz']}:channel_layouts={layout}"
        steps.append(self._graph.add("aformat", kind))
        steps.append(self._graph.add("abuffersink"))
        for one, following in pairwise(steps):
            one.link_to(following)
        self._graph.configure()

    def push(self, frame: av.AudioFrame) -> Iterator[av.AudioFrame]:
        self._graph.push(frame)
        self._pushed += frame.samples
        if self._pushed >= GATHERED:
            self._pushed = 0
            yield from self._ready()

    def finish(self) -> Iterator[av.AudioFrame]:
        self._graph.push(None)
        yield from self._ready()

    def _ready(self) -> Iterator[av.AudioFrame]:
        while True:
            try:
                frame = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            assert isinstance(frame, av.AudioFrame)
            yield frame


def decoded(container: Any) -> Iterator[av.AudioFrame]:
    """The frames of the first audio stream that can be had."""
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


def filtered(frames: Iterator[av.AudioFrame], asked: dict[str, Any]) -> Iterator[av.AudioFrame]:
    """Frames of the one kind that was asked for. A stream may change its kind in the middle."""
    graph, kind, layout = None, None, ""
    for frame in frames:
        layout = layout or _layout(frame, asked["channels"])
        found: Key = (frame.format.name, frame.layout.name, frame.sample_rate)
        if graph is None or found != kind:
            if graph is not None:
                yield from graph.finish()
            graph, kind = Graph(frame, layout, asked), found
        yield from graph.push(frame)
    if graph is not None:
        yield from graph.finish()


def _layout(first: av.AudioFrame, channels: int) -> str:
    return str(first.layout.name) if first.layout.nb_channels == channels else f"{channels}c"


def main(asked: dict[str, Any], out: IO[bytes]) -> None:
    """Write interleaved samples of `form` (s16 or flt) until the file ends."""
    width = asked["channels"] * (2 if asked["form"] == "s16" else 4)
    with av.open(asked["url"], options=asked["options"]) as container:
        for frame in filtered(decoded(container), asked):
            out.write(memoryview(frame.planes[0])[: frame.samples * width])


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGPIPE):  # a program of few words
        signal.signal(number, signal.SIG_DFL)
    try:
        with open(1, "wb", closefd=False) as out:
            main(json.loads(sys.argv[1]), out)
    except av.FFmpegError as error:
        sys.exit(error.strerror)
