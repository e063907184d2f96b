"""Read what the kernels' source says about metrics, without importing them: torch takes seconds."""

from __future__ import annotations

import ast
import inspect
import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

__all__ = ["MetricDocument", "document_metric"]

# The modules whose function of the same name computes the fields of a class; `loudness` computes all other metrics.
GROUPS = {"levels": "Levels", "spectral": "Spectral"}
OTHERS = "loudness"


@dataclass(frozen=True)
class MetricDocument:
    """The file of the kernel that computes a metric, and the lines of its docstring on the metric."""

    source: str
    lines: tuple[str, ...]


def document_metric(metric: str) -> MetricDocument:
    """Return the lines of a kernel's `Returns` section on a metric and on values that do not exist."""
    module = next((name for name, group in GROUPS.items() if metric in _fields(name, group)), OTHERS)
    section = re.search(r"^Returns:\n(.*?)(?=^\S)", _docstring(module), re.DOTALL | re.MULTILINE)
    items = re.split(r"\n(?=- )|\n\n", inspect.cleandoc(section[1])) if section else []
    names = re.compile(rf"\b{metric}\b")
    matches = [item for item in items if not item.startswith("- ") or names.search(item.partition(":")[0])]
    lines = tuple(" ".join(item.removeprefix("- ").split()) for item in matches)
    return MetricDocument(f"audiopipe/kernels/{module}.py", lines)


@cache
def _parse(module: str) -> ast.Module:
    return ast.parse(files("audiopipe").joinpath("kernels", f"{module}.py").read_text(encoding="utf-8"))


def _docstring(module: str) -> str:
    """Return the docstring of a module's function of the same name."""
    functions = [item for item in _parse(module).body if isinstance(item, ast.FunctionDef) and item.name == module]
    return ast.get_docstring(functions[-1]) or "" if functions else ""


def _fields(module: str, group: str) -> set[str]:
    """Return the annotated names of a class."""
    (body,) = [item.body for item in _parse(module).body if isinstance(item, ast.ClassDef) and item.name == group]
    return {item.target.id for item in body if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)}
