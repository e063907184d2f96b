"""Make the reports of an output: execute the notebooks that read it, and write their pages and an index."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import as_file
from pathlib import Path
from tempfile import TemporaryDirectory

from audiopipe.dataset.run_record import read_run_record
from audiopipe.errors import ConfigError, LedgerError
from audiopipe.ledger import open_ledger
from audiopipe.parameter_messages import suggest
from audiopipe.redaction import find_address_problem, redact
from audiopipe.report import index
from audiopipe.report.export import export_notebook, find_errors, write_index
from audiopipe.report.packaged_notebooks import packaged_notebooks
from audiopipe.store.objects import Store

__all__ = ["DEFAULT_REPORTS", "REPORTS", "Report", "make_reports"]

DEFAULT_REPORTS = ("progress", "quality")
REPORTS = (*DEFAULT_REPORTS, "explore")  # `explore` decodes a video again, and needs its source
PARALLEL = 2  # notebooks at the same time


@dataclass(frozen=True)
class Report:
    """A report: its name, the address of its page or None if there is none, and what went wrong or None.

    `failed` is False for a report that was left out for its `problem`.
    """

    name: str
    address: str | None
    problem: str | None = None
    failed: bool = False


def make_reports(
    output: str,
    to: str | None = None,
    *,
    ledger: str | None = None,
    names: Sequence[str] = DEFAULT_REPORTS,
    on_report: Callable[[Report], None] = lambda report: None,
) -> str:
    """Write the reports of an output, during its run or after it, and an index of them; return the index's address.

    Args:
        output: address of an output.
        to: folder or URL of the pages; by default `reports` in the output.
        ledger: address of the run's ledger, if it is not in its usual place. Without a ledger there is no progress
            report.
        names: names of reports, of `REPORTS`.
        on_report: called for each report when it is done or left out.

    Raises:
        ConfigError: a report does not exist, or an address has a secret, which pages would show.
        VerifyError: the address does not hold the output of a run.
        PermanentStoreError, StoreError: the pages cannot be written.
    """
    to = f"{output.rstrip('/')}/{index.FOLDER}" if to is None else to.rstrip("/")
    for address in (output, to, ledger):
        if address is not None and (problem := find_address_problem(address)):
            raise ConfigError(f"the address {problem}")
    for name in names:
        if name not in REPORTS:
            raise ConfigError(f"unknown report '{name}': {suggest(name, REPORTS)}")
    read_run_record(Store(output))
    chosen = list(dict.fromkeys(names))
    if "progress" in chosen and (problem := _ledger_problem(ledger, output)):
        chosen.remove("progress")
        on_report(Report("progress", None, problem))
    with TemporaryDirectory(prefix="audiopipe-reports-") as folder, ThreadPoolExecutor(PARALLEL) as pool:
        problems = pool.map(lambda name: _execute(name, output, ledger, Path(folder)), chosen)
        for name, problem in zip(chosen, problems, strict=True):
            saved, page = Path(folder, f"{name}.ipynb"), f"{to}/{name}.html"
            if saved.exists():
                export_notebook(saved, page)
            on_report(Report(name, page if saved.exists() else None, problem, failed=problem is not None))
    return write_index(Store(to))


def _ledger_problem(ledger: str | None, output: str) -> str | None:
    try:
        with open_ledger(ledger, output, create=False) as source:
            return None if source.run() is not None else "the ledger has no run"
    except LedgerError as error:
        return str(error)


def _execute(name: str, output: str, ledger: str | None, folder: Path) -> str | None:
    """Execute a notebook in another process and save it in a folder; return what went wrong, or None."""
    saved = folder / f"{name}.ipynb"
    parameters = ["-r", "output", output]
    if name == "progress" and ledger is not None:
        parameters += ["-r", "ledger", ledger]
    with as_file(packaged_notebooks()[name]) as notebook:
        command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(notebook), str(saved), *parameters]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
    errors = find_errors(saved) if saved.exists() else []
    if errors or not done.returncode:
        return errors[0] if errors else None
    return redact(done.stderr.strip().rpartition("\n")[2]) or f"papermill ended with exit code {done.returncode}"
