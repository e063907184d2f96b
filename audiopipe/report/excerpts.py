"""A segment's audio out of its shard's tar, without reading the tar: and as a player and a spectrogram."""

from __future__ import annotations

import base64
import io
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import soundfile as sf
import torch

from audiopipe import kernels
from audiopipe.errors import VerifyError
from audiopipe.media.encode import SUFFIXES, encode
from audiopipe.report.figure import DROPPED, NEUTRAL, draw
from audiopipe.store.objects import Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Excerpt", "find_member", "levels", "outline", "player", "spectrogram"]

BLOCK = tarfile.BLOCKSIZE
WINDOW = 512 << 10
MOST_S = 12.0
FLOOR_DB = 70.0
PIXELS = 240
LOWEST_LUFS = -70.0
LOUDNESS_STEP = 5  # of the kernel's windows, one is drawn
Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Excerpt:
    """Mono samples in [-1, 1], the first `MOST_S` seconds of a segment at most."""

    samples: Samples
    rate_hz: int

    @classmethod
    def of(cls, data: bytes) -> Excerpt:
        """Of an encoded segment, in any format that the output may have."""
        with sf.SoundFile(io.BytesIO(data)) as file:
            samples = file.read(int(MOST_S * file.samplerate), dtype="float32", always_2d=True)
            return cls(samples.mean(axis=1), file.samplerate)


def find_member(store: Store, tar: str, size: int, key: str, guess: int) -> bytes:
    """The audio of a sample, looked for around a guessed offset of its header.

    A tar has no index, and its headers are apart: to walk a gigabyte of them on an object store would take thousands
    of requests. The sizes of the samples before it say nearly where a header is, so one or two ranges do.

    Raises:
        VerifyError: the tar has no such member.
    """
    names = [f"{key}{suffix}".encode().ljust(100, b"\0") for suffix in SUFFIXES.values()]
    guess, reach, seen = min(guess, size), WINDOW, False
    while not seen:
        start = max(0, (guess - reach) // BLOCK * BLOCK)
        end = min(size, guess + reach)
        seen = start == 0 and end == size
        chunk = store.fs.cat_file(store.path(tar), start=start, end=end)
        for name in names:
            at = _header(chunk, name)
            if at is not None:
                return _body(store, tar, chunk, start, at)
        reach *= 4
    raise VerifyError(f"{tar} has no audio of {key}: `audiopipe verify` tells what else is wrong")


def _header(chunk: bytes, name: bytes) -> int | None:
    at = chunk.find(name)
    while at >= 0 and at % BLOCK:
        at = chunk.find(name, at + 1)
    return at if at >= 0 else None


def _body(store: Store, tar: str, chunk: bytes, start: int, at: int) -> bytes:
    member = tarfile.TarInfo.frombuf(chunk[at : at + BLOCK], tarfile.ENCODING, "surrogateescape")
    first = at + BLOCK
    if first + member.size <= len(chunk):
        return chunk[first : first + member.size]
    return bytes(store.fs.cat_file(store.path(tar), start=start + first, end=start + first + member.size))


def player(excerpt: Excerpt, label: str) -> str:
    """An audio element that holds its sound itself, as MP3: every browser plays it, at a tenth of the bytes."""
    samples = np.clip(excerpt.samples * 32767, -32768, 32767).astype(np.int16)
    data = base64.b64encode(encode(samples, excerpt.rate_hz, "mp3")).decode()
    return f'<audio controls preload="metadata" aria-label="{label}" src="data:audio/mpeg;base64,{data}"></audio>'


def outline(excerpt: Excerpt) -> str:
    """The waveform, and over it the momentary loudness (0.4 s)."""
    seconds = len(excerpt.samples) / excerpt.rate_hz
    edges = np.arange(0, len(excerpt.samples), -(-len(excerpt.samples) // PIXELS))
    low, high = np.minimum.reduceat(excerpt.samples, edges), np.maximum.reduceat(excerpt.samples, edges)
    peak = max(0.05, 1.1 * float(np.abs(excerpt.samples).max(initial=0.0)))
    measured = kernels.loudness(torch.from_numpy(excerpt.samples)[None, None], excerpt.rate_hz)
    lufs = np.maximum(measured.momentary_lufs[0].numpy()[::LOUDNESS_STEP], LOWEST_LUFS)

    def onto(axes: Axes) -> None:
        axes.fill_between(edges / excerpt.rate_hz, low, high, color=NEUTRAL, linewidth=0.3)
        axes.set(xlim=(0, seconds), ylim=(-peak, peak), ylabel="amplitude", xticklabels=[])
        loud = axes.twinx()
        loud.plot(np.arange(len(lufs)) * LOUDNESS_STEP * measured.hop_s + 0.2, lufs, color=DROPPED, linewidth=1.6)
        loud.set(ylim=(LOWEST_LUFS, 0), yticks=(-60, -40, -20, 0))
        loud.set_ylabel("LUFS (0.4 s)", color=DROPPED)
        loud.spines["right"].set_visible(True)

    return draw(onto, 380, 105)


def spectrogram(excerpt: Excerpt) -> str:
    """Time, frequency and level, the loudest bin at 0 dB."""
    drawn = levels(excerpt)
    seconds = len(excerpt.samples) / excerpt.rate_hz

    def onto(axes: Axes) -> None:
        extent = (0.0, seconds, 0.0, excerpt.rate_hz / 2000)
        axes.imshow(drawn, origin="lower", aspect="auto", extent=extent, cmap="magma", vmin=-FLOOR_DB, vmax=0)
        axes.set(xlabel="time (s)", ylabel="frequency (kHz)")

    return draw(onto, 380, 165)


def levels(excerpt: Excerpt) -> npt.NDArray[np.float32]:
    """[frequency, time] in dB below the loudest."""
    size = 512 if excerpt.rate_hz >= 12_000 else 256
    padded = np.pad(excerpt.samples, (size // 2, size))
    hop = max(size // 4, len(excerpt.samples) // PIXELS)
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)) ** 2
    # Two neighbouring bins make a row: a picture of this height has no more.
    power = power[:, 1:].reshape(len(power), -1, 2).max(axis=2)
    levels: npt.NDArray[np.float32] = 10 * np.log10(np.maximum(power / max(power.max(), 1e-12), 1e-12)).T
    return levels
