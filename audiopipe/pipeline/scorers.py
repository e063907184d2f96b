"""Compute the columns of scorers for emitted segments: 16 bits, mono, at the rate of the dataset.

What a scorer does wrong is reported by its name and stops the run: no video is at fault, and no retry helps.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from audiopipe import kernels
from audiopipe.dataset.annotations import AnnotationRecord
from audiopipe.dataset.run_record import ScorerRecord
from audiopipe.errors import BrokenWorker, ConfigError, MissingExtra, ScorerError
from audiopipe.pipeline.score_values import check_values
from audiopipe.pipeline.tiles import run_in_tiles
from audiopipe.pipeline.worker_errors import to_worker_failure
from audiopipe.scorers.registry import create_scorers
from audiopipe.scorers.scorer import Scorer, ScorerBatch, SegmentInfo
from audiopipe.types import Value

__all__ = ["EmittedBatch", "ScorerSet", "finish_video", "load_scorers", "require_installed", "require_versions"]

T = TypeVar("T")
Measure = Callable[[str, int], AbstractContextManager[None]]
Scores = dict[str, Value]


@dataclass(frozen=True)
class EmittedBatch:
    """Segments as they are emitted.

    Args:
        samples: [T] int16 of each, at least one sample long.
    """

    samples: Sequence[npt.NDArray[np.int16]]
    segments: Sequence[SegmentInfo]
    sample_rate: int


class ScorerSet:
    """Loaded scorers on a device.

    Args:
        scorers: they are loaded already.
    """

    def __init__(self, scorers: Sequence[Scorer], device: torch.device) -> None:
        self.scorers, self.device = tuple(scorers), device

    @torch.inference_mode()
    def score(self, batch: EmittedBatch, measure: Measure = lambda name, items: nullcontext()) -> list[Scores]:
        """Return the values of all columns for each segment of a batch.

        Args:
            measure: a context in which a scorer works on some items, by the scorer's name.

        Raises:
            ScorerError: a scorer raises, or its values are not those of its columns.
            WorkerFailure: the device does not have the memory for one segment, or fails.
        """
        scores: list[Scores] = [{} for _ in batch.segments]
        for scorer in self.scorers:
            with measure(scorer.name, len(scores)):
                rows = run_in_tiles(len(scores), partial(self._score, scorer, batch), self.device)
            for score, row in zip(scores, rows, strict=True):
                score.update(row)
        return scores

    def _score(self, scorer: Scorer, batch: EmittedBatch, tile: slice) -> list[Scores]:
        segments = batch.segments[tile]
        given = self._prepare(scorer, batch, tile)
        values = check_values(scorer, _call(scorer, lambda: scorer.score(given)), len(segments))
        return [dict(zip(values, row, strict=True)) for row in zip(*values.values(), strict=True)]

    def _prepare(self, scorer: Scorer, batch: EmittedBatch, tile: slice) -> ScorerBatch:
        """Pad segments to a tensor on the device, with the rate and the channels that a scorer wants.

        They are padded to the longest of the batch, so that the scorer is given the same samples in any tiling.
        """
        samples, segments, rate = batch.samples[tile], batch.segments[tile], batch.sample_rate
        if not scorer.needs_audio:
            return ScorerBatch(None, [], segments, rate)
        lengths = [len(signal) for signal in samples]
        host = np.zeros((len(samples), 1, max(map(len, batch.samples))), np.int16)
        for row, signal in zip(host, samples, strict=True):
            row[0, : len(signal)] = signal
        x = torch.from_numpy(host).to(self.device).float().mul_(1 / kernels.INT16_FULL_SCALE)
        wanted = scorer.sample_rate or rate
        if wanted != rate:
            x = kernels.resample(x, rate, wanted, torch.tensor(lengths))
            lengths = [kernels.resampled_length(length, rate, wanted) for length in lengths]
        if scorer.channels > 1:
            x = x.expand(-1, scorer.channels, -1).contiguous()
        return ScorerBatch(x, lengths, segments, wanted)


def finish_video(scorer: Scorer, rows: Mapping[str, Sequence[object]]) -> dict[str, list[Value]]:
    """Return the columns that a scorer changes when a video is complete, `speaker` among them.

    Args:
        rows: as for `Scorer.finish_video`.

    Raises:
        ScorerError: as `ScorerSet.score`.
    """
    values = _call(scorer, lambda: scorer.finish_video(rows))
    return check_values(scorer, values, len(rows["speaker"]), is_partial=True)


@contextmanager
def require_installed() -> Iterator[None]:
    """Raise `BrokenWorker` if a scorer that is created in this context cannot be: the driver could create it."""
    try:
        yield
    except (ConfigError, MissingExtra) as error:
        raise BrokenWorker(f"this worker lacks a scorer of the run: {error}") from error


def require_versions(scorers: Sequence[Scorer], records: Sequence[ScorerRecord | AnnotationRecord]) -> None:
    """Raise `BrokenWorker` if the scorers of this worker are not those that an output has recorded."""
    for scorer, record in zip(scorers, records, strict=True):
        if (scorer.name, scorer.version) != (record.name, record.version):
            raise BrokenWorker(
                f"this worker has version {scorer.version} of scorer '{scorer.name}', and the output is of version "
                f"{record.version} of '{record.name}': install the same packages and files on all workers"
            )


_LOADED: dict[tuple[object, ...], ScorerSet] = {}
_LOADING = threading.Lock()


def load_scorers(
    names: str, device: torch.device, *, speaker_labels: bool = False, speaker_embeddings: bool = False
) -> ScorerSet:
    """Return the scorers of a comma-separated list, loaded; a process loads each version of them once.

    Raises:
        BrokenWorker: a scorer or its package is not installed on this worker.
        ScorerError: a scorer cannot be loaded.
    """
    with require_installed():
        scorers = create_scorers(names, speaker_labels=speaker_labels, speaker_embeddings=speaker_embeddings)
    versions = tuple((scorer.name, scorer.version) for scorer in scorers)
    key = (names, versions, speaker_labels, speaker_embeddings, str(device))
    with _LOADING:
        if key not in _LOADED:
            for scorer in scorers:
                _call(scorer, partial(scorer.load, device))
            _LOADED[key] = ScorerSet(scorers, device)
        return _LOADED[key]


def _call(scorer: Scorer, function: Callable[[], T]) -> T:
    """Call a scorer's method; its errors become those of the machine or of the scorer."""
    try:
        return function()
    except (torch.OutOfMemoryError, MissingExtra):
        raise
    except Exception as error:
        if not isinstance(error, ImportError) and (failure := to_worker_failure(error)):
            raise type(failure)(f"scorer '{scorer.name}': {failure}") from error
        raise ScorerError(f"scorer '{scorer.name}' failed with {_describe(error)}") from error


def _describe(error: Exception) -> str:
    """Return an error's type, its message and the line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    message = str(error).strip().partition("\n")[0][:500]
    return f"{type(error).__name__}: {message}{place}"
