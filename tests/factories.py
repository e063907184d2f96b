"""Make the input of tests: signals, media files in any container, tars, shards. Find and delay decoder processes."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import textwrap
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from audiopipe.bench.corpus.media import find_ffmpeg
from audiopipe.config import RunConfig
from audiopipe.media.fetch import Source
from audiopipe.types import Clip, Shard, Span, Video

BITEXACT = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags", "+bitexact", "-threads", "1")


def config(**parameters):
    return RunConfig.of(**{"catalog": "c", "output": "o", "decode_timeout_s": 20.0} | parameters)


def is_decoder_process(pid: int) -> bool:
    """Check whether a process decodes a file or reads a header: it is a fork of the fork server."""
    try:
        process = psutil.Process(pid)
        parent, command = process.parent(), process.cmdline()
        return "audiopipe.media.forkserver" in command and parent is not None and parent.cmdline() == command
    except psutil.NoSuchProcess:
        return False


def list_decoders() -> list[psutil.Process]:
    """List the running decoder processes of this process."""
    return [process for process in psutil.Process().children(recursive=True) if is_decoder_process(process.pid)]


def find_decoder(path: Path) -> psutil.Process:
    """Find the decoder process that has this file open."""
    matches = []
    for process in list_decoders():
        with suppress(psutil.NoSuchProcess):  # the decoder of another video ended since it was listed
            matches += [process] if str(path) in [file.path for file in process.open_files()] else []
    (decoder,) = matches
    return decoder


# Every Python with the folder of this file in PYTHONPATH imports it. It runs code in each fork of the fork server.
SITECUSTOMIZE = """
import json, os, pathlib, signal, sys, time

def run_injected(job, request, stderr):
{code}

def after_fork():
    caller = sys._getframe(1).f_locals
    run_injected(*json.loads(caller["request"]), caller["stderr"])

if "audiopipe.media.forkserver" in sys.orig_argv:
    os.register_at_fork(after_in_child=after_fork)
"""


def inject_decoder_code(folder: Path, code: str) -> dict[str, str]:
    """Return environment variables with which every decoder process runs `code` first.

    The code may use `job` ('header' or 'decode'), `request` (a dict) and `stderr` (the decoder's file descriptor).
    """
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE.format(code=textwrap.indent(code, "    ")))
    return {"PYTHONPATH": prepend_python_path(folder)}


def prepend_python_path(folder: Path) -> str:
    """Return PYTHONPATH with a folder in front, so that child processes still import the package under test."""
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def delay_decoders(folder: Path, seconds: float) -> dict[str, str]:
    """Return environment variables with which every file takes `seconds` longer."""
    return inject_decoder_code(folder, f"if job == 'header': time.sleep({seconds})")


def tones(seconds, rate, channels, seed=0):
    """Make [C, T] float64: a different tone in each channel, with slow tremolo and some noise, peak about 0.5."""
    t = np.arange(round(seconds * rate)) / rate
    hertz = 220.0 * 1.5 ** np.arange(channels)[:, None]
    noise = np.random.default_rng(seed).standard_normal((channels, len(t)))
    return 0.4 * np.sin(2 * np.pi * hertz * t) * (0.75 + 0.25 * np.sin(2 * np.pi * 1.3 * t)) + 0.002 * noise


def synthetic_speech(seed, seconds=40.0, rate=48_000):
    """Make [1, T] float32, peak 0.3: a sequence of sounds of 0.08 to 0.3 s, each with a different spectrum."""
    rng = np.random.default_rng(seed)
    parts = []
    frames = 0
    while frames < seconds * rate:
        length = int(rng.uniform(0.08, 0.3) * rate)
        spectrum = np.fft.rfft(rng.standard_normal(length))
        hertz = np.fft.rfftfreq(length, 1 / rate)
        shape = sum(np.exp(-(((hertz - f) / 150) ** 2)) for f in rng.uniform([200, 700, 1700], [700, 1700, 3500]))
        sound = np.fft.irfft(spectrum * (shape + 0.01 / (1 + hertz / 500)), length) * np.hanning(length)
        parts.append(sound * rng.choice([0.0, 0.3, 1.0], p=[0.15, 0.3, 0.55]))
        frames += length
    x = np.concatenate(parts)[: int(seconds * rate)]
    return (0.3 * x / np.abs(x).max()).astype(np.float32)[None]


def media_file(path: Path, signal, rate, *options, sample="f32le", layout=None):
    """Encode [C, T] to `path` with ffmpeg's `options`. The suffix of `path` selects the container."""
    dtype = {"f32le": "<f4", "s16le": "<i2"}[sample]
    inputs = ["-f", sample, "-ar", str(rate), "-ac", str(signal.shape[0]), "-i", "pipe:0"]
    if layout:
        inputs[-2:-2] = ["-channel_layout", layout]
    command = [find_ffmpeg(), "-v", "error", "-y", *inputs, *options, *BITEXACT, str(path)]
    subprocess.run(command, input=np.ascontiguousarray(signal.T.astype(dtype)).tobytes(), check=True, timeout=60)
    return path


def tar_file(path: Path, members: dict[str, bytes]):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def source_of(path: Path, duration_s=None):
    size = path.stat().st_size
    return Source(Video("v", "en", str(path), size, duration_s), path, 0, size, size, "etag")


def wav_video(folder: Path, name: str, seconds=3.0, rate=16_000, channels=1, language="en", **sidecars):
    """Make the tar of a video: a 16-bit WAV and the sidecars given as `json=` or `srt=`."""
    audio = media_file(folder / f"{name}.wav", tones(seconds, rate, channels, seed=len(name)), rate)
    members = {f"{name}.wav": audio.read_bytes()} | {f"{name}.{kind}": data for kind, data in sidecars.items()}
    audio.unlink()
    path = tar_file(folder / f"{name}.tar", members)
    return Video(name, language, str(path), path.stat().st_size, seconds)


def shard_of(videos, language="en", index=0):
    return Shard(language, index, 0, tuple(videos))


def clip(frames, rate=16_000, channels=1, dtype=np.int16, video_id="v", index=0, reason=None, seed=0):
    pcm = (tones(frames / rate, rate, channels, seed) * (32767 if dtype == np.int16 else 1)).astype(dtype)[:, :frames]
    return Clip(video_id, index, Span(index, index + frames / rate), rate, pcm, reason)
