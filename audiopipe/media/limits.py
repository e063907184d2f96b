"""Refuse media beyond the limits of a run: rates, channels, streams, and more or less audio than declared."""

from __future__ import annotations

from audiopipe.config import RunConfig
from audiopipe.errors import TooLong, TruncatedMedia, UndecodableMedia
from audiopipe.media.appended import find_appended
from audiopipe.media.fetch import Source
from audiopipe.media.messages import AudioStream, Header
from audiopipe.types import Media, Seconds

__all__ = ["MAX_STREAMS", "refuse_overlong", "refuse_truncated", "refuse_unusual"]

MIN_SAMPLE_RATE_HZ, MAX_SAMPLE_RATE_HZ = 8_000, 192_000
MAX_STREAMS = 100  # audio, pictures and subtitles; films have up to 60


def refuse_unusual(source: Source, header: Header, audio: AudioStream, config: RunConfig) -> None:
    """Raise if a file has too many streams or channels, a sample rate that no speech has, or another file after it.

    Raises:
        UndecodableMedia: it does.
    """
    name = source.video.uri
    position = find_appended(header.container.split(",")[0], source.path, source.offset, source.size)
    if position is not None:
        raise UndecodableMedia(f"{name} has another file appended at byte {position}, which would be lost; split them")
    if header.streams > MAX_STREAMS:
        raise UndecodableMedia(f"{name} has {header.streams} streams, more than {MAX_STREAMS}; remux its audio alone")
    if audio.channels > config.max_channels:
        raise UndecodableMedia(f"{name} has {audio.channels} channels, more than max_channels ({config.max_channels})")
    if not MIN_SAMPLE_RATE_HZ <= audio.sample_rate_hz <= MAX_SAMPLE_RATE_HZ:
        raise UndecodableMedia(
            f"{name} has a sample rate of {audio.sample_rate_hz} Hz, outside of "
            f"{MIN_SAMPLE_RATE_HZ} to {MAX_SAMPLE_RATE_HZ} Hz"
        )


def refuse_overlong(source: Source, declared_s: Seconds | None, decoded_s: Seconds, config: RunConfig) -> None:
    """Raise if there is more audio than `max_video_s`, or than declared and `max_undeclared_s`.

    Raises:
        TooLong: there is.
    """
    name = source.video.uri
    if decoded_s > config.max_video_s:
        raise TooLong(f"{name} is longer than max_video_s ({config.max_video_s:.0f})")
    if declared_s is not None and decoded_s > declared_s + config.max_undeclared_s:
        raise TooLong(
            f"{name} declares {declared_s:.0f} s and is longer than that by more than max_undeclared_s "
            f"({config.max_undeclared_s:.0f})"
        )


def refuse_truncated(source: Source, media: Media, decoded_s: float, config: RunConfig) -> None:
    """Raise if there is no audio, or if it ends well before its declared duration, which containers round a little."""
    if decoded_s == 0:
        raise UndecodableMedia(f"{source.video.uri}: not one sample of its {media.codec} could be decoded")
    declared = media.declared_s or 0.0
    if config.truncated == "reject" and decoded_s < declared - max(1.0, 0.02 * declared):
        raise TruncatedMedia(
            f"{source.video.uri} ends after {decoded_s:.1f} of {declared:.1f} s; truncated='keep' uses what there is"
        )
