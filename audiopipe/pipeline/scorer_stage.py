"""Run the learned scorers of a shard, and drop the segments that `keep_if` does not hold for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa
import torch

from audiopipe.config import RunConfig
from audiopipe.dataset.records import SegmentRecord, finite
from audiopipe.dataset.schema import METRIC_NAMES, segments_schema
from audiopipe.pipeline.score import ScoredClip
from audiopipe.pipeline.scorers import EmittedBatch, ScorerSet, finish_video, load_scorers
from audiopipe.pipeline.timing import StageTimer
from audiopipe.scorers.registry import stored_columns
from audiopipe.scorers.scorer import Column, Scorer, SegmentInfo
from audiopipe.types import Shard

if TYPE_CHECKING:
    from audiopipe.conditions import Condition  # needs DuckDB, which a machine for the GPU check lacks

__all__ = ["KeepFilter", "ScorerStage", "emitted_bytes"]


class ScorerStage:
    """Computes the columns of a run's learned scorers, batch by batch, and completes them video by video."""

    def __init__(self, shard: Shard, config: RunConfig, device: torch.device, timer: StageTimer) -> None:
        self._language, self._sample_rate, self._timer = shard.language, config.sample_rate, timer
        self._keep_dropped = config.keep_dropped
        self._set = (
            load_scorers(
                config.learned_scorers,
                device,
                speaker_labels=config.speaker_labels,
                speaker_embeddings=config.speaker_embeddings,
            )
            if config.learned_scorers
            else ScorerSet((), device)
        )
        self._finishing = [
            scorer for scorer in self._set.scorers if type(scorer).finish_video is not Scorer.finish_video
        ]
        columns = [column for scorer in self._set.scorers for column in scorer.columns]
        self._unstored = [column.name for column in columns if not column.stored]

    @property
    def is_empty(self) -> bool:
        """Return True if the run has no learned scorer."""
        return not self._set.scorers

    def score(self, clips: list[ScoredClip]) -> list[ScoredClip]:
        """Return the clips of a batch with the scores of those that have samples; dropped ones lose their samples,
        unless they are written.

        Raises:
            ScorerError, WorkerFailure: as `ScorerSet.score`.
        """
        samples = [clip.samples for clip in clips if clip.samples is not None]
        if not samples:
            return clips
        segments = [self._describe(clip, len(clip.samples)) for clip in clips if clip.samples is not None]
        scores = iter(self._set.score(EmittedBatch(samples, segments, self._sample_rate), self._timer.measure))
        return [
            replace(clip, scores=next(scores), samples=clip.samples if self._is_written(clip) else None)
            if clip.samples is not None
            else clip
            for clip in clips
        ]

    def _is_written(self, clip: ScoredClip) -> bool:
        return self._keep_dropped or clip.drop_reason is None

    def _describe(self, clip: ScoredClip, length: int) -> SegmentInfo:
        span = clip.span
        return SegmentInfo(
            clip.video_id, self._language, length / self._sample_rate, span.text, span.speaker, span.raw_text
        )

    def finish_video(self, segments: Sequence[SegmentRecord]) -> None:
        """Complete the scores of a video's segments, which are in order, and fill in `speaker`.

        Raises:
            ScorerError: as `ScorerSet.score`.
        """
        scored = [segment for segment in segments if segment.scores]
        for scorer in self._finishing if scored else ():
            rows: dict[str, Sequence[object]] = {
                column.name: [segment.scores[column.name] for segment in scored] for column in scorer.columns
            }
            with self._timer.measure(scorer.name, items=0):
                values = finish_video(scorer, rows | {"speaker": [segment.span.speaker for segment in scored]})
            for segment, speaker in zip(scored, values.pop("speaker", [None] * len(scored)), strict=True):
                if segment.span.speaker is None and speaker is not None:
                    segment.span = replace(segment.span, speaker=str(speaker))
            for name, column in values.items():
                for segment, value in zip(scored, column, strict=True):
                    segment.scores[name] = value
        for segment in scored:
            for name in self._unstored:
                segment.scores.pop(name, None)


class KeepFilter:
    """Drops the segments for which a part of `keep_if` is false; the part is the reason."""

    def __init__(
        self, condition: Condition, columns: Sequence[Column], language: str, keep_dropped: bool = False
    ) -> None:
        self._condition, self._language, self._keep_dropped = condition, language, keep_dropped
        schema = segments_schema(columns)
        self._schema = pa.schema([schema.field(name) for name in condition.columns])

    @classmethod
    def of(cls, config: RunConfig, language: str) -> KeepFilter | None:
        """Return the filter of a run; None if it has no condition."""
        condition = config.keep_condition
        if condition is None:
            return None
        return cls(condition, stored_columns(config.create_scorers()), language, config.keep_dropped)

    def apply(self, video_id: str, segments: Sequence[SegmentRecord]) -> None:
        """Drop segments of a video that are not dropped yet."""
        candidates = [segment for segment in segments if segment.drop_reason is None]
        if not candidates:
            return
        rows = [self._row(video_id, segment) for segment in candidates]
        table = pa.Table.from_pylist(rows, self._schema) if self._condition.columns else pa.table({"n": rows})
        for segment, part in zip(candidates, self._condition.find_failures(table), strict=True):
            if part is not None:
                segment.drop_reason = part
                segment.data = segment.data if self._keep_dropped else None

    def _row(self, video_id: str, segment: SegmentRecord) -> dict[str, object]:
        span = segment.span
        values: dict[str, object] = {
            "video_id": video_id,
            "language": self._language,
            "start_s": span.start_s,
            "end_s": span.end_s,
            "duration_s": segment.duration_s,
            "text": span.text,
            "speaker": span.speaker,
            "sound_event": span.sound_event,
        }
        if segment.metrics is not None:
            values |= zip(METRIC_NAMES, segment.metrics.tolist(), strict=True)
        values |= segment.scores
        return {name: finite(values.get(name)) for name in self._condition.columns}


def emitted_bytes(event: object) -> float:
    """Return the bytes of the samples of a scored batch; 0 for other events."""
    if not isinstance(event, list):
        return 0
    return float(sum(clip.samples.nbytes for clip in event if clip.samples is not None))
