"""Place decoded samples on the clock of their file.

The position of a sample is its timestamp minus the start of the file, which is the earliest start of its streams. Gaps
between timestamps become silence, overlaps are trimmed. Deviations under 20 ms are rounding and jitter of the
container, and are left alone.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import av
import av.container

from audiopipe.media.ring import Writer

__all__ = [
    "JITTER_S",
    "Clock",
    "PcmOutput",
    "StreamError",
    "StreamStarts",
    "TimestampError",
    "find_starts",
    "frame_time",
    "is_cover_image",
]

JITTER_S = 0.02
START_SEARCH_S = 2.0  # other streams that start before the audio have packets before that, as files are interleaved
RESTART_S = 1.0  # timestamps that jump back to the start by more than this are a second file, appended to the first
MAX_OVERLAP_S = 30.0
SILENCE_BYTES = 1 << 16


class StreamError(Exception):
    """A file cannot be decoded for a reason that the message gives."""


class TimestampError(StreamError):
    """The timestamps of a stream do not define one clock."""


def frame_time(frame: av.AudioFrame) -> float | None:
    """Return the timestamp of a frame in seconds, None if it has none."""
    if frame.pts is None or frame.time_base is None:
        return None
    return float(frame.pts * frame.time_base)


@dataclass(frozen=True)
class StreamStarts:
    """The timestamps of the first packets of a file in seconds: of the audio, of other audio, of other streams.

    `delay_s` is the encoder's delay, which is cut from the first packet.
    """

    delay_s: float = 0.0
    stream_s: float | None = None
    other_audio_s: float | None = None
    other_s: float | None = None

    def file_start(self, first_s: float) -> float:
        """Return the earliest start of the streams.

        An encoder's delay moves the first packet, but not the first sample. So audio streams are compared by packets.

        Args:
            first_s: timestamp of the first decoded sample.
        """
        starts = [first_s, *([] if self.other_s is None else [self.other_s])]
        if self.stream_s is not None and self.other_audio_s is not None:
            starts.append(first_s + self.other_audio_s - self.stream_s)
        return min(starts)


def find_starts(container: av.container.InputContainer, stream: av.AudioStream) -> StreamStarts:
    """Read packets from the start of a file until two seconds of `stream` have passed.

    FFmpeg's own start of a stream is wrong for H.264 in Matroska: it ignores packets without a decoding time.
    """
    others = [other for other in container.streams if other.index != stream.index and not is_cover_image(other)]
    if not others:
        return StreamStarts()
    starts: dict[int, float] = {}
    stream_s = None
    with suppress(av.FFmpegError):
        for packet in container.demux([stream, *others]):
            if packet.pts is None or packet.time_base is None:
                continue
            time_s = float(packet.pts * packet.time_base)
            index = packet.stream.index
            starts[index] = min(time_s, starts.get(index, time_s))
            stream_s = starts.get(stream.index)
            if stream_s is not None and time_s > stream_s + START_SEARCH_S:
                break
    audio = [starts[other.index] for other in others if other.index in starts and other.type == "audio"]
    rest = [starts[other.index] for other in others if other.index in starts and other.type != "audio"]
    delay_s = stream.codec_context.delay / (stream.codec_context.sample_rate or 1)
    return StreamStarts(delay_s, stream_s, min(audio, default=None), min(rest, default=None))


def is_cover_image(stream: av.stream.Stream) -> bool:
    """Check whether a stream is a cover image, which has no time."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


@dataclass
class Clock:
    """The position of the next sample on the clock of the file.

    Attributes:
        starts: give the start of the file.
        tick_s: the unit of the timestamps.
        has_timestamps: the container stores timestamps; FFmpeg computes them for other containers.
        trusted_s: position up to which deviations are ignored.
    """

    starts: StreamStarts
    tick_s: float
    has_timestamps: bool = True
    trusted_s: float = 0.0
    position_s: float = 0.0
    first_s: float | None = None
    start_s: float = 0.0

    def deviation(self, time_s: float | None) -> float:
        """Return by how many seconds a timestamp is after the position; 0 for jitter and where there is none.

        The first timestamp defines the start.
        """
        if time_s is None or not self.has_timestamps:
            return 0.0
        if self.first_s is None:
            if (
                self.starts.stream_s is not None
                and abs(self.starts.stream_s + self.starts.delay_s - time_s) <= self.tick_s
            ):
                time_s = (
                    self.starts.stream_s + self.starts.delay_s
                )  # FFmpeg rounds the sum to the unit of the timestamps
            self.first_s = time_s
            self.start_s = self.starts.file_start(time_s)
            if time_s - self.start_s > self.tick_s + 1e-6:
                return time_s - self.start_s - self.position_s
            self.start_s = time_s - self.position_s
        difference = time_s - self.start_s - self.position_s
        is_jitter = abs(difference) < JITTER_S - min(self.tick_s, 1e-3) or self.position_s < self.trusted_s
        return 0.0 if is_jitter else difference

    def move(self, time_s: float | None) -> float:
        """Move the position to a timestamp, and return by how many seconds.

        Timestamps that return to the start continue the clock.

        Raises:
            TimestampError: the position would move back by more than 30 s.
        """
        difference = self.deviation(time_s)
        if difference < 0:
            assert time_s is not None
            assert self.first_s is not None
            if difference < -RESTART_S and time_s < self.first_s + RESTART_S:
                self.start_s += difference
                return 0.0
            if difference < -MAX_OVERLAP_S:
                raise TimestampError(
                    f"timestamps jump back by {-difference:.1f} s at {self.position_s:.1f} s; "
                    "remux the file with continuous timestamps"
                )
        self.position_s += difference
        return difference


@dataclass
class PcmOutput:
    """Writes samples to the ring, silence for gaps, and nothing for samples that are to be skipped.

    Attributes:
        frame_bytes: size of one sample of all channels.
        written: number of samples written, silence included.
        silence: number of samples of silence written.
        skip: number of samples to be skipped before the next one is written.
    """

    ring: Writer
    frame_bytes: int
    written: int = 0
    silence: int = 0
    skip: int = 0

    def write(self, frame: av.AudioFrame) -> None:
        """Write a frame in the output's format."""
        skipped = self._skip(frame.samples)
        if skipped < frame.samples:
            self.ring.write(memoryview(frame.planes[0])[skipped * self.frame_bytes : frame.samples * self.frame_bytes])
        self.written += frame.samples - skipped

    def write_silence(self, samples: int) -> None:
        """Write zeros."""
        samples -= self._skip(samples)
        self.written += samples
        self.silence += samples
        remaining, zeros = samples * self.frame_bytes, memoryview(bytes(SILENCE_BYTES))
        while remaining > 0:
            remaining -= self.ring.write(zeros[: min(remaining, SILENCE_BYTES)])

    def _skip(self, samples: int) -> int:
        skipped = min(self.skip, samples)
        self.skip -= skipped
        return skipped
