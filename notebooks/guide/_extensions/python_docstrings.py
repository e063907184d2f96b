"""Render docstrings and help texts as they are meant: an indented example is code, and a star is a star."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from sphinx.application import Sphinx

SECTION = re.compile(r"^\s*(Args|Attributes|Precision|Raises|Returns|Shape|Yields):$")
INDENT = 4


def mark_examples(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines, with `::` before each indented block that follows an empty line."""
    section = example = False
    for number, line in enumerate(lines):
        is_indented = line.startswith(" " * INDENT)
        if line and not is_indented:
            section, example = bool(SECTION.match(line)), False
        starts = is_indented and number > 0 and not lines[number - 1].strip()
        if starts and not section and not example:
            yield from ("::", "")
            example = True
        yield line.replace("[*", r"[\*")  # any dimensions, not emphasis


def render(app: Sphinx, kind: str, name: str, item: object, options: object, lines: list[str]) -> None:
    """Rewrite the lines of a docstring in place."""
    lines[:] = mark_examples(lines)


def escape_stars(app: Sphinx, context: object, lines: list[str]) -> None:
    """Escape the stars of names such as `segments_*.parquet` in the help of a command, in place."""
    lines[:] = [line.replace("*", r"\*").replace("_\\", r"\_\\") for line in lines]


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect: to docstrings before napoleon, which reads the sections, and to all texts of commands."""
    app.connect("autodoc-process-docstring", render, priority=100)
    for part in ("description", "options", "arguments", "epilog"):
        app.connect(f"sphinx-click-process-{part}", escape_stars)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
