"""Read the parameters of a notebook from the cells that its kernel has executed.

papermill only warns about a parameter that the notebook does not have, and the run would use the default. The names are
therefore read from the executed cells, papermill's injected cell included, so that an unknown name can be an error.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from audiopipe.errors import ConfigError
from audiopipe.extras import require_extra
from audiopipe.parameter_messages import describe_unknown

with require_extra("notebooks", "a notebook"):
    from IPython.core.getipython import get_ipython

__all__ = ["JUPYTERLAB", "prepare", "read_parameters"]

MARK = "# Parameters"
JUPYTERLAB = "JPY_SESSION_NAME"  # set in the kernels that a Jupyter server starts


def read_parameters(known: Collection[str] | None = None) -> dict[str, object]:
    """Return the names that the notebook's parameter cells assign, with their values.

    A parameter cell starts with a comment line `# Parameters`. The line of papermill's injected cell has nothing more;
    that of the notebook's cell must have more. The last executed cell of each kind counts, and an injected cell only if
    it came later, so that a corrected cell takes effect when it is executed again in JupyterLab.

    Args:
        known: the valid names; without them, the caller must check the names, as `RunConfig.of` does.

    Raises:
        ConfigError: a name is unknown, or this code does not run in a notebook.
    """
    shell = get_ipython()
    if shell is None:
        raise ConfigError("read_parameters() works only in a notebook; in a script, call RunConfig.of(...) instead")
    values = _assigned_values(shell.user_ns.get("In", []), shell.user_ns)
    for name in values:
        if known is not None and name not in known:
            raise ConfigError(describe_unknown(name, known))
    return values


def _assigned_values(cells: Sequence[str], namespace: Mapping[str, object]) -> dict[str, object]:
    defaults: list[str] = []
    injected: list[str] = []
    for cell in cells:
        line = cell.lstrip().partition("\n")[0].strip()
        if line == MARK:
            injected = _assigned_names(cell)
        elif line.startswith(MARK):
            defaults, injected = _assigned_names(cell), []
    return {name: namespace[name] for name in dict.fromkeys([*defaults, *injected]) if name in namespace}


def _assigned_names(cell: str) -> list[str]:
    """List the plain names that a cell assigns at its top level."""
    names: list[str] = []
    for statement in ast.parse(cell).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return names


def prepare() -> str:
    """Give relative paths the same meaning in JupyterLab and under papermill; return the folder that they start from.

    papermill runs a notebook in the folder where it is called. JupyterLab starts a kernel in the notebook's folder. In
    JupyterLab in a checkout of this repository, the working directory is therefore changed to the folder above
    `notebooks/`.
    """
    session, folder = os.environ.get(JUPYTERLAB), Path.cwd()
    if session and Path(session).parent.name in ("", folder.name) and (folder.parent / "pyproject.toml").is_file():
        os.chdir(folder.parent)
    return str(Path.cwd())
