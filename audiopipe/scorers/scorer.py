"""Define what a scorer is: a named, versioned, batched function that adds columns to segments.

A scorer's module imports no torch at its top: names, versions and columns are read where nothing is computed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import torch

__all__ = ["Column", "ColumnType", "Scorer", "ScorerBatch", "SegmentInfo", "Values"]

ColumnType = Literal[
    "float", "int", "bool", "string", "floats"
]  # in Parquet: float32, int32, bool, string, list<float32>

# A value for each segment of a batch. NaN and None are written as null.
Values: TypeAlias = "torch.Tensor | np.ndarray | Sequence[float | int | bool | str | Sequence[float] | None]"


@dataclass(frozen=True, slots=True)
class Column:
    """A column that a scorer adds to segments.

    Args:
        name: lower case with underscores, unique among all columns of a dataset.
        unit: "1" for a number without unit, "" for text and flags.
        description: what the value says, for `audiopipe explain`, schemas and reports.
        minimum, maximum: the range of the values, where they have one.
        stored: False for a value that only `finish_video` reads, which no table gets.
    """

    name: str
    type: str  # of a scorer's column a `ColumnType`; of one of the catalog also Arrow's name of another type
    unit: str
    description: str
    minimum: float | None = None
    maximum: float | None = None
    stored: bool = True


@dataclass(frozen=True, slots=True)
class SegmentInfo:
    """A segment apart from its samples.

    Args:
        language: the catalog's language of the video.
        text: the words alone.
        raw_text: the text before tags, speakers and marks of sounds were removed; None if it is not known.
    """

    video_id: str
    language: str
    duration_s: float
    text: str | None
    speaker: str | None
    raw_text: str | None = None


@dataclass(frozen=True, slots=True)
class ScorerBatch:
    """The segments that a scorer gets at a time: those of several videos of one shard, of about one length.

    Which segments share a batch must not change their values by more than float rounding.

    Args:
        samples: [B, C, T] float32 with full scale 1.0 on the scorer's device, at its sample rate and with its number of
            channels, zero after each segment's end; None for a scorer that needs no audio.
        lengths: [B] samples of each segment, at least 1; empty without audio.
        segments: [B].
        sample_rate: that of the samples in Hz.
    """

    samples: torch.Tensor | None = field(repr=False)
    lengths: Sequence[int]
    segments: Sequence[SegmentInfo]
    sample_rate: int = 16_000


class Scorer(ABC):
    """A function that adds columns to segments. Third-party packages register one as entry point `audiopipe.scorers`.

    A worker makes one instance for a run, without arguments, and calls `load` once before the first batch. `score` may
    be called from several threads.

    What it gets is the segment as it is emitted: mono, after resampling and loudness normalization, 16 bits. So a run
    and a later `audiopipe annotate` give the same values.

    Attributes:
        name: letters, digits, "-" and "_"; names the scorer in `scorers`, in the digest and in `_annotations/`.
        version: changes whenever values change.
        sample_rate: the rate in Hz that the scorer wants; None for that of the dataset.
        channels: the number of channels it wants; mono is repeated.
        needs_audio: False for a scorer of texts.
    """

    name: str
    version: str
    columns: tuple[Column, ...]
    sample_rate: int | None = None
    channels: int = 1
    needs_audio: bool = True

    def load(self, device: torch.device) -> None:  # noqa: B027 - a scorer without weights leaves it out
        """Read weights and move them to a device.

        Raises:
            MissingExtra: the package with the weights is not installed.
        """

    @abstractmethod
    def score(self, batch: ScorerBatch) -> Mapping[str, Values]:
        """Return the values [B] of each column of `columns` by name.

        An exception stops the run with the scorer's name, except `torch.OutOfMemoryError`: the batch is then given in
        halves.
        """

    def finish_video(self, rows: Mapping[str, Sequence[object]]) -> Mapping[str, Sequence[object]]:
        """Return columns that depend on all segments of a video; the values of `rows` that stay can be left out.

        Args:
            rows: for the scored segments of one video in their order, the values of the scorer's columns, also of those
                that are not stored, and of `speaker`. A scorer may return `speaker` to fill in missing ones.
        """
        return {}
