"""Find the ways in which this machine can run FFmpeg. The fastest of them anchors the pipeline benchmark.

The programs differ by a factor of two: since FFmpeg 7 the program passes each frame between threads, which costs more
than it takes to decode 20 ms of audio. The libraries in this process (PyAV) do not.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from audiopipe.bench.corpus.media import find_ffmpeg
from audiopipe.bench.cpu_time import used_cpu_s
from audiopipe.errors import MissingExtra

__all__ = ["IN_PROCESS", "Ffmpeg", "choose_fastest", "decode_all", "decode_samples", "find_programs", "run_ffmpeg"]

TRIALS = 2


@dataclass(frozen=True)
class Ffmpeg:
    """FFmpeg as a program, or as libraries in this process (`program` is empty). `label` names it in tables."""

    label: str
    program: str = ""


IN_PROCESS = Ffmpeg(f"PyAV {av.__version__} in process")


def find_programs() -> list[Ffmpeg]:
    """Return every ffmpeg program of the PATH, and that of the package `imageio-ffmpeg` if it is installed."""
    paths = [Path(folder, "ffmpeg") for folder in os.get_exec_path()]
    with suppress(MissingExtra):
        paths.append(Path(find_ffmpeg()))
    programs = dict.fromkeys(path.resolve() for path in paths if os.access(path, os.X_OK))
    return [Ffmpeg(f"ffmpeg {_read_version(path)}", str(path)) for path in programs]


def _read_version(program: Path) -> str:
    done = subprocess.run([program, "-version"], check=True, capture_output=True, text=True)
    match = re.match(r"ffmpeg version (\d[\w.]*)", done.stdout)
    return match.group(1) if match else "of unknown version"


def choose_fastest(ways: Iterable[Ffmpeg], work: Callable[[Ffmpeg], object]) -> Ffmpeg:
    """Return the way that does the work in the least CPU time."""
    return min(ways, key=lambda way: min(_measure_cpu_s(lambda: work(way)) for _ in range(TRIALS)))


def _measure_cpu_s(work: Callable[[], object]) -> float:
    before = used_cpu_s()
    work()
    return used_cpu_s() - before


def run_ffmpeg(program: str, *arguments: str) -> None:
    """Run a program with one thread for each codec."""
    subprocess.run(
        [program, "-nostdin", "-v", "error", "-threads", "1", *arguments], check=True, stdout=subprocess.DEVNULL
    )


def decode_all(path: str, way: Ffmpeg) -> None:
    """Decode the first audio stream of a file with one thread, and discard the samples."""
    if way.program:
        run_ffmpeg(way.program, "-i", path, "-map", "0:a:0", "-f", "null", "-")
        return
    with av.open(path) as container:
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass


def decode_samples(path: str, rate_hz: int, seconds: float | None = None) -> npt.NDArray[np.float32]:
    """Decode a file, or its first seconds, at a sample rate: [T, 2] float32."""
    resampler = av.AudioResampler(format="flt", layout="stereo", rate=rate_hz)
    blocks: list[npt.NDArray[np.float32]] = []
    frames = 0
    with av.open(path) as container:
        for frame in container.decode(audio=0):
            parts = [part.to_ndarray().reshape(-1, 2).astype(np.float32) for part in resampler.resample(frame)]
            blocks += parts
            frames += sum(len(part) for part in parts)
            if seconds is not None and frames >= seconds * rate_hz:
                break
    samples = np.concatenate(blocks)
    return samples if seconds is None else samples[: round(seconds * rate_hz)]
