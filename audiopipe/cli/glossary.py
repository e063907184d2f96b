"""Collect the glossary of `audiopipe explain`: terms, errors, drop reasons, exit codes, metrics, scorers, parameters.

Each entry is read from the place that defines the word, so that the glossary cannot be out of date.
"""

from __future__ import annotations

import inspect
import itertools
import operator
from collections.abc import Iterator
from dataclasses import dataclass

from audiopipe import errors
from audiopipe.cli.kernel_documents import document_metric
from audiopipe.cli.main import EXITS
from audiopipe.config import RunConfig
from audiopipe.dataset.column_meanings import SEGMENT_COLUMNS, SELECTION_COLUMNS, VIDEO_COLUMNS
from audiopipe.errors import AudiopipeError, TransientVideoError, VideoError
from audiopipe.metrics import METRICS
from audiopipe.pipeline.drop_rules import MAX_PEAK_DBFS, NOT_FINITE, RULES
from audiopipe.scorers.registry import known_columns
from audiopipe.scorers.scorer import Column, Scorer
from audiopipe.segment.drop_reasons import BAD_TIMES, PAST_END, TOO_LONG, TOO_SHORT

__all__ = ["GlossaryEntry", "glossary"]

TERMS = {
    "video": "one row of the catalog: an id, a language, and the address of a tar or of an audio file",
    "segment": "a time range of a video, with text and speaker where known; the unit that is measured, kept or dropped",
    "catalog": "the list of videos: a table, a folder, or a database",
    "scorer": "a named, versioned function that adds columns to segments; chosen by the parameter scorers",
    "annotation": "columns added to a dataset after its run, by audiopipe annotate; tables in _annotations/",
    "selection": "a dataset made by audiopipe select from segments of another one, its parent, without encoding",
    "export": "a copy of a finished dataset in a format of trainers, made by audiopipe export",
    "plan": "the assignment of videos to shards, decided once and stored in the output below _plan/",
    "shard": "a list of videos that one worker processes as one task; it becomes one tar and is committed as a whole",
    "partition": "the videos that one of several independent drivers processes, chosen by a hash of their ids",
    "attempt": "one try of a worker to process a shard; the first attempt to commit becomes the shard",
    "commit": "the small file in _commits/ that makes an attempt the shard, with the sizes and sha256 of its objects",
    "dead_letter": "a video that failed permanently: left out of the tars, listed in videos_*.parquet with the reason",
    "manifest": "the list of a tar's samples in NVIDIA NeMo's format, with their texts and durations",
    "ledger": "the database of a run's progress, for people to read; commits alone decide which shards are done",
    "driver": "the process that submits the shards of a run to workers: the command, or the notebook's kernel",
    "generation": "a part of the plan that audiopipe extend or retry added later",
    "estimate": "the forecast of a run's time and cost, made by audiopipe estimate",
    "duplicate": "a video that has the audio of another one, such as a re-upload; listed in duplicates.parquet",
    "card": "README.md of a dataset: totals, columns, and how to load it",
    "sidecar": "a file next to the audio of the same name: captions or JSON of a source, JSON of a sample in a tar",
}


@dataclass(frozen=True)
class GlossaryEntry:
    """A word, its kind, its meaning, and what to do about it, if anything."""

    word: str
    kind: str
    text: str
    remedy: str | None = None


def glossary() -> list[GlossaryEntry]:
    """Return all words that `audiopipe explain` knows; a word can have several, as a metric and a parameter."""
    known = (_terms(), _exit_codes(), _errors(), _drop_reasons(), _metrics(), _scorers(), _parameters(), _columns())
    return [*itertools.chain.from_iterable(known)]


def _terms() -> Iterator[GlossaryEntry]:
    for word, text in TERMS.items():
        yield GlossaryEntry(word, "term", text)


def _exit_codes() -> Iterator[GlossaryEntry]:
    for code, item in EXITS.items():
        yield GlossaryEntry(str(code), "exit code", item.meaning, item.remedy)


