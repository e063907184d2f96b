"""A notebook's parameters, found in what its kernel has executed.

papermill only warns of a parameter that the notebook does not have, and the run would go on with the default. So the
names are taken from the executed cells themselves, papermill's injected one too, and whoever gets them can refuse.
"""

from __future__ import annotations

import ast
import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from audiopipe.errors import ConfigError
from audiopipe.extras import require_extra

with require_extra("notebooks", "a notebook"):
    from IPython.core.getipython import get_ipython

__all__ = ["prepare", "read_parameters"]

MARK = "# Parameters"


def read_parameters(known: Iterable[str] | None = None) -> dict[str, Any]:
    """The names that the notebook's parameter cells assign, with their values.

    A parameter cell starts with a comment line `# Parameters`; papermill's injected one consists of that and nothing
    else, so the notebook's own should say more on that line. Of each kind the last executed counts, and an injected one
    only if it came after: whoever corrects a cell in JupyterLab and executes it again has corrected it.

    Args:
        known: the names that there may be; without, whoever takes the parameters refuses (`RunConfig.of` does).

    Raises:
        ConfigError: a name is not known, or this is no notebook.
    """
    shell = get_ipython()
    if shell is None:
        raise ConfigError(
            "parameters() reads the cells of a notebook, and this is none; call RunConfig.of(...) instead"
        )
    values = _assigned(shell.user_ns.get("In", []), shell.user_ns)
    for name in values if known is not None else ():
        if name not in (names := sorted(known or ())):
            near = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(names)}"
            raise ConfigError(f"unknown parameter '{name}': {hint}")
    return values


def _assigned(cells: Sequence[str], namespace: Mapping[str, Any]) -> dict[str, Any]:
    own: list[str] = []
    injected: list[str] = []
    for cell in cells:
        line = cell.lstrip().partition("\n")[0].strip()
        if line == MARK:
            injected = _names(cell)
        elif line.startswith(MARK):
            own, injected = _names(cell), []
    return {name: namespace[name] for name in dict.fromkeys([*own, *injected]) if name in namespace}


def _names(cell: str) -> list[str]:
    """The plain names that a cell's top level assigns."""
    found: list[str] = []
    for statement in ast.parse(cell).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        found += [target.id for target in targets if isinstance(target, ast.Name)]
    return found


def prepare() -> str:
    """Make relative paths mean the same in JupyterLab and under papermill; returns the folder that they start from.

    papermill runs a notebook where it was called. JupyterLab starts a kernel in the notebook's own folder, so there,
    and there alone, the folder above `notebooks/` is made the current one.
    """
    session, here = os.environ.get("JPY_SESSION_NAME"), Path.cwd()
    if session and Path(session).parent.name in ("", here.name) and (here.parent / "pyproject.toml").is_file():
        os.chdir(here.parent)
    return str(Path.cwd())
