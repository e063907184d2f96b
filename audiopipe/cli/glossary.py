"""What each word means that this package says: terms, errors, reasons, exit codes, metrics, parameters.

Collected from where the words are defined, so that nothing here can be out of date.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from audiopipe import errors, kernels
from audiopipe.cli.main import EXITS
from audiopipe.config import RunConfig
from audiopipe.errors import AudiopipeError, VideoError
from audiopipe.pipeline.score import RULES
from audiopipe.segment.cut import TOO_LONG, TOO_SHORT

__all__ = ["GlossaryEntry", "meanings"]


TERMS = {
    "video": "one row of the catalogue: an id, a language, and the address of a tar or of an audio file",
    "segment": "a stretch of a video, with text and speaker where known; what is measured, kept or dropped",
    "catalogue": "the list of videos: a table, a folder, or a database",
    "plan": "which video is in which shard, decided once and kept in the output below _plan/",
    "shard": "a list of videos that one worker takes as one task; it becomes one tar and is committed as a whole",
    "partition": "the videos that one of several independent drivers takes, by a hash of their ids",
    "attempt": "one try of a worker at a shard; of several, one becomes the shard",
    "commit": "the small file in _commits/ that makes an attempt the shard, with the sizes and sha256 of its objects",
    "dead_letter": "a video that failed for good: left out, kept in videos_*.parquet with its reason, tried by retry",
    "manifest": "NVIDIA NeMo's list of a tar's samples, with their texts and durations",
    "ledger": "the database of a run's progress, for people to look at; what is done is decided by commits alone",
    "driver": "the process that hands the shards of a run to workers: the command, or the notebook's kernel",
    "generation": "a part of the plan that was added later, by audiopipe extend or retry",
}


@dataclass(frozen=True)
class GlossaryEntry:
    """A word, what kind of word it is, what it means, and what to do about it if anything."""

    word: str
    kind: str
    text: str
    remedy: str | None = None


def meanings() -> list[GlossaryEntry]:
    """All words that `audiopipe explain` knows. A word can be there twice, as a metric and as a parameter."""
    return [*_terms(), *_exit_codes(), *_errors(), *_drop_reasons(), *_metrics(), *_parameters()]


def _terms() -> Iterator[GlossaryEntry]:
    for word, text in TERMS.items():
        yield GlossaryEntry(word, "term", text)


def _exit_codes() -> Iterator[GlossaryEntry]:
    for code, (text, remedy) in EXITS.items():
        yield GlossaryEntry(str(code), "exit code", text, remedy)


def _errors() -> Iterator[GlossaryEntry]:
    for name in errors.__all__:
        kind: type[AudiopipeError] = getattr(errors, name)
        if issubclass(kind, VideoError):
            what = f"dead letter (a video that failed for good, found at '{kind.stage}')"
        else:
            what = f"error (exit code {kind.exit_code})"
        yield GlossaryEntry(name, what, (inspect.getdoc(kind) or "").partition("\n")[0], kind.remedy)


def _drop_reasons() -> Iterator[GlossaryEntry]:
    for reason, metric, field, breaks in RULES:
        side = "below" if breaks(0.0, 1.0) else "above"
        text = f"its {metric} is {side} {field} (default {RunConfig.model_fields[field].default})"
        yield GlossaryEntry(reason, "drop reason of a segment", text, _softer(field))
    for reason, field in ((TOO_SHORT, "min_segment_s"), (TOO_LONG, "max_segment_s")):
        text = f"{RunConfig.model_fields[field].description} (default {RunConfig.model_fields[field].default} s)"
        yield GlossaryEntry(reason, "drop reason of a segment", text, _softer(field))


def _softer(field: str) -> str:
    flag = f"--{field.replace('_', '-')}"
    return f"see in quality.ipynb what another limit would keep, then run into another output with {flag} VALUE"


def _metrics() -> Iterator[GlossaryEntry]:
    limits = {metric: field for _, metric, field, _ in reversed(RULES)}
    for name, (unit, description) in kernels.METRICS.items():
        home = _home(name)
        lines = [
            f"{description}; unit {unit}",
            *_returns(home, name),
            f"source: {home.__module__.replace('.', '/')}.py",
        ]
        if name in limits:
            lines.append(f"threshold: {limits[name]}")
        yield GlossaryEntry(name, "metric", "\n".join(lines))


def _home(metric: str) -> Any:
    """The kernel that computes a metric and documents it."""
    for kernel, group in ((kernels.levels, kernels.Levels), (kernels.spectral, kernels.Spectral)):
        if metric in group.__annotations__:
            return kernel
    return kernels.loudness


def _returns(kernel: Any, metric: str) -> list[str]:
    """What a kernel's docstring says of this value, and of where values do not exist."""
    section = re.search(r"^Returns:\n(.*?)(?=^\S)", inspect.getdoc(kernel) or "", re.DOTALL | re.MULTILINE)
    items = re.split(r"\n(?=- )|\n\n", inspect.cleandoc(section[1])) if section else []
    mine = [item for item in items if not item.startswith("- ") or metric in item.partition(":")[0]]
    return [" ".join(item.removeprefix("- ").split()) for item in mine]


def _parameters() -> Iterator[GlossaryEntry]:
    for name, info in RunConfig.model_fields.items():
        default = "must be given" if info.is_required() else f"default {info.default}"
        scope = "the dataset depends on it" if info.json_schema_extra else "where and how, not what comes out"
        yield GlossaryEntry(name, "parameter", f"{info.description} ({default}; {scope})")
