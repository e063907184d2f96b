"""Decode and read the videos of a corpus, independently of the package."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from audiopipe.bench.corpus import Corpus


@dataclass(frozen=True)
class Sound:
    """A decoded file: codec and rate of its stream, and samples `[T, channels]` within [-1, 1]."""

    codec: str
    rate_hz: int
    samples: npt.NDArray[np.float32]

    @property
    def length_s(self) -> float:
        return len(self.samples) / self.rate_hz


def decode(data: bytes) -> Sound:
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.audio[0]
        planar = av.AudioResampler(format="fltp")
        frames = [out.to_ndarray() for frame in container.decode(stream) for out in planar.resample(frame)]
        return Sound(stream.codec_context.name, stream.rate, np.concatenate(frames, axis=1).T)


@dataclass(frozen=True)
class Demo:
    """A corpus, and the access that tests need to its files."""

    directory: Path
    corpus: Corpus
    truths: list[dict[str, Any]]

    def path(self, truth: dict[str, Any]) -> Path:
        return self.directory / "videos" / truth["language"] / f"{truth['id']}.tar"

    def members(self, truth: dict[str, Any]) -> dict[str, bytes]:
        with tarfile.open(self.path(truth)) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]

    def audio(self, truth: dict[str, Any]) -> bytes:
        return next(data for name, data in self.members(truth).items() if name.endswith("." + truth["container"]))

    def with_condition(self, condition: str) -> dict[str, Any]:
        return next(truth for truth in self.truths if truth["condition"] == condition)

    @property
    def good(self) -> list[dict[str, Any]]:
        return [truth for truth in self.truths if truth["good"]]
