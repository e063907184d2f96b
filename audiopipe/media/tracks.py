"""Choose among the audio streams of a file: by language, then the default flag, then the first that decodes.

Commentaries and described video are chosen only if there is nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import av
from av.stream import Disposition

from audiopipe.languages import is_language, rank_distance, same_language

__all__ = ["AudioTrack", "TrackError", "choose_track"]

SECONDARY_FLAGS = (
    Disposition.comment
    | Disposition.visual_impaired
    | Disposition.hearing_impaired
    | Disposition.descriptions
    | Disposition.karaoke
)
SECONDARY_TITLE = re.compile(
    r"commentar|komment[ae]r|described|descriptive|audio.?des[ck]ri|h[öo]rfilm|visually impaired|hearing impaired", re.I
)


class TrackError(Exception):
    """The audio streams that may be used do not decode."""


@dataclass(frozen=True)
class AudioTrack:
    """An audio stream that was chosen.

    Attributes:
        index: its position among the audio streams of the file, from 0.
        label: its position and language, for people: '2 of 3 (eng)'.
        note: why it is not in the language of the video, if that is so.
    """

    stream: av.AudioStream
    index: int
    label: str
    note: str | None = None


def choose_track(
    streams: Sequence[av.AudioStream], language: str, decodes: Callable[[av.AudioStream], bool] | None = None
) -> AudioTrack | None:
    """Choose an audio stream; None if the headers of all are damaged.

    A stream that does not decode is replaced by the next one of the same rank: in the language of the video, or, if
    none is, in any; never by a commentary.

    Args:
        language: that of the video in the catalog; 'und' if it is unknown.
        decodes: function that decodes the start of a stream, and returns whether it has samples; it is called only if
            there is a choice.

    Raises:
        TrackError: no stream of the best rank decodes, but there are others.
    """
    usable = [(index, stream) for index, stream in enumerate(streams) if _can_decode(stream)]
    candidates = [item for item in usable if not _is_secondary(item[1])] or usable
    if not candidates:
        return None
    matching = [item for item in candidates if same_language(language, _tag(item[1]))]
    ranked = sorted(
        matching or candidates,
        key=lambda item: (rank_distance(language, _tag(item[1])) if matching else 0, not _is_default(item[1])),
    )
    is_sound = decodes if decodes is not None and len(usable) > 1 else lambda _: True
    chosen = next((item for item in ranked if is_sound(item[1])), None)
    if chosen is None:
        raise TrackError(_explain(streams, ranked, usable))
    index, stream = chosen
    label = _label(index, streams)
    tags = list(dict.fromkeys(_tag(candidate) for _, candidate in candidates if is_language(_tag(candidate))))
    notes = []
    if chosen != ranked[0]:
        notes.append(f"audio: track {_label(ranked[0][0], streams)} does not decode; track {label} is used")
    if tags and not matching and is_language(language):
        notes.append(f"audio: no track in {language!r} among {', '.join(tags)}; track {label} is used")
    return AudioTrack(stream, index, label, "; ".join(notes) or None)


def _label(index: int, streams: Sequence[av.AudioStream]) -> str:
    tag = _tag(streams[index])
    return f"{index + 1} of {len(streams)}" + (f" ({tag})" if tag else "")


def _explain(
    streams: Sequence[av.AudioStream],
    ranked: Sequence[tuple[int, av.AudioStream]],
    usable: Sequence[tuple[int, av.AudioStream]],
) -> str:
    """Name the tracks that do not decode, and the others."""
    damaged = ", ".join(_label(index, streams) for index, _ in ranked)
    others = ", ".join(_label(item[0], streams) for item in usable if item not in ranked)
    return f"audio track {damaged} does not decode; the others are not of its language or kind: {others or 'none'}"


def _can_decode(stream: av.AudioStream) -> bool:
    """Check whether the header has what a decoder needs: FFmpeg leaves it empty if the header is damaged."""
    context = stream.codec_context
    if context is None or context.format is None:
        return False
    return bool(context.sample_rate and context.layout.nb_channels)


def _tag(stream: av.AudioStream) -> str:
    """Return the language of a stream as the file has it; empty if there is none."""
    tag = stream.metadata.get("language", "").strip()[:35]
    return "" if tag == "und" else tag


def _is_default(stream: av.AudioStream) -> bool:
    return bool(stream.disposition & Disposition.default)


def _is_secondary(stream: av.AudioStream) -> bool:
    titles = " ".join(stream.metadata.get(name, "") for name in ("title", "handler_name", "name"))
    return bool(stream.disposition & SECONDARY_FLAGS or SECONDARY_TITLE.search(titles))
