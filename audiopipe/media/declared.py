"""Find where the audio stream of a file ends according to the file itself, on the file's clock.

The duration of a container is that of its longest stream: a picture or subtitles may outlast the audio.
"""

from __future__ import annotations

import re
from contextlib import suppress

import av
import av.container

from audiopipe.media.timeline import find_starts, is_cover_image

__all__ = ["declared_end"]

MATROSKA_DURATION = re.compile(r"(\d{1,6}):(\d\d):(\d\d(?:\.\d{1,9})?)")


def declared_end(container: av.container.InputContainer, stream: av.AudioStream) -> float | None:
    """Return the declared end of an audio stream on the file's clock in seconds, None if it is unknown.

    In this order: the stream's own duration; its Matroska tag; the container's duration, if the stream is the only one;
    the stream's last packet, if some stream lasts as long as the container declares.
    """
    starts = find_starts(container, stream)
    start_s = float((stream.start_time or 0) * (stream.time_base or 0)) if starts.stream_s is None else starts.stream_s
    file_start_s = starts.file_start(start_s)
    # FFmpeg copies the duration of a Matroska file to streams that start late.
    if stream.duration is not None and stream.time_base is not None and "matroska" not in container.format.name:
        duration = stream.duration
        if container.format.name == "ogg" and stream.codec_context.codec.canonical_name == "opus":
            duration -= max(stream.start_time or 0, 0)  # recordings of a stream start at any position
        return start_s - file_start_s + float(duration * stream.time_base)
    if container.duration is None:
        return None
    container_s = container.duration / av.time_base
    tag = MATROSKA_DURATION.fullmatch(stream.metadata.get("DURATION", ""))
    if tag is not None:
        hours, minutes, seconds = tag.groups()
        return min(int(hours) * 3600 + int(minutes) * 60 + float(seconds) - max(file_start_s, 0.0), container_s)
    if sum(not is_cover_image(other) for other in container.streams) == 1:
        return container_s
    audio_end_s, file_end_s = _find_last_packets(container, stream, container_s)
    is_whole = file_end_s - file_start_s >= container_s - max(1.0, 0.02 * container_s)
    return audio_end_s - file_start_s if is_whole else container_s


def _find_last_packets(
    container: av.container.InputContainer, stream: av.AudioStream, container_s: float
) -> tuple[float, float]:
    """Return the timestamps at which the last packet of a stream and the last packet of any stream end.

    The last 30 s are searched first, then the whole file, as the audio may end earlier.
    """
    audio_end_s = file_end_s = 0.0
    for start_s in (max(0.0, container_s - 30.0), 0.0):
        with suppress(av.FFmpegError):
            container.seek(round(start_s * av.time_base))
            for packet in container.demux():
                if packet.pts is None or packet.time_base is None:
                    continue
                end_s = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                file_end_s = max(file_end_s, end_s)
                if packet.stream.index == stream.index:
                    audio_end_s = max(audio_end_s, end_s)
        if audio_end_s:
            break
    return audio_end_s, file_end_s
