"""Fill in what the code knows: a line `<!-- generated: NAME -->` of a page becomes Markdown made from the glossary.

The glossary is that of `audiopipe explain`, so a page cannot say anything else than the command.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from audiopipe import errors
from audiopipe.cli.glossary import GlossaryEntry, glossary
from audiopipe.config import RunConfig
from audiopipe.errors import TransientVideoError, VideoError

if TYPE_CHECKING:
    from sphinx.application import Sphinx

PLACE = re.compile(r"^<!-- generated: ([a-z-]+)(?: (\w+))? -->$", re.MULTILINE)


@functools.cache
def entries() -> tuple[GlossaryEntry, ...]:
    """Return the glossary, read once."""
    return tuple(glossary())


def column(name: str) -> Iterator[str]:
    """Describe a column of segments: meaning, unit, missing values, source."""
    entry = next(entry for entry in entries() if entry.word == name and entry.kind in ("metric", "column"))
    meaning, *details = entry.text.split("\n")
    description, _, unit = meaning.partition("; unit ")
    yield f"{_sentence(description)}" + (f" Unit: {'none' if unit == '1' else unit}." if unit else "")
    yield ""
    for detail in details:
        key, separator, value = detail.partition(": ")
        if not separator or " " in key:
            yield f"- {_sentence(_code(detail))}"
        elif key == "threshold":
            yield f"- Threshold: `{value}`, by default {_default(value)}."
        elif key in ("range", "type"):
            yield f"- {key.capitalize()}: {value}."
        elif key == "source":
            yield f"- Computed by `{value}`."
        elif key not in ("scorer", name):
            yield f"- `{key}`: {_code(value)}."
        elif key == name:
            yield f"- {_sentence(_code(value))}"


def error_pages(group: str) -> Iterator[str]:
    """Describe the errors of a group by name: `video`, `attempt`, or the exit code of a run."""
    for entry in entries():
        error = getattr(errors, entry.word, None) if entry.word in errors.__all__ else None
        if error is None or _group_of(error) != group:
            continue
        is_of_stage = issubclass(error, VideoError | TransientVideoError) and error.stage != "unknown"
        stage = f" *(stage {error.stage})*" if is_of_stage else ""
        yield from (f"### {entry.word}", "", _code(entry.text) + stage, "")
        yield from (f"**What to do.** {_sentence(_code(entry.remedy or ''))}", "")


def terms(kind: str) -> Iterator[str]:
    """Describe the words of a kind: `term`, `drop`, `exit`."""
    for entry in entries():
        if entry.kind.startswith(kind):
            yield f"[`{entry.word}`]{{#{kind}-{entry.word.replace('_', '-')}}}"
            remedy = f" *What to do:* {_code(entry.remedy)}." if entry.remedy and entry.remedy != "nothing" else ""
            yield f": {_sentence(_code(entry.text))}{remedy}\n"


def columns(table: str) -> Iterator[str]:
    """Describe the columns of a table of an output: `segments`, `selections` or `videos`."""
    yield from ("| column | meaning |", "| --- | --- |")
    for entry in entries():
        if entry.kind == f"column of {table}":
            yield f"| `{entry.word}` | {_code(entry.text)} |"


def parameters(scope: str) -> Iterator[str]:
    """Describe the parameters that change the `dataset`, or only the `run`."""
    for name, info in RunConfig.model_fields.items():
        if bool(info.json_schema_extra) == (scope == "dataset"):
            yield f"[`{name}`]{{#parameter-{name.replace('_', '-')}}}"
            yield f": {_sentence(_code(info.description or ''))} Default: {_default(name)}.\n"


def _group_of(error: type[errors.AudiopipeError]) -> str:
    if issubclass(error, VideoError):
        return "video"
    return "attempt" if issubclass(error, TransientVideoError) else f"exit_{error.exit_code}"


def _default(field: str) -> str:
    info = RunConfig.model_fields[field]
    return "none; it is required" if info.is_required() else f"`{info.default}`"


def _sentence(text: str) -> str:
    head = text if text[:2].upper() == text[:2] or text[:1] in "`-" else text[:1].upper() + text[1:]
    return head if head.endswith((".", "!", ":")) else f"{head}."


def _code(text: str) -> str:
    """Mark the names of parameters and of options as code, where they are not yet."""
    parts = re.split(r"(`[^`]*`)", text)
    names = re.compile(
        rf"(?<![\w`-])(--[a-z][\w-]+(?: VALUE)?|\w+(?:_\w+)+|_\w+/|\w+_\*\.\w+|{'|'.join(errors.__all__)})(?![\w`])"
    )
    return "".join(part if part.startswith("`") else names.sub(r"`\1`", part) for part in parts)


GENERATORS: dict[str, Callable[[str], Iterator[str]]] = {
    "column": column,
    "columns": columns,
    "errors": error_pages,
    "terms": terms,
    "parameters": parameters,
}


def fill_in(text: str) -> str:
    """Replace each place in a page by the text that it names.

    Raises:
        KeyError: a place names no generator.
        StopIteration: a place names no column.
    """
    return PLACE.sub(lambda place: "\n".join(GENERATORS[place[1]](place[2] or "")), text)


def replace_places(app: Sphinx, page: str, source: list[str]) -> None:
    """Fill in the source of a page in place."""
    source[0] = fill_in(source[0])


def list_all_pages(app: Sphinx, env: Any, added: set[str], changed: set[str], removed: set[str]) -> set[str]:
    """Return all pages that are not new: they depend on code, so each build reads all of them."""
    return set(env.found_docs) - added


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to the reading of each page."""
    app.connect("source-read", replace_places)
    app.connect("env-get-outdated", list_all_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
