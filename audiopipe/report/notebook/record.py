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
SUCCESSES = (0, 3)
# The errors that a notebook stops at when shards are missing or its kernel was interrupted (`notebook.session`).
UNFINISHED_ERRORS = {"RunIncomplete", "Stopped", "KeyboardInterrupt"}
FAILED_VIDEOS_ERROR, TOO_MANY_FAILED = "TooManyFailed", 5


def read_exit_code(notebook: Path) -> int:
    """Return the exit code that `audiopipe run` would have ended with.

    The output of the summary's cell has the code of a run that has ended. If the run did not end, 2 (misused),
    4 (not finished) and 1 (other errors) follow from the error that the notebook stopped at. A notebook without either
    was killed, and its run can be resumed: 4.
    """
    cells = nbformat.read(notebook, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    codes = [output.get("metadata", {}).get("audiopipe", {}).get("exit_code") for output in outputs]
    recorded = next((int(code) for code in codes if code is not None), None)
    errors_raised = [output["ename"] for output in outputs if output["output_type"] == "error"]
    if recorded in (None, *SUCCESSES) and errors_raised:
        return _exit_code_of(errors_raised[0])
    return NOT_FINISHED if recorded is None else recorded


def _exit_code_of(error_name: str) -> int:
    if error_name in UNFINISHED_ERRORS:
        return NOT_FINISHED
    if error_name == FAILED_VIDEOS_ERROR:
        return TOO_MANY_FAILED
    error = getattr(errors, error_name) if error_name in errors.__all__ else AudiopipeError
    return int(error.exit_code)
