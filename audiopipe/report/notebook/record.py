"""How a run ended, read from the notebook that papermill saved of it: papermill itself knows only 0 and 1.

It imports nothing heavy: a scheduler's script waits for it after each run.
"""

from __future__ import annotations

from pathlib import Path

from audiopipe import errors
from audiopipe.errors import AudiopipeError
from audiopipe.extras import require_extra

with require_extra("notebooks", "reading a saved notebook"):
    import nbformat

__all__ = ["read_exit_code"]

NOT_FINISHED = 4
# What a notebook stops at when shards are missing, or its kernel was interrupted (`notebook.session`).
OPEN_ENDS = {"RunIncomplete", "Stopped", "KeyboardInterrupt"}


def read_exit_code(notebook: Path) -> int:
    """The exit code that `audiopipe run` would have ended with.

    0 done, 3 done with dead letters: the summary's cell says so. 2 misused, 4 not finished, 1 anything else: by the
    error that the notebook stopped at. A notebook that ends without either was killed, and its run can go on: 4.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    for output in outputs:
        if output["output_type"] == "error":
            return _of_error(output["ename"])
    codes = [output.get("metadata", {}).get("audiopipe", {}).get("exit_code") for output in outputs]
    return next((int(code) for code in codes if code is not None), NOT_FINISHED)


def _of_error(name: str) -> int:
    if name in OPEN_ENDS:
        return NOT_FINISHED
    kind = getattr(errors, name) if name in errors.__all__ else AudiopipeError
    return int(kind.exit_code)