def _errors() -> Iterator[GlossaryEntry]:
    for name in errors.__all__:
        error: type[AudiopipeError] = getattr(errors, name)
        if issubclass(error, VideoError):
            kind = f"dead letter (a video that failed permanently, at stage '{error.stage}')"
        elif issubclass(error, TransientVideoError):
            kind = f"error (exit code {error.exit_code}), or dead letter of the last attempt, at stage '{error.stage}'"
        else:
            kind = f"error (exit code {error.exit_code})"
        yield GlossaryEntry(name, kind, (inspect.getdoc(error) or "").partition("\n")[0], error.remedy)


def _drop_reasons() -> Iterator[GlossaryEntry]:
    for reason, metric, field, breaks in RULES:
        side = "below" if breaks(0.0, 1.0) else "above"
        text = f"its {metric} is {side} {field} (default {RunConfig.model_fields[field].default})"
        yield GlossaryEntry(reason, "drop reason of a segment", text, _limit_remedy(field))
    text = f"it has a sample that is not a number, or more than {MAX_PEAK_DBFS:g} dB above full scale"
    yield GlossaryEntry(NOT_FINITE, "drop reason of a segment", text, "decode the file again from its source")
    text = "its times are not numbers, or end before they start, or before the audio starts"
    yield GlossaryEntry(BAD_TIMES, "drop reason of a segment", text, "correct its times in the JSON or the captions")
    text = "it starts after the end of the audio, or a part of its text lies there"
    yield GlossaryEntry(PAST_END, "drop reason of a segment", text, "check that the captions belong to this audio")
    for reason, field in ((TOO_SHORT, "min_segment_s"), (TOO_LONG, "max_segment_s")):
        text = f"{RunConfig.model_fields[field].description} (default {RunConfig.model_fields[field].default} s)"
        yield GlossaryEntry(reason, "drop reason of a segment", text, _limit_remedy(field))


def _scorers() -> Iterator[GlossaryEntry]:
    """Yield the scorers that are installed, with their columns; the metrics of `signal` have entries already."""
    for scorer, columns in itertools.groupby(known_columns(), key=operator.itemgetter(0)):
        named = [column for _, column in columns]
        summary = (inspect.getdoc(scorer) or "").partition("\n")[0]
        listed = ", ".join(column.name for column in named)
        yield GlossaryEntry(scorer.name, "scorer", f"{summary}\nversion: {scorer.version}\ncolumns: {listed}")
        for column in named if scorer.name != "signal" else ():
            yield GlossaryEntry(column.name, "column", "\n".join(_describe_column(scorer, column)))


def _describe_column(scorer: Scorer, column: Column) -> Iterator[str]:
    yield column.description + (f"; unit {column.unit}" if column.unit else "")
    if column.minimum is not None or column.maximum is not None:
        low, high = ("any" if limit is None else f"{limit:g}" for limit in (column.minimum, column.maximum))
        yield f"range: {low} to {high}"
    yield f"type: {column.type}"
    yield f"scorer: {scorer.name} {scorer.version}"


def _limit_remedy(field: str) -> str:
    flag = f"--{field.replace('_', '-')}"
    return f"try other limits in quality.ipynb, then run into another output with {flag} VALUE"


def _metrics() -> Iterator[GlossaryEntry]:
    limits = {metric: field for _, metric, field, _ in reversed(RULES)}
    for name, (unit, description) in METRICS.items():
        document = document_metric(name)
        lines = [f"{description}; unit {unit}", *document.lines, f"source: {document.source}"]
        if name in limits:
            lines.append(f"threshold: {limits[name]}")
        yield GlossaryEntry(name, "metric", "\n".join(lines))


def _columns() -> Iterator[GlossaryEntry]:
    tables = {"segments": SEGMENT_COLUMNS, "selections": SELECTION_COLUMNS, "videos": VIDEO_COLUMNS}
    for table, columns in tables.items():
        for name, text in columns.items():
            yield GlossaryEntry(name, f"column of {table}", text)


def _parameters() -> Iterator[GlossaryEntry]:
    for name, info in RunConfig.model_fields.items():
        default = "required" if info.is_required() else f"default {info.default}"
        scope = "changes the dataset" if info.json_schema_extra else "does not change the dataset"
        yield GlossaryEntry(name, "parameter", f"{info.description} ({default}; {scope})")
