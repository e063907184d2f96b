"""Find the parameters of a notebook among the cells that its kernel has executed.

papermill marks the cell of the defaults with the tag `parameters` and inserts the given values in a cell behind it,
with the tag `injected-parameters`. A kernel does not know tags. They are read from the notebook's file where it is
known, as in JupyterLab. Under papermill it is not, but the inserted cell has a certain first line, and the defaults are
just before it. Where neither shows which cell it is, the names of all cells count: a name too many is an error, but a
parameter that is not read would be a wrong run. The text of a cell is therefore free.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = ["DEFAULTS", "INJECTED", "Execution", "NotebookCell", "Place", "find_parameters"]

DEFAULTS, INJECTED = "parameters", "injected-parameters"  # papermill's tags
INJECTED_LINE = "# Parameters"  # the first line of papermill's cell
IGNORED = ("PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH")  # by `papermill --inject-paths`
Scope = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


@dataclass(frozen=True)
class NotebookCell:
    """A code cell of a notebook's file: its id, its tag of papermill, if it has one, and its source."""

    id: str | None
    tag: str | None
    source: str


@dataclass(frozen=True)
class Execution:
    """An executed cell.

    `raw` is the source as in the notebook, `code` the Python that IPython made of it; `id` is None where not known.
    """

    number: int
    raw: str
    code: str
    id: str | None = None


@dataclass(frozen=True)
class Place:
    """The place where a parameter is assigned."""

    number: int
    line: int

    def __str__(self) -> str:
        return f"line {self.line} of the cell In [{self.number}]"


def find_parameters(executed: Sequence[Execution], cells: Sequence[NotebookCell]) -> dict[str, Place]:
    """Return the names that the parameter cells assign, with their places.

    The last execution of the cell of defaults counts, and an inserted cell only if it was executed later, so that a
    corrected cell takes effect when it is executed again. Names that start with an underscore are not parameters.

    Args:
        executed: the cells before the one that reads the parameters, in the order of their execution.
        cells: the code cells of the notebook's file; empty if the file is not known.
    """
    names: dict[str, Place] = {}
    for item, tag in zip(executed, _tags(executed, cells), strict=True):
        if tag == DEFAULTS:
            names = {}
        if tag is not None:
            names |= _assigned_names(item)
    return {name: place for name, place in names.items() if not name.startswith("_") and name not in IGNORED}


def _tags(executed: Sequence[Execution], cells: Sequence[NotebookCell]) -> list[str | None]:
    """Return a tag for each execution; None if the cell has no parameters, '' if it may have some."""
    if any(cell.tag == DEFAULTS for cell in cells):
        return [_tag_in_file(item, cells) for item in executed]
    inserted = [number for number, item in enumerate(executed) if item.raw.lstrip().split("\n")[0] == INJECTED_LINE]
    if not inserted:
        return [""] * len(executed)
    last = inserted[-1]
    tags: dict[int, str] = {last - 1: DEFAULTS, last: INJECTED}
    return [tags.get(number) for number in range(len(executed))]


def _tag_in_file(item: Execution, cells: Sequence[NotebookCell]) -> str | None:
    """Return the tag of an executed cell by its id, else by its source; '' for a source that is not in the file."""
    by_id: Mapping[str, str | None] = {cell.id: cell.tag for cell in cells if cell.id is not None}
    if item.id is not None and item.id in by_id:
        return by_id[item.id]
    tags = [cell.tag for cell in cells if cell.source.strip() == item.raw.strip()]
    return tags[0] if tags else ""


def _assigned_names(item: Execution) -> dict[str, Place]:
    """Return the plain names that a cell assigns, outside functions and classes."""
    return {target.id: Place(item.number, target.lineno) for target in _targets(ast.parse(item.code))}


def _targets(node: ast.AST) -> Iterator[ast.Name]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Assign):
            yield from (name for target in child.targets for name in _names(target))
        elif isinstance(child, ast.AnnAssign | ast.AugAssign):
            yield from _names(child.target)
        if isinstance(child, ast.stmt | ast.ExceptHandler) and not isinstance(child, Scope):
            yield from _targets(child)


def _names(target: ast.expr) -> Iterator[ast.Name]:
    if isinstance(target, ast.Name):
        yield target
    elif isinstance(target, ast.Tuple | ast.List):
        for element in target.elts:
            yield from _names(element)
