"""Take one video through the stages again and keep the intermediate results.

The results come from `process_shard` itself, run in a scratch folder, so the report always shows the real pipeline. The
intermediate results come from the functions of its stages. Memory is bounded: only the envelope of the decoded signal
and the samples of one segment are kept.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from audiopipe.config import RunConfig
from audiopipe.dataset.schema import object_names
from audiopipe.errors import AudiopipeError, ConfigError
from audiopipe.kernels import INT16_FULL_SCALE
from audiopipe.media.decode import decode, probe
from audiopipe.media.encode import SUFFIXES
from audiopipe.media.fetch import Source, fetch
from audiopipe.media.sidecars import SidecarRules
from audiopipe.pipeline.shard import process_shard
from audiopipe.report.explore.video import ChosenVideo, choose_video
from audiopipe.segment.cut import cut
from audiopipe.store.objects import Store
from audiopipe.store.parquet import read_table
from audiopipe.types import Clip, DeadLetter, Media, Pcm, Span, Video

__all__ = ["EncodedSegment", "Envelope", "Trace", "VideoResult", "trace_video"]

STEP_S = 0.05
DETAIL_S = 12.0  # the default segment is at most this long; short-term loudness needs more than 3 s
Values = npt.NDArray[np.float32]


@dataclass
class Envelope:
    """The lowest and the highest sample of every `STEP_S` seconds of a signal, full scale 1.0."""

    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def record(self, blocks: Iterable[Pcm], rate_hz: int) -> Iterator[Pcm]:
        """Pass blocks through and record their envelope."""
        step = max(1, round(STEP_S * rate_hz))
        for block in blocks:
            for start in range(0, block.shape[-1], step):
                part = block[:, start : start + step]
                self.low.append(float(part.min()) / _full_scale(block))
                self.high.append(float(part.max()) / _full_scale(block))
            self.seconds += block.shape[-1] / rate_hz
            yield block


def _full_scale(pcm: Pcm) -> float:
    return INT16_FULL_SCALE if pcm.dtype == np.int16 else 1.0


@dataclass(frozen=True)
class EncodedSegment:
    """A kept segment in the output: encoded audio, its JSON in the tar and its row of the manifest."""

    audio: bytes
    sidecar: Mapping[str, object]
    manifest: Mapping[str, object]


@dataclass(frozen=True)
class VideoResult:
    """The output of a shard of this video: its table rows, and the chosen segment if that was kept.

    `segments` is indexed by the segments' numbers.
    """

    segments: pd.DataFrame
    video: Mapping[str, object]
    encoded: EncodedSegment | None = None


@dataclass
class Trace:
    """The results of one video, as far as it got.

    `failure` is where it stopped and why, None for a video that passes. `segment` is the number of the segment to show
    in detail and `clip` its samples; None if the segment does not exist.
    """

    chosen: ChosenVideo
    source: Source | None = None
    media: Media | None = None
    envelope: Envelope = field(default_factory=Envelope)
    segment: int | None = None
    clip: Clip | None = None
    result: VideoResult | None = None
    failure: DeadLetter | None = None

    @property
    def video(self) -> Video:
        return self.chosen.video

    @property
    def config(self) -> RunConfig:
        return self.chosen.config

    @property
    def segments(self) -> pd.DataFrame:
        return self.result.segments if self.result else pd.DataFrame()

    @property
    def row(self) -> pd.Series | None:
        """Return the table row of the segment to show in detail, None if the video has no rows."""
        rows = self.segments[self.segments.index == self.segment]
        return rows.iloc[0] if len(rows) else None

    @property
    def encoded(self) -> EncodedSegment | None:
        return self.result.encoded if self.result else None

    @property
    def signal(self) -> Values:
        """Return the mean of the segment's channels, [T] at the source's rate, full scale 1.0."""
        assert self.clip is not None
        mono: Values = (self.clip.pcm.astype(np.float32) / _full_scale(self.clip.pcm)).mean(0)
        return mono


def trace_video(
    output: str | None = None,
    catalog: str | None = None,
    source_prefix: str | None = None,
    youtube_id: str = "",
    segment: int | None = None,
) -> Trace:
    """Take one video through the stages. An error of the video becomes part of the trace and is not raised.

    Args:
        segment: the number of the segment to show in detail; the longest kept one of up to 12 s by default.

    Raises:
        ConfigError: the video or the segment does not exist.
        CatalogError, PlanError, VerifyError: the catalog or the output cannot be read.
    """
    trace = Trace(choose_video(output, catalog, source_prefix, youtube_id))
    with tempfile.TemporaryDirectory(prefix="explore-") as folder:
        try:
            _process(trace, Path(folder), segment)
            _decode_segment(trace, Path(folder))
        except AudiopipeError as error:
            if isinstance(error, ConfigError):
                raise
            trace.failure = trace.failure or _dead_letter(trace.video, error)
    return trace


def _dead_letter(video: Video, error: AudiopipeError) -> DeadLetter:
    """Describe an error as the pipeline does. An error of the store, which is not the video's, is retriable too."""
    stage = getattr(error, "stage", "fetch")
    return DeadLetter(video.video_id, video.language, stage, type(error).__name__, str(error), retriable=True)


