"""Define the messages between a worker and its decoder processes: requests, and their results as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

__all__ = ["AudioStream", "ChannelCounts", "DecodeReport", "DecodeRequest", "Header", "HeaderRequest", "OpenRequest"]


@dataclass(frozen=True)
class OpenRequest:
    """The file to open, with FFmpeg's options for opening it."""

    url: str
    options: dict[str, str]


@dataclass(frozen=True)
class HeaderRequest(OpenRequest):
    """The file whose header is read, and the language of its video, by which an audio stream is chosen.

    `links` are the URLs of the parts of a chained file that follow the first.
    """

    language: str
    links: Sequence[str] = ()


@dataclass(frozen=True)
class DecodeRequest(OpenRequest):
    """The file to decode, and the PCM to decode it to: `sample_format` is s16 or flt.

    `track` is the position of the audio stream among those of the file.
    `links` are the URLs of the parts of a chained file that follow the first; each has its own clock.
    `counts_channels` requests `DecodeReport.channels`.
    """

    sample_rate_hz: int
    channels: int
    sample_format: str
    links: Sequence[str] = ()
    track: int = 0
    counts_channels: bool = False

    @property
    def frame_bytes(self) -> int:
        """Size of one sample of all channels."""
        return self.channels * (2 if self.sample_format == "s16" else 4)


@dataclass
class ChannelCounts:
    """The blocks of a file: how many have sound, and in how many of them the mean or a channel has almost none.

    `quiet` and `energies`, the sums of the blocks' powers, have an entry for each channel.
    """

    sounding: int
    canceling: int
    quiet: list[int]
    energies: list[float]


@dataclass(frozen=True)
class DecodeReport:
    """The result of decoding: `gap_s` is the duration of the silence that was inserted.

    `missing` describes the first link of a chained file that ended early.
    `channels` counts the blocks of a file of several channels, if that was requested.
    """

    gap_s: float
    missing: str | None = None
    channels: ChannelCounts | None = None

    @classmethod
    def from_json(cls, data: str) -> DecodeReport:
        """Parse what `to_json` returns."""
        fields = json.loads(data)
        channels = fields.pop("channels")
        return cls(**fields, channels=None if channels is None else ChannelCounts(**channels))

    def to_json(self) -> str:
        """Serialize for the worker process."""
        return json.dumps(asdict(self))


@dataclass(frozen=True)
class AudioStream:
    """The properties of an audio stream that are known before it is decoded.

    `end_s` is the declared end on the file's clock, None if the file does not say it; `track`, `label` and `note` are
    those of `tracks.AudioTrack`.
    The earliest timestamp of the file is `start_s`.
    """

    codec: str
    sample_rate_hz: int
    channels: int
    sample_format: str
    end_s: float | None = None
    track: int = 0
    label: str = ""
    note: str | None = None
    start_s: float = 0.0


@dataclass(frozen=True)
class Header:
    """The properties of a file with its number of streams, and of the chosen audio stream if there is one to decode.

    `problem` says why there is none, if its tracks do not decode; `streams` counts the streams of all kinds.
    """

    container: str
    duration_s: float | None
    audio: AudioStream | None
    problem: str | None = None
    streams: int = 1

    @classmethod
    def from_json(cls, data: bytes) -> Header:
        """Parse what `to_json` returns."""
        fields = json.loads(data)
        audio = fields.pop("audio")
        return cls(**fields, audio=None if audio is None else AudioStream(**audio))

    def to_json(self) -> bytes:
        """Serialize for the worker process."""
        return json.dumps(asdict(self)).encode()
