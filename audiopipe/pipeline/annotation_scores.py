"""Collect the scores of a shard's segments, complete them video by video, and make the tables of annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import pyarrow as pa

from audiopipe.dataset.annotations import KEYS, AnnotationRecord, annotation_schema
from audiopipe.dataset.shard_samples import SegmentRow
from audiopipe.pipeline.scorers import Scores, finish_video
from audiopipe.pipeline.timing import StageTimer
from audiopipe.scorers.registry import stored_columns
from audiopipe.scorers.scorer import Column, Scorer

__all__ = ["AnnotationScores", "scorer_record"]


def scorer_record(entry: str, scorer: Scorer, options: str = "") -> AnnotationRecord:
    """Describe the annotation that a scorer makes.

    Args:
        entry: the scorer as `scorers` lists it; of the file of a network the name is recorded, without its folder.
        options: of the command, that change the values.
    """
    label = _label_column(scorer, options)
    columns = (*stored_columns([scorer]), *([label] if label else []))
    source = {"scorer": PurePosixPath(entry).name, **({"options": options} if options else {})}
    return AnnotationRecord(scorer.name, scorer.version, columns, source)


def _label_column(scorer: Scorer, options: str) -> Column | None:
    """Return the column for the speakers that a scorer fills in: a committed table cannot change.

    A scorer of another package may fill them in if it has `finish_video`.
    """
    description = "speaker of the source, else the label that the scorer has given"
    if scorer.name == "speakers":
        return Column("speaker_label", "string", "", description) if "--speaker-labels" in options else None
    if not _finishes(scorer):
        return None
    return Column(f"{scorer.name.replace('-', '_')}_speaker_label", "string", "", description)


def _finishes(scorer: Scorer) -> bool:
    return type(scorer).finish_video is not Scorer.finish_video


class AnnotationScores:
    """The scores of a shard's segments. Those of a video are completed when all its segments with audio are scored.

    Args:
        records: of the annotations, one for each scorer.
    """

    def __init__(
        self,
        rows: Sequence[SegmentRow],
        scorers: Sequence[Scorer],
        records: Sequence[AnnotationRecord],
        timer: StageTimer,
    ) -> None:
        self._rows, self._timer = rows, timer
        self._scores: list[Scores] = [{} for _ in rows]
        self._videos: dict[str, list[int]] = {}
        for number, row in enumerate(rows):
            if row.has_audio:
                self._videos.setdefault(row.video_id, []).append(number)
        self._missing = Counter({video: len(numbers) for video, numbers in self._videos.items()})
        self._finishing = [
            (scorer, record) for scorer, record in zip(scorers, records, strict=True) if _finishes(scorer)
        ]
        self._unstored = [column.name for scorer in scorers for column in scorer.columns if not column.stored]

    def add(self, numbers: Iterable[int], scores: Iterable[Scores]) -> None:
        """Take the scores of some rows."""
        for number, values in zip(numbers, scores, strict=True):
            self._scores[number] = values
            video = self._rows[number].video_id
            self._missing[video] -= 1
            if not self._missing[video]:
                self._finish(self._videos[video])

    def _finish(self, numbers: Sequence[int]) -> None:
        """Complete the scores of a video's segments, which are in order."""
        scores = [self._scores[number] for number in numbers]
        speakers = [self._rows[number].speaker for number in numbers]
        for scorer, record in self._finishing:
            rows: dict[str, Sequence[object]] = {
                column.name: [values[column.name] for values in scores] for column in scorer.columns
            }
            with self._timer.measure(scorer.name, items=0):
                changed = finish_video(scorer, rows | {"speaker": speakers})
            labels = changed.pop("speaker", [None] * len(numbers))
            for name in [column.name for column in record.columns if column.name.endswith("speaker_label")]:
                changed[name] = [
                    speaker if speaker is not None else label for speaker, label in zip(speakers, labels, strict=True)
                ]
            for name, column_values in changed.items():
                for values, value in zip(scores, column_values, strict=True):
                    values[name] = value
        for values in scores:
            for name in self._unstored:
                values.pop(name, None)

    def table(self, record: AnnotationRecord) -> pa.Table:
        """Return the table of an annotation, with a row for each segment."""
        schema = annotation_schema(record.columns)
        columns: list[list[object]] = [[getattr(row, name) for row in self._rows] for name in KEYS]
        columns += [[values.get(column.name) for values in self._scores] for column in record.columns]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
        return pa.table(arrays, schema)