def _process(trace: Trace, folder: Path, segment: int | None) -> None:
    """Process a shard of the video alone, in the scratch folder."""
    shard = trace.chosen.shard
    config = trace.config.model_copy(update={"output": str(folder / "out"), "scratch": None})
    letters = process_shard(shard, config, "explore").dead_letters
    trace.failure = letters[0] if letters else None
    store, names = Store(config.output), object_names(shard.language, shard.index)
    segments: pd.DataFrame = read_table(store.read(names["segments"])).to_pandas().set_index("segment", drop=False)
    if segment is not None and len(segments) and segment not in segments.index:
        raise ConfigError(f"parameter 'segment' {segment}: the video has segments 0 to {len(segments) - 1}")
    video = read_table(store.read(names["videos"])).to_pylist()[0]
    trace.result, trace.segment = VideoResult(segments, video), _default_segment(segments, segment)
    if trace.row is not None and trace.row["kept"]:
        encoded = _read_encoded(store, names, str(trace.row["key"]), SUFFIXES[config.audio_format])
        trace.result = VideoResult(segments, video, encoded)


def _read_encoded(store: Store, names: Mapping[str, str], key: str, suffix: str) -> EncodedSegment:
    with tarfile.open(fileobj=io.BytesIO(store.read(names["audio"]))) as tar:
        audio, sidecar = (tar.extractfile(key + ending) for ending in (suffix, ".json"))
        assert audio is not None
        assert sidecar is not None
        rows = map(json.loads, store.read(names["manifest"]).decode().splitlines())
        manifest = next(row for row in rows if row["audio_filepath"] == key + suffix)
        return EncodedSegment(audio.read(), json.loads(sidecar.read()), manifest)


def _default_segment(segments: pd.DataFrame, segment: int | None) -> int | None:
    """Return `segment`, else the longest kept, measured or other one of up to `DETAIL_S`; None if there are none."""
    if segment is not None or not len(segments):
        return segment if len(segments) else None
    for rows in (segments[segments["kept"]], segments[segments["rms_dbfs"].notna()], segments):
        short = rows[rows["duration_s"] <= DETAIL_S]
        if len(rows):
            return int((short if len(short) else rows).sort_values("duration_s", kind="stable")["segment"].iloc[-1])
    return None


def _decode_segment(trace: Trace, folder: Path) -> None:
    """Fetch and decode the video again to get the envelope of the signal and the samples of one segment."""
    config, row = trace.config, trace.row
    # A video without segments is shown from its beginning.
    span = Span(0.0, config.window_s) if row is None else Span(float(row["start_s"]), float(row["end_s"]))
    with closing(
        fetch(trace.video, folder, SidecarRules(config.segments, config.caption_tags), config.max_source_mb)
    ) as source:
        trace.source = source
        trace.media = probe(source, config)
        rate_hz = trace.media.sample_rate_hz
        blocks = trace.envelope.record(decode(source, trace.media, config), rate_hz)
        (clip,) = cut(trace.video.video_id, blocks, [span], rate_hz, config)
        trace.clip = clip if clip.frames else None
