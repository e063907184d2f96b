"""Define the commands that process videos: run, resume, retry, extend."""

from __future__ import annotations

import json
import logging
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from audiopipe.cli.checks import check_output, check_run
from audiopipe.cli.main import CONSOLE, EXIT_CODES, main, name_next
from audiopipe.cli.options import config_options, output_options, use_file
from audiopipe.config import RunConfig
from audiopipe.driver.signals import SignalGuard
from audiopipe.redaction import RedactingFilter

__all__ = ["drive", "live_progress", "log_to_stderr", "without_none"]

if TYPE_CHECKING:
    from audiopipe.driver.run import RunSummary
    from audiopipe.driver.session import OnTick

NOT_FINISHED, TOO_MANY_FAILED = 4, 5  # exit codes

CATALOG_OPTION = click.option(
    "--catalog", help="where videos that are still to be processed are now; default: as they were planned"
)


@main.command(epilog=EXIT_CODES)
@click.option(
    *("-f", "--parameters", "file"),
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    callback=use_file,
    is_eager=True,
    expose_value=False,
    help="YAML file of parameters, as for papermill; options of the command replace those of the file",
)
@config_options
@click.option("--json", "as_json", is_flag=True, help="print the summary as JSON")
@click.option("--quiet", is_flag=True, help="do not show live progress")
def run(as_json: bool, quiet: bool, **parameters: object) -> None:
    """Process the videos of a catalog.

    The same command resumes a run that was interrupted.
    """
    config = RunConfig.of(**parameters)
    check_run(config)
    from audiopipe.driver.run import run as run_pipeline

    drive(lambda on_tick: run_pipeline(config, on_tick=on_tick), as_json, quiet)


@main.command(epilog=EXIT_CODES)
@output_options
@CATALOG_OPTION
@click.option("--shard", "shards", multiple=True, help="process this shard again from the start; may be repeated")
def resume(output: str, shards: tuple[str, ...], as_json: bool, quiet: bool, **parameters: object) -> None:
    """Finish an output without its catalog.

    It processes every shard that is missing or damaged, in all partitions.
    """
    check_output(output, parameters["cluster"])
    from audiopipe.driver.run import resume as resume_output

    drive(lambda tick: resume_output(output, shards=shards, on_tick=tick, **without_none(parameters)), as_json, quiet)


@main.command(epilog=EXIT_CODES)
@output_options
@CATALOG_OPTION
def retry(output: str, as_json: bool, quiet: bool, **parameters: object) -> None:
    """Process the failed videos of an output again.

    The videos become new shards; nothing else is processed. If they have moved, or their rows were corrected, give
    --source-prefix or --catalog.
    """
    check_output(output, parameters["cluster"])
    from audiopipe.driver.run import retry as retry_output

    drive(lambda tick: retry_output(output, on_tick=tick, **without_none(parameters)), as_json, quiet)


@main.command(epilog=EXIT_CODES)
@output_options
@click.option("--catalog", help="where to look for new videos; default: the catalog of the run")
@click.option(
    "--language", help="languages to add videos of: 'all' or a list, new languages included; default: those of the run"
)
def extend(output: str, as_json: bool, quiet: bool, **parameters: object) -> None:
    """Add new videos of the catalog to an output.

    The videos that the catalog gained since the output was planned become new shards.
    """
    check_output(output, parameters["cluster"])
    from audiopipe.driver.run import extend as extend_output

    drive(lambda tick: extend_output(output, on_tick=tick, **without_none(parameters)), as_json, quiet)


def drive(work: Callable[[OnTick], RunSummary], as_json: bool, quiet: bool) -> NoReturn:
    """Run a driver with live progress, print its summary, and exit with its exit code."""
    from audiopipe.report.summary import summary_lines

    log_to_stderr()
    try:
        with (
            SignalGuard(signal.SIGTERM, signal.SIGINT) as stop,
            live_progress(quiet or not sys.stderr.isatty()) as show,
        ):
            summary = work(stop.before(show))
    except KeyboardInterrupt:
        CONSOLE.print("stopped; committed shards are safe: run the same command again to continue")
        sys.exit(4)
    if as_json:
        body: dict[str, object] = {
            **summary.total.counts(),
            "run_id": summary.run_id,
            "status": summary.status,
            "output": summary.output,
            "shards_failed": summary.shards_failed,
            "workers_retired": summary.workers_retired,
            "stopped": summary.stopped,
            "new_shards": summary.new.shards,
        }
        if requests := summary.new.stage_items.get("copy"):
            body["requests"] = requests
        click.echo(json.dumps(body))
    else:
        click.echo("\n".join(summary_lines(summary)))
        name_next(*_next_commands(summary))
    sys.exit(summary.exit_code)


def _next_commands(summary: RunSummary) -> list[str]:
    """Return the commands that follow a run or a selection."""
    output, code = shlex.quote(summary.output), summary.exit_code
    if code in (2, NOT_FINISHED):
        return [f"audiopipe resume {output}"]
    commands = [f"audiopipe retry {output}"] if code == TOO_MANY_FAILED else []
    commands += [f"audiopipe verify {output}", f"audiopipe report {output}"]
    return [*commands, f"audiopipe select {output} DEST"] if summary.total.segments_kept else commands


def log_to_stderr() -> None:
    """Print this package's log messages, such as the dashboard's link, on stderr."""
    log, handler = logging.getLogger("audiopipe"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(RedactingFilter())
    log.addHandler(handler)
    log.setLevel(logging.INFO)


def without_none(parameters: dict[str, object]) -> dict[str, Any]:
    """Leave out the parameters that were not given."""
    return {name: value for name, value in parameters.items() if value is not None}


@contextmanager
def live_progress(quiet: bool) -> Iterator[OnTick]:
    """Yield a callback that redraws a run's progress in the terminal."""
    from rich.live import Live

    from audiopipe.report.terminal import render

    if quiet:
        yield lambda ledger, run_id: None
        return
    with Live(console=CONSOLE, auto_refresh=False, transient=True) as live:
        yield lambda ledger, run_id: live.update(render(ledger, run_id, fold=True), refresh=True)
