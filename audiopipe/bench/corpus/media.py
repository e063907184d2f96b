"""Encode samples with ffmpeg in the containers and codecs of the demo corpus."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from audiopipe.bench.corpus.prompts import Samples
from audiopipe.extras import require_extra

__all__ = ["FORMATS", "REUPLOAD", "Format", "encode", "encode_video_only", "find_ffmpeg"]

BITEXACT = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags", "+bitexact", "-threads", "1")
OPUS = ("-c:a", "libopus", "-b:a", "96k", "-compression_level", "5")
AAC = ("-c:a", "aac", "-b:a", "128k", "-aac_coder", "fast")


@dataclass(frozen=True)
class Format:
    """A container (which is also the suffix), its codec and layout, and the ffmpeg options for them."""

    container: str
    codec: str
    sample_rate_hz: int
    channels: int
    options: tuple[str, ...]
    with_video: bool = False


# In order of importance: a corpus of six videos has the first six.
FORMATS = (
    Format("webm", "opus", 48_000, 2, OPUS),
    Format("m4a", "aac", 44_100, 2, (*AAC, "-movflags", "+faststart")),
    Format("mp3", "mp3", 44_100, 2, ("-c:a", "libmp3lame", "-b:a", "128k")),
    Format("flac", "flac", 48_000, 1, ("-c:a", "flac")),
    Format("wav", "pcm_s16le", 44_100, 1, ("-c:a", "pcm_s16le")),
    Format("ogg", "opus", 48_000, 1, OPUS),
    Format("mp4", "aac", 48_000, 2, (*AAC, "-c:v", "mpeg4"), with_video=True),
    Format("mkv", "aac", 48_000, 1, AAC),
    Format("m4a", "aac", 44_100, 1, AAC),  # moov at the end
    Format("opus", "opus", 48_000, 2, OPUS),
    Format("mkv", "opus", 48_000, 2, OPUS),
)
REUPLOAD = FORMATS[5]


@cache
def find_ffmpeg() -> str:
    """Return the path of the ffmpeg program: `IMAGEIO_FFMPEG_EXE`, or that of the package `imageio-ffmpeg`.

    Raises:
        MissingExtra: the package is not installed.
    """
    with require_extra("bench", "encoding with ffmpeg"):
        import imageio_ffmpeg  # noqa: PLC0415 - an output can be read without it
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def encode(frames: Samples, form: Format) -> bytes:
    """Encode frames as a file in a format.

    Args:
        frames: `[T, channels]` at the format's sample rate; values beyond [-1, 1] are clipped.
    """
    pcm = np.multiply(frames, 32767.0).round().clip(-32768, 32767).astype("<i2")
    rate, channels = str(form.sample_rate_hz), str(form.channels)
    inputs = ["-f", "s16le", "-ar", rate, "-ac", channels, "-i", "pipe:0"]
    if form.with_video:
        inputs += _video_options(len(frames) / form.sample_rate_hz)
    return _ffmpeg([*inputs, *form.options], form.container, pcm.tobytes())


def encode_video_only() -> bytes:
    """Encode an mp4 that has video and no audio."""
    return _ffmpeg([*_video_options(10.0), "-c:v", "mpeg4"], "mp4", b"")


def _video_options(length_s: float) -> list[str]:
    return ["-f", "lavfi", "-t", f"{length_s:.3f}", "-i", "color=c=navy:s=64x36:r=10"]


def _ffmpeg(arguments: list[str], suffix: str, data: bytes) -> bytes:
    """Run ffmpeg with an output file: in a pipe it could not seek back to write the duration and the index."""
    with tempfile.TemporaryDirectory(prefix="audiopipe-demo-") as folder:
        out = Path(folder) / f"out.{suffix}"
        command = [find_ffmpeg(), "-v", "error", "-y", *arguments, *BITEXACT, str(out)]
        subprocess.run(command, input=data, check=True, capture_output=True, timeout=300)
        return out.read_bytes()
