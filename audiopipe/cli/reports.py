"""Define the commands for reports and notebooks: report, html, lab, notebooks."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import click

from audiopipe.cli.checks import check_output
from audiopipe.cli.main import CONSOLE, main, name_next
from audiopipe.errors import ConfigError


@main.command(context_settings={"allow_extra_args": True})
@click.argument("output")
@click.option("--to", help="folder or URL of the pages; default: reports in OUTPUT")
@click.option("--only", "names", multiple=True, help="progress, quality or explore; may be repeated")
@click.option("--ledger", help="SQLite file or supabase://, if the ledger is not in the output's folder")
@click.option("--json", "as_json", is_flag=True, help="print the addresses as JSON")
@click.pass_context
def report(
    context: click.Context, output: str, to: str | None, names: tuple[str, ...], ledger: str | None, as_json: bool
) -> None:
    """Make the reports of an output, during its run or after it.

    They are the progress of the run, if its ledger is here, and the quality of the dataset: pages that need no network,
    and an index.html. --only explore shows how one video is processed, for which its source is read again.
    """
    if output.endswith(".ipynb"):
        target = context.args[0] if context.args else "PAGE.html"
        raise ConfigError(f"{output} is a notebook, and report takes an output: audiopipe html {output} {target}")
    if context.args:
        raise click.UsageError(f"Got unexpected extra argument ({context.args[0]})", context)
    check_output(output)
    from audiopipe.report.reports import DEFAULT_REPORTS, Report, make_reports

    done: list[Report] = []

    def show(item: Report) -> None:
        done.append(item)
        if not as_json and item.address:
            click.echo(item.address)
        if item.problem:
            CONSOLE.print(f"{item.name}: {item.problem}", markup=False, highlight=False, soft_wrap=True)

    index = make_reports(output, to, ledger=ledger, names=names or DEFAULT_REPORTS, on_report=show)
    if as_json:
        click.echo(json.dumps({"index": index, "reports": [asdict(item) for item in done]}))
    else:
        click.echo(index)
        name_next(f"audiopipe lab {shlex.quote(output)}")
    sys.exit(1 if any(item.failed for item in done) else 0)


@main.command()
@click.argument("notebook", type=click.Path(path_type=Path, exists=True))
@click.argument("html")
@click.option("--print", "cell", help="also print the text output of the cell with this tag")
@click.option("--exit-code", "use_exit_code", is_flag=True, help="exit with the exit code that the notebook recorded")
def html(notebook: Path, html: str, cell: str | None, use_exit_code: bool) -> None:
    """Convert a saved notebook into one HTML page.

    The page needs no network. HTML is a path or a URL (s3://bucket/prefix/reports/run.html). In a folder named reports,
    index.html lists all pages.
    """
    from audiopipe.report.export import export_notebook, read_cell_text
    from audiopipe.report.notebook.record import read_exit_code

    export_notebook(notebook, html)
    if cell:
        click.echo(read_cell_text(notebook, cell))
    if use_exit_code:
        sys.exit(read_exit_code(notebook))


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("output")
@click.option("--folder", type=click.Path(path_type=Path, file_okay=False), help="folder of the notebooks")
@click.option("--overwrite", is_flag=True, help="replace notebooks that are in the folder already")
@click.option("--no-start", is_flag=True, help="write the notebooks, and do not start JupyterLab")
@click.argument("jupyter_options", nargs=-1, type=click.UNPROCESSED)
def lab(output: str, folder: Path | None, overwrite: bool, no_start: bool, jupyter_options: tuple[str, ...]) -> None:
    """Open JupyterLab with notebooks that are set to an output.

    They are quality, progress, explore, select and, to continue the run, run. Their folder keeps what you edit; it is
    below your data folder, unless --folder names another. Other options are JupyterLab's, such as --no-browser or
    --port 8890.
    """
    check_output(output)
    from audiopipe.extras import require_extra
    from audiopipe.report.notebook.packaged import copy_for_output

    with require_extra("notebooks", "audiopipe lab"):
        import_module("jupyterlab")
    folder = folder or _lab_folder(output)
    for path in copy_for_output(output, folder, overwrite):
        click.echo(str(path))
    root = str(folder.absolute())
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    command += ["--LabApp.default_url=/lab/tree/quality.ipynb", *jupyter_options]
    if no_start:
        return
    sys.stdout.flush()
    os.execv(sys.executable, command)


def _lab_folder(output: str) -> Path:
    """Return the folder for the notebooks of an output: its name, and a part of a hash of its address."""
    from platformdirs import user_data_path

    address = output if "://" in output else str(Path(output).absolute())
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", address.rstrip("/").rpartition("/")[2]) or "output"
    return user_data_path("audiopipe") / "lab" / f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:8]}"


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--overwrite", is_flag=True, help="replace notebooks that are in the directory already")
def notebooks(directory: Path, overwrite: bool) -> None:
    """Copy the notebooks into a directory.

    Run them with JupyterLab or papermill (the extra `notebooks`). `audiopipe lab` opens them on an output.
    """
    from audiopipe.report.packaged_notebooks import copy_notebooks

    for path in copy_notebooks(directory, overwrite):
        click.echo(str(path))
