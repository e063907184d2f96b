"""Containers and codecs of the demo, and one way to encode: samples into an ffmpeg, bytes out."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from audiopipe.bench.corpus.prompts import Samples
from audiopipe.extras import require_extra

__all__ = ["FORMATS", "REUPLOAD", "Format", "encode", "encode_picture", "ffmpeg"]

BITEXACT = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags", "+bitexact", "-threads", "1")
OPUS = ("-c:a", "libopus", "-b:a", "96k", "-compression_level", "5")
AAC = ("-c:a", "aac", "-b:a", "128k", "-aac_coder", "fast")


@dataclass(frozen=True)
class Format:
    """A container (which is the file's suffix), what is in it, and the ffmpeg options that make it so."""

    container: str
    codec: str
    sample_rate_hz: int
    channels: int
    options: tuple[str, ...]
    picture: bool = False


# In the order of importance: a corpus of six videos has the first six.
FORMATS = (
    Format("webm", "opus", 48_000, 2, OPUS),
    Format("m4a", "aac", 44_100, 2, (*AAC, "-movflags", "+faststart")),
    Format("mp3", "mp3", 44_100, 2, ("-c:a", "libmp3lame", "-b:a", "128k")),
    Format("flac", "flac", 48_000, 1, ("-c:a", "flac")),
    Format("wav", "pcm_s16le", 44_100, 1, ("-c:a", "pcm_s16le")),
    Format("ogg", "opus", 48_000, 1, OPUS),
    Format("mp4", "aac", 48_000, 2, (*AAC, "-c:v", "mpeg4"), picture=True),
    Format("mkv", "aac", 48_000, 1, AAC),
    Format("m4a", "aac", 44_100, 1, AAC),  # moov at the end
    Format("opus", "opus", 48_000, 2, OPUS),
    Format("mkv", "opus", 48_000, 2, OPUS),
)
REUPLOAD = FORMATS[5]


@cache
def ffmpeg() -> str:
    """The ffmpeg program: the one that the `imageio-ffmpeg` wheel carries, or `IMAGEIO_FFMPEG_EXE`."""
    with require_extra("bench", "encoding with ffmpeg"):
        import imageio_ffmpeg  # noqa: PLC0415 - an output can be read without it
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def encode(frames: Samples, form: Format) -> bytes:
    """The bytes of a file in `form`.

    Shape: frames `[T, channels]` at the format's rate; what is beyond [-1, 1] is clipped.
    """
    pcm = np.multiply(frames, 32767.0).round().clip(-32768, 32767).astype("<i2")
    rate, channels = str(form.sample_rate_hz), str(form.channels)
    inputs = ["-f", "s16le", "-ar", rate, "-ac", channels, "-i", "pipe:0"]
    if form.picture:
        inputs += _picture(len(frames) / form.sample_rate_hz)
    return _ffmpeg([*inputs, *form.options], form.container, pcm.tobytes())


def encode_picture() -> bytes:
    """An mp4 with a picture and no sound."""
    return _ffmpeg([*_picture(10.0), "-c:v", "mpeg4"], "mp4", b"")


def _picture(length_s: float) -> list[str]:
    return ["-f", "lavfi", "-t", f"{length_s:.3f}", "-i", "color=c=navy:s=64x36:r=10"]


def _ffmpeg(arguments: list[str], suffix: str, data: bytes) -> bytes:
    """Through a file, since a pipe cannot be sought back in to write the duration and the index."""
    with tempfile.TemporaryDirectory(prefix="audiopipe-demo-") as folder:
        out = Path(folder) / f"out.{suffix}"
        command = [ffmpeg(), "-v", "error", "-y", *arguments, *BITEXACT, str(out)]
        subprocess.run(command, input=data, check=True, capture_output=True, timeout=300)
        return out.read_bytes()
