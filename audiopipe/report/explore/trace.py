"""A video's way through the stages once more, with what each of them hands to the next.

What comes out is made by `process_shard` itself, in a scratch folder, so that the report can never tell of another
pipeline than the one that works; the intermediates come from the same stages' functions. Memory is bounded: of the
decoded signal an outline is kept, and the samples of one segment.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from audiopipe.dataset.schema import object_names
from audiopipe.errors import AudiopipeError, ConfigError
from audiopipe.media import decode as media
from audiopipe.media.encode import SUFFIXES
from audiopipe.media.fetch import Source, fetch
from audiopipe.pipeline.shard import process_shard
from audiopipe.report.explore.find import Selection, find
from audiopipe.segment.cut import cut
from audiopipe.store.objects import Store
from audiopipe.store.parquet import read_table
from audiopipe.types import Clip, DeadLetter, Media, Pcm, Span

__all__ = ["EncodedSegment", "Envelope", "Trace", "trace_video"]

STEP_S = 0.05
LISTENED_S = 12.0  # the longest segment up to this is looked at: short-term loudness takes 3 s to begin
INT16_SCALE = 32768.0
Values = npt.NDArray[np.float32]


@dataclass
class Envelope:
    """The lowest and the highest sample of every `STEP_S` of a signal, full scale 1.0."""

    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def of(self, blocks: Iterable[Pcm], rate_hz: int) -> Iterator[Pcm]:
        """Pass blocks through and remember their outline."""
        for block in blocks:
            scale = INT16_SCALE if block.dtype == np.int16 else 1.0
            for start in range(0, block.shape[-1], max(1, round(STEP_S * rate_hz))):
                part = block[:, start : start + max(1, round(STEP_S * rate_hz))]
                self.low.append(float(part.min()) / scale)
                self.high.append(float(part.max()) / scale)
            self.seconds += block.shape[-1] / rate_hz
            yield block


@dataclass(frozen=True)
class EncodedSegment:
    """What a shard of the video alone holds: the tables' rows, and of the chosen segment the tar's and manifest's."""

    segments: pd.DataFrame
    video: dict[str, Any]
    audio: bytes | None = None
    sidecar: dict[str, Any] | None = None
    manifest: dict[str, Any] | None = None


@dataclass
class Trace:
    """What is known of a video after as many stages as it came through.

    `failure` tells where it ended before its time and why; it is None for a video that passes. `number` is the
    segment that is looked at closely, `chosen` its row and `clip` its samples, if there are any.
    """

    found: Selection
    source: Source | None = None
    media: Media | None = None
    outline: Envelope = field(default_factory=Envelope)
    number: int | None = None
    clip: Clip | None = None
    written: EncodedSegment | None = None
    failure: DeadLetter | None = None

    @property
    def segments(self) -> pd.DataFrame:
        return self.written.segments if self.written else pd.DataFrame()

    @property
    def chosen(self) -> pd.Series[Any] | None:
        """The row of the segment that is looked at, None if the video has no table rows."""
        rows = [row for number, row in self.segments.iterrows() if number == self.number]
        return rows[0] if rows else None

    @property
    def signal(self) -> Values:
        """[T]: the mean of the channels of the chosen segment at the source's rate, full scale 1.0."""
        assert self.clip is not None
        scale = INT16_SCALE if self.clip.pcm.dtype == np.int16 else 1.0
        mono: Values = (self.clip.pcm.astype(np.float32) / scale).mean(0)
        return mono


def trace_video(
    output: str | None = None,
    catalog: str | None = None,
    source_prefix: str | None = None,
    youtube_id: str = "",
    segment: int | None = None,
) -> Trace:
    """Take one video through the stages. What is wrong with the video is part of the trace and raises nothing.

    Args:
        segment: the number of the segment to look at closely; by default the longest kept one of up to 12 s.

    Raises:
        ConfigError: no such video, or no such segment.
        CatalogError, PlanError, VerifyError: the catalogue or the output cannot be read.
    """
    seen = Trace(find(output, catalog, source_prefix, youtube_id))
    with tempfile.TemporaryDirectory(prefix="explore-") as folder:
        try:
            _process(seen, Path(folder), segment)
            _follow(seen, Path(folder))
        except AudiopipeError as error:
            if isinstance(error, ConfigError):
                raise
            seen.failure = seen.failure or _failure(seen, error)
    return seen


