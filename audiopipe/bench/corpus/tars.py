"""What lies beside the audio, and the tar around both. The same members always give the same bytes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence

from audiopipe.bench.corpus.mix import Span

__all__ = ["Member", "captions", "metadata", "pack"]

Member = tuple[str, bytes]


def pack(members: Sequence[Member]) -> bytes:
    """A plain tar of `members` in their order, owned by nobody, from 1970."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def metadata(video_id: str, language: str, duration_s: float, spans: Sequence[Span] | None, speaker: str) -> bytes:
    """The JSON beside the audio; without spans, it is the kind that a downloader writes, which has no segments."""
    title = f"Demo {language} {video_id}"
    head: dict[str, object] = {"id": video_id, "title": title, "language": language, "duration": duration_s}
    if spans is not None:
        segments = [dict(zip(("start", "end", "text"), span, strict=True)) for span in spans]
        head["segments"] = [{**segment, "speaker": speaker} for segment in segments]
    return json.dumps(head, indent=1, ensure_ascii=False).encode()


def captions(kind: str, language: str, spans: Sequence[Span]) -> bytes:
    """`vtt` as YouTube writes it (a head, cue settings), `srt` as Windows does (numbers, CRLF, a comma in times)."""
    if kind == "vtt":
        cues = [f"{_clock(start)} --> {_clock(end)} align:start position:0%\n{text}\n" for start, end, text in spans]
        return "\n".join([f"WEBVTT\nKind: captions\nLanguage: {language}\n", *cues]).encode()
    cues = [
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{text}\n"
        for number, (start, end, text) in enumerate(spans, 1)
    ]
    return "\n".join(cues).replace("\n", "\r\n").encode()


def _clock(seconds: float, point: str = ".") -> str:
    whole, millis = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{point}{millis:03d}"
