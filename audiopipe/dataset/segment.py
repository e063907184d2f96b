"""One segment of a dataset, with its audio."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile as sf

from audiopipe.dataset.records import finite
from audiopipe.dataset.virtual import open_tar, tar_name
from audiopipe.errors import ConfigError
from audiopipe.store.objects import Store
from audiopipe.types import Seconds

__all__ = ["Segment"]


@dataclass(frozen=True)
class Segment:
    """One segment of a dataset. `audio` is read when it is asked for, by one ranged read, if it was not read ahead.

    `row` has the columns of the segment that were read, `scores` the names of those that scorers and annotations add.
    """

    row: Mapping[str, Any]
    scores: tuple[str, ...]
    _store: Store
    _data: bytes | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        return f"Segment({self.key!r}, {self.language}, {self.start_s:.2f}-{self.end_s:.2f} s, {self.text!r})"

    @property
    def key(self) -> str:
        """The name of the sample in its tar, without suffix."""
        return str(self.row["key"])

    @property
    def video_id(self) -> str:
        """The id of the video that the segment was cut from."""
        return str(self.row["video_id"])

    @property
    def language(self) -> str:
        """The language of the video."""
        return str(self.row["language"])

    @property
    def start_s(self) -> Seconds:
        """The start of the segment on the clock of the video's file, in seconds."""
        return float(self.row["start_s"])

    @property
    def end_s(self) -> Seconds:
        """The end of the segment on the clock of the video's file, in seconds."""
        return float(self.row["end_s"])

    @property
    def text(self) -> str | None:
        """The text, None if the source has none."""
        text: str | None = self.row["text"]
        return text

    @property
    def speaker(self) -> str | None:
        """The label of the speaker, None if it is not known."""
        speaker: str | None = self.row["speaker"]
        return speaker

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """The value of each score by name, None where it does not exist."""
        return {name: finite(self.row[name]) for name in self.scores if name in self.row}

    @property
    def duration_s(self) -> Seconds:
        """The length of the audio in seconds."""
        return float(self.row["duration_s"])

    @property
    def tar(self) -> str:
        """The name of the tar that holds the audio, relative to the dataset; an address in a virtual selection."""
        return tar_name(self.row)

    def read_bytes(self) -> bytes:
        """Read the encoded audio, in the format of the dataset (FLAC by default).

        Raises:
            ConfigError: the segment was dropped, so that the dataset has no audio of it.
            FileNotFoundError: the tar is missing; `verify` reports what else is.
        """
        if self._data is not None:
            return self._data
        if self.row["tar_offset"] is None:
            raise ConfigError(
                f"segment {self.key} was dropped ({self.row['drop_reason']}): the dataset has no audio of it"
            )
        store, name = open_tar(self._store, self.tar)
        return store.read_range(name, int(self.row["tar_offset"]), int(self.row["audio_bytes"]))

    @cached_property
    def _decoded(self) -> tuple[npt.NDArray[np.float32], int]:
        samples, rate = sf.read(io.BytesIO(self.read_bytes()), dtype="float32")
        return samples, int(rate)

    @property
    def audio(self) -> npt.NDArray[np.float32]:
        """The samples, mono [T] in -1..1; raises as `read_bytes`."""
        return self._decoded[0]

    @property
    def sample_rate(self) -> int:
        """The sample rate of `audio` in Hz; raises as `read_bytes`."""
        return self._decoded[1]
