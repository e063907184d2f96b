"""The `audiopipe` command: a thin front of the functions that notebooks call."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click
from rich.console import Console

from audiopipe import __version__
from audiopipe.config import RunConfig
from audiopipe.errors import AudiopipeError, CatalogError, ConfigError, PlanError

__all__ = ["main"]

EXIT_CODES = """\b
Exit codes:
  0  done
  1  failed: an error that is named on the last line; for verify, something is wrong with the output
  2  misused: a parameter is unknown or impossible, or does not fit the output
  3  done, with dead letters: videos that can never be processed as they are
  4  not finished: run the same command again
"""

CONSOLE = Console(stderr=True)


class _Commands(click.Group):
    """Turns this package's errors into one line and an exit code."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except (ConfigError, CatalogError, PlanError) as error:
            _fail(error, 2)
        except AudiopipeError as error:
            _fail(error, 1)


def _fail(error: AudiopipeError, code: int) -> None:
    CONSOLE.print(f"[bold red]{type(error).__name__}[/]: ", end="")
    CONSOLE.print(str(error), markup=False, highlight=False, soft_wrap=True)
    sys.exit(code)


@click.group(cls=_Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Turn half a million videos into a scored, resampled, sharded speech dataset in a day."""


def _click_type(annotation: Any) -> Any:
    """The click type of a RunConfig field; None in a union means 'none' switches it off."""
    options = [option for option in get_args(annotation) if option is not type(None)] or [annotation]
    if get_origin(annotation) is Literal:
        return click.Choice([str(choice) for choice in get_args(annotation)])
    return _Optional(options[0]) if type(None) in get_args(annotation) else options[0]


class _Optional(click.ParamType[Any]):
    """A value, or 'none'."""

    def __init__(self, kind: type) -> None:
        self.kind = click.types.convert_type(kind)
        self.name = f"{self.kind.name}|none"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        if value is None or str(value).lower() == "none":
            return None
        return self.kind.convert(value, parameter, context)


def _config_options(command: Callable[..., None]) -> Callable[..., None]:
    """One option for each field of RunConfig, in their order."""
    for name, info in reversed(RunConfig.model_fields.items()):
        flag = f"--{name.replace('_', '-')}"
        shown = {} if info.is_required() else {"default": info.default, "show_default": info.default is not None}
        option = click.option(
            flag, name, type=_click_type(info.annotation), required=info.is_required(), help=info.description, **shown
        )
        command = option(command)
    return command


@main.command(epilog=EXIT_CODES)
@_config_options
@click.option("--json", "as_json", is_flag=True, help="print the summary as JSON")
@click.option("--quiet", is_flag=True, help="no live progress")
def run(as_json: bool, quiet: bool, **parameters: Any) -> None:
    """Run, or go on with, the pipeline over a catalogue."""
    from audiopipe.report import summary_lines
    from audiopipe.run import run as run_pipeline

    config = RunConfig.of(**parameters)
    # A polite kill ends like Ctrl-C: what is under way is given up, what is committed stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _live(quiet or not sys.stderr.isatty()) as on_tick:
            summary = run_pipeline(config, on_tick=on_tick)
    except KeyboardInterrupt:
        CONSOLE.print("stopped; what is committed stays: run the same command again to go on")
        sys.exit(4)
    if as_json:
        body = {**summary.total.content(), "run_id": summary.run_id, "status": summary.status, "output": summary.output}
        click.echo(json.dumps(body | {"shards_failed": summary.shards_failed, "new_shards": summary.new.shards}))
    else:
        click.echo("\n".join(summary_lines(summary)))
    sys.exit(summary.exit_code)


@contextmanager
def _live(quiet: bool) -> Iterator[Any]:
    """A callback that redraws a run's progress in the terminal."""
    from rich.live import Live

    from audiopipe.monitor import render

    if quiet:
        yield None
        return
    with Live(console=CONSOLE, auto_refresh=False, transient=True) as live:
        yield lambda ledger, run_id: live.update(render(ledger, run_id), refresh=True)


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--videos", default=30, show_default=True, help="number of good videos", type=click.IntRange(1, 1000))
@click.option("--seed", default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def demo(directory: Path, videos: int, seed: int, as_json: bool) -> None:
    """Make a corpus of real speech in five languages, as videos to try the pipeline on."""
    from audiopipe.demo import make_corpus

    corpus = make_corpus(directory, seed=seed, videos=videos, say=CONSOLE.print)
    if as_json:
        click.echo(json.dumps(asdict(corpus), default=str))
    else:
        click.echo(f"{corpus.videos} videos, {corpus.bad} bad ones, {corpus.hours:.2f} h: {corpus.catalog}")


@main.command()
@click.argument("output", required=False)
@click.option("--ledger", help="SQLite file of the run's progress, if it is not beside the output")
@click.option("--run-id", help="default: the newest run")
@click.option("--once", is_flag=True, help="print once instead of watching until the end")
@click.option("--json", "as_json", is_flag=True, help="print the numbers once, as JSON")
def progress(output: str | None, ledger: str | None, run_id: str | None, once: bool, as_json: bool) -> None:
    """Show how a run goes: totals, languages, workers, the last errors."""
    from audiopipe import monitor
    from audiopipe.ledger import open_ledger

    with open_ledger(ledger, output, create=False) as source:
        if as_json:
            click.echo(json.dumps(monitor.snapshot(source, run_id)))
        elif once:
            Console().print(monitor.render(source, run_id))
        else:
            monitor.watch(source, run_id)


@main.command()
@click.argument("notebook", type=click.Path(path_type=Path, exists=True))
@click.argument("html", type=click.Path(path_type=Path))
@click.option("--print", "cell", help="also print the text output of the cell with this tag")
def export(notebook: Path, html: Path, cell: str | None) -> None:
    """Turn a notebook that papermill saved into one HTML file that needs no network."""
    from audiopipe import report

    report.export(notebook, html)
    if cell:
        click.echo(report.text_of(notebook, cell))


@main.command()
@click.argument("output")
@click.option("--json", "as_json", is_flag=True, help="print the findings as JSON")
def verify(output: str, as_json: bool) -> None:
    """Read all of an output again: plan, commits, objects, tars, tables and manifests must agree."""
    from audiopipe.verify import verify as verify_output

    found = verify_output(output)
    if as_json:
        click.echo(json.dumps(asdict(found)))
    else:
        for finding in found.findings:
            click.echo(str(finding))
        click.echo(
            f"{found.shards} shards, {found.objects} objects, {found.samples} samples read: "
            + (f"{len(found.findings)} findings" if found.findings else "all as committed")
        )
    sys.exit(1 if found.findings else 0)
