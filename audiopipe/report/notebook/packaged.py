"""Copy the notebooks that come with the package for an output, with their parameters set."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from audiopipe.config import RunConfig
from audiopipe.dataset.run_record import SOURCE_PARAMETERS, read_config, read_run_record
from audiopipe.extras import require_extra
from audiopipe.report.notebook.parameters import DEFAULTS
from audiopipe.report.packaged_notebooks import packaged_notebooks
from audiopipe.store.objects import Store

with require_extra("notebooks", "a notebook"):
    import nbformat

__all__ = ["copy_for_output", "set_parameters"]

# The notebooks that read or continue an output.
FOR_OUTPUT = ("quality", "progress", "explore", "select", "run")


def copy_for_output(output: str, directory: Path, overwrite: bool = False) -> list[Path]:
    """Copy the notebooks that read or continue an output, with their parameters set to it; return their paths.

    A notebook that is there already is kept, because a person may have edited it.

    Args:
        output: address of an output; a local path is made absolute, since a notebook may start in another folder.
        directory: folder of the copies.
        overwrite: replace notebooks that are there.

    Raises:
        VerifyError: the address does not hold the output of a run.
    """
    store = Store(output)
    output = str(store.local_folder.absolute()) if store.local_folder is not None else output
    values: dict[str, dict[str, object]] = {name: {"output": output} for name in FOR_OUTPUT}
    values["select"]["dest"] = f"{output.rstrip('/')}-selected"
    if read_run_record(store).parent is not None:
        del values["run"]  # a selection has no catalog
    else:
        config = read_config(store)
        names = [*SOURCE_PARAMETERS, *config.output_fields()]
        values["run"] |= {name: getattr(config, name) for name in names if getattr(config, name) != _default(name)}
    directory.mkdir(parents=True, exist_ok=True)
    targets = {name: directory / f"{name}.ipynb" for name in values}
    for name, target in targets.items():
        if overwrite or not target.exists():
            notebook = nbformat.reads(packaged_notebooks()[name].read_text(encoding="utf-8"), as_version=4)
            set_parameters(notebook, values[name])
            nbformat.write(notebook, target)
    return list(targets.values())


def _default(name: str) -> object:
    return RunConfig.model_fields[name].default


def set_parameters(notebook: Any, values: Mapping[str, object]) -> None:
    """Set parameters in the cell with papermill's tag: where it assigns a name, else at its end."""
    (cell,) = [cell for cell in notebook.cells if DEFAULTS in cell.metadata.get("tags", ())]
    lines = cell.source.splitlines()
    assigned = {
        statement.targets[0].id: statement
        for statement in ast.parse(cell.source).body
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)
    }
    for name, value in values.items():
        if statement := assigned.get(name):
            lines[statement.lineno - 1] = f"{name} = {value!r}"
        else:
            lines.append(f"{name} = {value!r}")
    cell.source = "\n".join(lines)
