"""What the pipeline's tests are made from: signals, media in any container, tars, shards."""

from __future__ import annotations

import io
import subprocess
import tarfile
import textwrap
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil

from audiopipe.bench.corpus.media import ffmpeg
from audiopipe.config import RunConfig
from audiopipe.media.fetch import Source
from audiopipe.types import Clip, Shard, Span, Video

BITEXACT = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags", "+bitexact", "-threads", "1")


def config(**parameters):
    return RunConfig.of(**{"catalog": "c", "output": "o", "decode_timeout_s": 20.0} | parameters)


def is_decoder(pid: int) -> bool:
    """A process that decodes a file, or reads its header: a fork of the one that forks them."""
    try:
        process = psutil.Process(pid)
        parent, command = process.parent(), process.cmdline()
        return "audiopipe.media.forkserver" in command and parent is not None and parent.cmdline() == command
    except psutil.NoSuchProcess:
        return False


def decoders() -> list[psutil.Process]:
    """Those at work for this process."""
    return [process for process in psutil.Process().children(recursive=True) if is_decoder(process.pid)]


def decoder_of(path: Path) -> psutil.Process:
    """The one that has this file open."""
    found = []
    for process in decoders():
        with suppress(psutil.NoSuchProcess):  # another video's, which ended while we looked
            found += [process] if str(path) in [file.path for file in process.open_files()] else []
    (one,) = found
    return one


# Read by every Python that has its folder in PYTHONPATH: what a fork does before it reads a header, or decodes.
FORKS = """
import json, os, pathlib, signal, sys, time

def act(job, asked):
{act}

def forked():
    act(*json.loads(sys._getframe(1).f_locals["request"]))

if "audiopipe.media.forkserver" in sys.orig_argv:
    os.register_at_fork(after_in_child=forked)
"""


def in_decoders(folder: Path, act: str) -> dict[str, str]:
    """Settings with which decoders do this first; it may look at the `job` and what is `asked`."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(FORKS.format(act=textwrap.indent(act, "    ")))
    return {"PYTHONPATH": str(folder)}


def slowly(folder: Path, seconds: float) -> dict[str, str]:
    """Settings with which every file takes so much longer."""
    return in_decoders(folder, f"if job == 'header': time.sleep({seconds})")


def tones(seconds, rate, channels, seed=0):
    """[C, T] float64, each channel a tone of its own with a slow tremolo and some noise, peak about 0.5."""
    t = np.arange(round(seconds * rate)) / rate
    hertz = 220.0 * 1.5 ** np.arange(channels)[:, None]
    noise = np.random.default_rng(seed).standard_normal((channels, len(t)))
    return 0.4 * np.sin(2 * np.pi * hertz * t) * (0.75 + 0.25 * np.sin(2 * np.pi * 1.3 * t)) + 0.002 * noise


def babble(seed, seconds=40.0, rate=48_000):
    """[1, T] float32, peak 0.3: one sound of 0.08 to 0.3 s after the other, each with its own spectrum."""
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
    """Encode [C, T] to `path`, whose suffix names the container. `options` are ffmpeg's."""
    dtype = {"f32le": "<f4", "s16le": "<i2"}[sample]
    inputs = ["-f", sample, "-ar", str(rate), "-ac", str(signal.shape[0]), "-i", "pipe:0"]
    if layout:
        inputs[-2:-2] = ["-channel_layout", layout]
    command = [ffmpeg(), "-v", "error", "-y", *inputs, *options, *BITEXACT, str(path)]
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


def wav_video(folder: Path, name: str, seconds=3.0, rate=16_000, channels=1, language="en", **beside):
    """A bare video: a tar with a 16-bit WAV, and documents given as `json=` or `srt=`."""
    audio = media_file(folder / f"{name}.wav", tones(seconds, rate, channels, seed=len(name)), rate)
    members = {f"{name}.wav": audio.read_bytes()} | {f"{name}.{kind}": data for kind, data in beside.items()}
    audio.unlink()
    path = tar_file(folder / f"{name}.tar", members)
    return Video(name, language, str(path), path.stat().st_size, seconds)


def shard_of(videos, language="en", index=0):
    return Shard(language, index, 0, tuple(videos))


def clip(frames, rate=16_000, channels=1, dtype=np.int16, video_id="v", index=0, reason=None, seed=0):
    pcm = (tones(frames / rate, rate, channels, seed) * (32767 if dtype == np.int16 else 1)).astype(dtype)[:, :frames]
    return Clip(video_id, index, Span(index, index + frames / rate), rate, pcm, reason)