def _failure(trace: Trace, error: AudiopipeError) -> DeadLetter:
    """What stopped us as the pipeline tells it; an error that is no video's own (a store that is away) may pass."""
    video, stage = trace.found.video, getattr(error, "stage", "fetch")
    return DeadLetter(video.video_id, video.language, stage, type(error).__name__, str(error), retriable=True)


def _process(trace: Trace, folder: Path, wanted: int | None) -> None:
    """Make a shard of the video alone, in scratch."""
    shard = trace.found.shard
    config = trace.found.config.model_copy(update={"output": str(folder / "out"), "scratch": None})
    letters = process_shard(shard, config, "explore").dead_letters
    trace.failure = letters[0] if letters else None
    store, names = Store(config.output), object_names(shard.language, shard.index)
    segments = _table(store, names["segments"]).set_index("segment", drop=False)
    if wanted is not None and len(segments) and wanted not in segments.index:
        raise ConfigError(f"parameter 'segment' {wanted}: the video has segments 0 to {len(segments) - 1}")
    trace.written = EncodedSegment(segments, read_table(store.read(names["videos"])).to_pylist()[0])
    trace.number = _choice(segments, wanted)
    if trace.chosen is not None and trace.chosen["kept"]:
        trace.written = _member(store, names, str(trace.chosen["key"]), trace.written, config.audio_format)


def _table(store: Store, name: str) -> pd.DataFrame:
    frame: pd.DataFrame = read_table(store.read(name)).to_pandas()
    return frame


def _member(
    store: Store, names: dict[str, str], key: str, written: EncodedSegment, audio_format: str
) -> EncodedSegment:
    """The chosen segment's audio and JSON of the tar, and its line of the manifest."""
    with tarfile.open(fileobj=io.BytesIO(store.read(names["audio"]))) as tar:
        audio, sidecar = (tar.extractfile(key + suffix) for suffix in (SUFFIXES[audio_format], ".json"))
        assert audio is not None
        assert sidecar is not None
        sound, about = audio.read(), json.loads(sidecar.read())
    lines = map(json.loads, store.read(names["manifest"]).decode().splitlines())
    line = next(line for line in lines if line["audio_filepath"] == key + SUFFIXES[audio_format])
    return EncodedSegment(written.segments, written.video, sound, about, line)


def _choice(segments: pd.DataFrame, wanted: int | None) -> int | None:
    """The number of the segment to look at; None where the tables have none."""
    if wanted is not None or not len(segments):
        return wanted if len(segments) else None
    for rows in (segments[segments["kept"]], segments[segments["rms_dbfs"].notna()], segments):
        short = rows[rows["duration_s"] <= LISTENED_S]
        if len(rows):
            return int((short if len(short) else rows).sort_values("duration_s", kind="stable")["segment"].iloc[-1])
    return None


def _follow(trace: Trace, folder: Path) -> None:
    """Fetch and decode once more, to see what is handed on: the signal's outline, and one segment's samples."""
    config, row = trace.found.config, trace.chosen
    # Of a video without segments its beginning is looked at.
    span = Span(0.0, config.window_s) if row is None else Span(float(row["start_s"]), float(row["end_s"]))
    with closing(fetch(trace.found.video, folder)) as source:
        trace.source = source
        trace.media = media.probe(source, config)
        decoded = trace.outline.of(media.decode(source, trace.media, config), trace.media.sample_rate_hz)
        (clip,) = cut(trace.found.video.video_id, decoded, [span], trace.media.sample_rate_hz, config)
        trace.clip = clip if clip.frames else None
