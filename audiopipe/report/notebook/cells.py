"""Read the parameters of a notebook from the cells that its kernel has executed.

papermill only warns about a parameter that the notebook does not have, and the run would use the default. The names are
therefore read from the executed cells, papermill's inserted cell included, so that an unknown name can be an error.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from audiopipe.config import RunConfig
from audiopipe.errors import ConfigError
from audiopipe.extras import require_extra
from audiopipe.parameter_messages import describe_unknown
from audiopipe.report.notebook.parameters import DEFAULTS, INJECTED, Execution, NotebookCell, find_parameters

with require_extra("notebooks", "a notebook"):
    from IPython.core.getipython import get_ipython

__all__ = ["JUPYTERLAB", "prepare", "read_config", "read_parameters"]

JUPYTERLAB = "JPY_SESSION_NAME"  # path of the notebook, in the kernels that a Jupyter server starts
VISUAL_STUDIO_CODE = "__vsc_ipynb_file__"  # path of the notebook, in the namespace of its kernels
START_FOLDER = Path.cwd()  # that of the notebook, until `prepare` changes it
# The ids of cells by the number of their execution, from the import of this module on; Jupyter servers send them.
_CELL_IDS: dict[int, str] = {}


def read_parameters(known: Collection[str] | None = None) -> dict[str, object]:
    """Return the names that the notebook's parameter cells assign, with their values (`parameters.find_parameters`).

    Args:
        known: the valid names; without them, the caller must check the names, as `RunConfig.of` does.

    Raises:
        ConfigError: a name is unknown, and the message names its cell; or this code does not run in a notebook.
    """
    shell = get_ipython()
    if shell is None:
        raise ConfigError("read_parameters() works only in a notebook; in a script, call RunConfig.of(...) instead")
    places = find_parameters(_executed_cells(shell), _read_cells(shell))
    for name, place in places.items():
        if known is not None and name not in known:
            hint = "a variable that is not a parameter must start with '_'"
            raise ConfigError(f"{place}: {describe_unknown(name, known)} ({hint})")
    return {name: shell.user_ns[name] for name in places if name in shell.user_ns}


def read_config() -> RunConfig:
    """Build the config of a run from the notebook's parameter cells.

    Raises:
        ConfigError: a parameter is unknown or invalid; the message names the cell.
    """
    values = read_parameters(known=RunConfig.model_fields)
    try:
        return RunConfig.of(**values)
    except ConfigError as error:
        raise ConfigError(
            f"{error} (in the cell with the tag '{DEFAULTS}', or in that of papermill behind it)"
        ) from None


def _executed_cells(shell: Any) -> list[Execution]:
    """List the cells that were executed before the current one."""
    if _record_id not in shell.events.callbacks["pre_run_cell"]:
        shell.events.register("pre_run_cell", _record_id)
    history = shell.history_manager
    pairs = list(zip(history.input_hist_raw, history.input_hist_parsed, strict=True))[:-1]
    return [Execution(number, raw, code, _CELL_IDS.get(number)) for number, (raw, code) in enumerate(pairs) if raw]


def _record_id(info: Any) -> None:
    """Record the id of the cell that is about to be executed."""
    shell: Any = get_ipython()
    if info.store_history and getattr(info, "cell_id", None) is not None:
        _CELL_IDS[len(shell.history_manager.input_hist_raw)] = str(info.cell_id)


def _read_cells(shell: Any) -> list[NotebookCell]:
    """Read the code cells of the notebook's file; return nothing if it is not known."""
    named = shell.user_ns.get(VISUAL_STUDIO_CODE) or os.environ.get(JUPYTERLAB, "")
    for path in (Path(named), START_FOLDER / Path(named).name) if named else ():
        if path.suffix == ".ipynb" and path.is_file():
            try:
                cells = json.loads(path.read_bytes())["cells"]
            except (OSError, ValueError, KeyError):
                continue
            return [_to_cell(cell) for cell in cells if cell["cell_type"] == "code"]
    return []


def _to_cell(cell: dict[str, Any]) -> NotebookCell:
    tags = cell.get("metadata", {}).get("tags", ())
    tag = next((tag for tag in (DEFAULTS, INJECTED) if tag in tags), None)
    source = cell["source"]
    return NotebookCell(cell.get("id"), tag, source if isinstance(source, str) else "".join(source))


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
