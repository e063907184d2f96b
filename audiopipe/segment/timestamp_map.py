"""Move captions of HTTP Live Streaming to the clock of their media, as `X-TIMESTAMP-MAP` says (RFC 8216, section 3.5).

The map gives the timestamp in the MPEG transport stream of a local time of the captions. The file's clock starts at the
first timestamp of the stream, so what counts is the difference. Players (hls.js, Shaka) compute it in the same way.

Downloaders usually remux the stream to a file that starts at 0, and the start of the stream is lost. yt-dlp leaves the
first map in its WebVTT and refers the later ones to it. So in such files the first map is taken as the start of the
stream if it is one of the usual starts, or if it would move the captions past the end of the audio. Otherwise the
stream is taken to have started at 0, as the file does. A note in the video's row says how far its captions were moved.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from audiopipe.segment.transcript import parse_timestamp
from audiopipe.types import Seconds

__all__ = ["FILE_CLOCK", "MediaClock", "first_map", "map_offset", "place_on_clock"]

MPEGTS_HZ = 90_000
PERIOD_S = (1 << 33) / MPEGTS_HZ  # timestamps of MPEG return to 0
# 10 s: Apple's segmenters, and most examples and packagers since. 1.4 s: FFmpeg's transport streams.
USUAL_STARTS_S = (10.0, 1.4)
END_TOLERANCE_S = 0.5
MAP_LINE = re.compile(r"^X-TIMESTAMP-MAP=(.{0,200})$", re.MULTILINE)

T = TypeVar("T")


@dataclass(frozen=True)
class MediaClock:
    """The clock of a media file.

    Args:
        start_s: the first timestamp of a transport stream; None for a file that starts at 0.
        end_s: the end of the audio; None if it is unknown.
    """

    start_s: Seconds | None = None
    end_s: Seconds | None = None


FILE_CLOCK = MediaClock()


def first_map(text: str) -> Seconds | None:
    """Return the difference between the stream's time and the captions' time in the first map; None without a map."""
    match = MAP_LINE.search(text)
    return _parse(match[1]) if match else None


def map_offset(line: str, origin_s: Seconds) -> Seconds:
    """Return the seconds to add to the times of the cues after a line; 0 without a readable map, as the RFC asks.

    Args:
        origin_s: the timestamp of the stream at which the file's clock is 0.
    """
    match = MAP_LINE.match(line)
    difference = _parse(match[1]) if match else None
    if difference is None:
        return 0.0
    offset = difference - origin_s
    return offset + PERIOD_S if offset < -PERIOD_S / 2 else offset


def place_on_clock(
    text: str, clock: MediaClock, parse: Callable[[Seconds], T], last_end: Callable[[T], Seconds]
) -> tuple[T, Seconds]:
    """Parse captions with the origin that fits their media.

    Args:
        parse: function that parses the captions with a given origin.
        last_end: function that returns the end of the last cue.

    Returns:
        The captions, and by how many seconds the first map moves them.
    """
    first = first_map(text)
    if first is None:
        return parse(0.0), 0.0
    if clock.start_s is not None:
        return parse(clock.start_s), first - clock.start_s
    if any(math.isclose(first, start, abs_tol=1e-3) for start in USUAL_STARTS_S):
        return parse(first), 0.0
    cues = parse(0.0)
    if first > 0 and clock.end_s is not None and last_end(cues) > clock.end_s + END_TOLERANCE_S:
        return parse(first), 0.0
    return cues, first


def _parse(value: str) -> Seconds | None:
    fields = dict(item.strip().split(":", 1) for item in value.split(",") if ":" in item)
    ticks, local_s = fields.get("MPEGTS", "").strip(), parse_timestamp(fields.get("LOCAL", "").strip())
    if not (ticks.isascii() and ticks.isdigit() and len(ticks) <= 12) or math.isnan(local_s):
        return None
    return int(ticks) / MPEGTS_HZ % PERIOD_S - local_s
