"""Write the sidecars of the audio, and the tar around both. The same members always give the same bytes."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence

from audiopipe.bench.corpus.mix import Span

__all__ = ["Member", "format_captions", "format_metadata", "pack_tar"]

Member = tuple[str, bytes]


def pack_tar(members: Sequence[Member]) -> bytes:
    """Pack members in their order into a plain tar without owner and with timestamps of 1970."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def format_metadata(
    video_id: str, language: str, duration_s: float, spans: Sequence[Span] | None, speaker: str
) -> bytes:
    """Write the JSON sidecar; without spans, it is like a downloader's, which has no segments."""
    title = f"Demo {language} {video_id}"
    head: dict[str, object] = {"id": video_id, "title": title, "language": language, "duration": duration_s}
    if spans is not None:
        segments = [dict(zip(("start", "end", "text"), span, strict=True)) for span in spans]
        head["segments"] = [{**segment, "speaker": speaker} for segment in segments]
    return json.dumps(head, indent=1, ensure_ascii=False).encode()


def format_captions(kind: str, language: str, spans: Sequence[Span]) -> bytes:
    """Write captions: `vtt` like YouTube (head, cue settings), `srt` like Windows (numbers, CRLF, a comma in times)."""
    if kind == "vtt":
        cues = [
            f"{_format_time(start)} --> {_format_time(end)} align:start position:0%\n{text}\n"
            for start, end, text in spans
        ]
        return "\n".join([f"WEBVTT\nKind: captions\nLanguage: {language}\n", *cues]).encode()
    cues = [
        f"{number}\n{_format_time(start, ',')} --> {_format_time(end, ',')}\n{text}\n"
        for number, (start, end, text) in enumerate(spans, 1)
    ]
    return "\n".join(cues).replace("\n", "\r\n").encode()


def _format_time(seconds: float, point: str = ".") -> str:
    total_s, millis = divmod(round(seconds * 1000), 1000)
    return f"{total_s // 3600:02d}:{total_s // 60 % 60:02d}:{total_s % 60:02d}{point}{millis:03d}"
