"""Name the formats that are read and the formats that are not, and choose FFmpeg's main message about a file."""

from __future__ import annotations

import re

from audiopipe.media.fetch import Source

__all__ = ["DEMUXERS", "main_error", "name_format"]

DEMUXERS = "matroska,webm,mov,mp4,m4a,ogg,mp3,flac,wav,w64,aac,mpegts"
FORMAT_BYTES = 64
# Formats that downloaders leave under the suffix of another, by the first bytes of the file.
OTHER_FORMATS = {
    rb"FORM....AIF[FC]": "AIFF",
    rb"RIFF....AVI ": "AVI",
    rb"caff": "Core Audio (CAF)",
    rb"FLV": "Flash Video (FLV)",
    rb"\.snd": "Sun audio (AU)",
    rb"#!AMR": "AMR",
    rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11": "Windows Media (ASF)",
    rb"\s*#EXTM3U": "an HLS playlist",
    rb"\s*<MPD|\s*<\?xml": "XML, maybe a DASH manifest",
    rb"\s*<(!doctype )?html": "a web page",
}


def name_format(source: Source) -> str | None:
    """Describe a file of a known format that is not read; None for other files."""
    with source.path.open("rb") as file:
        file.seek(source.offset)
        head = file.read(min(source.size, FORMAT_BYTES))
    for pattern, name in OTHER_FORMATS.items():
        if re.match(pattern, head, re.DOTALL | re.IGNORECASE):
            return f"its content is {name}, which is not read; convert it to one of {DEMUXERS}"
    return None


def main_error(stderr: str) -> str:
    """Return FFmpeg's first message, without its addresses and the name of our file; or Python's exception."""
    lines = [re.sub(r"\[[^\[\]]* @ 0x[0-9a-f]+\] ?", "", line).strip() for line in stderr.splitlines() if line.strip()]
    messages = [line for line in lines if "subfile," not in line and "misdetection possible" not in line] or [
        "the decoder recognized nothing in it"
    ]
    return messages[-1 if messages[0].startswith("Traceback") else 0][:200]
