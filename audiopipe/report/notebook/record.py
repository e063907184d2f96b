"""Read the exit code of a run from the notebook that papermill saved; papermill itself returns only 0 or 1.

Imports of this module are cheap, because a scheduler's script waits for it after each run.
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
# The errors that a notebook stops at when shards are missing or its kernel was interrupted (`notebook.session`).
UNFINISHED_ERRORS = {"RunIncomplete", "Stopped", "KeyboardInterrupt"}


def read_exit_code(notebook: Path) -> int:
    """Return the exit code that `audiopipe run` would have ended with.

    0 (done) and 3 (done, with dead letters) are in the output of the summary's cell. 2 (misused), 4 (not finished) and
    1 (other errors) follow from the error that the notebook stopped at. A notebook without either was killed, and its
    run can be resumed: 4.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    for output in outputs:
        if output["output_type"] == "error":
            return _exit_code_of(output["ename"])
    codes = [output.get("metadata", {}).get("audiopipe", {}).get("exit_code") for output in outputs]
    return next((int(code) for code in codes if code is not None), NOT_FINISHED)


def _exit_code_of(error_name: str) -> int:
    if error_name in UNFINISHED_ERRORS:
        return NOT_FINISHED
    error = getattr(errors, error_name) if error_name in errors.__all__ else AudiopipeError
    return int(error.exit_code)
