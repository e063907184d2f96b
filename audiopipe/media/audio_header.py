"""Describe the audio stream of a file that is to be decoded: the one of the video's language that decodes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import av
import av.container

from audiopipe.media.declared import declared_end
from audiopipe.media.messages import AudioStream
from audiopipe.media.tracks import TrackError, choose_track

__all__ = ["describe_audio"]

MAX_PACKETS = 200  # of a stream, in which one must decode; a few seconds


def describe_audio(
    container: av.container.InputContainer, open_copy: Callable[[], av.container.InputContainer], language: str
) -> tuple[AudioStream | None, str | None]:
    """Describe the audio stream for a language, and say why there is none if its tracks do not decode.

    Args:
        open_copy: function that opens the file once more, to decode the start of a stream.
    """

    def decodes(stream: av.AudioStream) -> bool:
        with open_copy() as copy:
            return _starts_with_sound(copy, list(container.streams.audio).index(stream))

    try:
        track = choose_track(container.streams.audio, language, decodes)
    except TrackError as error:
        return None, str(error)
    if track is None:
        return None, None
    context = track.stream.codec_context
    audio = AudioStream(
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
    return audio, None


def _starts_with_sound(container: av.container.InputContainer, index: int) -> bool:
    """Return whether one of the first packets of an audio stream decodes."""
    stream = container.streams.audio[index]
    with suppress(av.FFmpegError):
        for number, packet in enumerate(container.demux(stream)):
            with suppress(av.FFmpegError):
                if any(True for _ in packet.decode()):
                    return True
            if number > MAX_PACKETS:
                break
    return False
