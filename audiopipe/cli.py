"""The `audiopipe` command: a thin front of the functions that notebooks call."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn, get_args, get_origin

import click
from rich.console import Console

from audiopipe import __version__
from audiopipe.config import RunConfig
from audiopipe.errors import AudiopipeError, CatalogError, ConfigError, PlanError, StoreRefused, TransientError

if TYPE_CHECKING:
    from audiopipe.run import RunSummary

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
        except (ConfigError, CatalogError, PlanError, StoreRefused) as error:
            _fail(error, 2)
        except TransientError as error:
            _fail(error, 4)
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
    config = RunConfig.of(**parameters)
    from audiopipe.run import run as run_pipeline

    _drive(lambda on_tick: run_pipeline(config, on_tick=on_tick), as_json, quiet)


def _drive(work: Callable[[Any], RunSummary], as_json: bool, quiet: bool) -> NoReturn:
    """Do a driver's work with its progress shown, print how it ended, and end the process with its exit code."""
    from audiopipe.report import summary_lines

    # A polite kill ends like Ctrl-C: what is under way is given up, what is committed stays.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with _live(quiet or not sys.stderr.isatty()) as on_tick:
            summary = work(on_tick)
    except KeyboardInterrupt:
        CONSOLE.print("stopped; what is committed stays: run the same command again to go on")
        sys.exit(4)
    if as_json:
        body = {**summary.total.content(), "run_id": summary.run_id, "status": summary.status, "output": summary.output}
        click.echo(json.dumps(body | {"shards_failed": summary.shards_failed, "new_shards": summary.new.shards}))
    else:
        click.echo("\n".join(summary_lines(summary)))
    sys.exit(summary.exit_code)


def _of_output(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that goes on with an output from what lies in it."""
    fields = RunConfig.model_fields
    options = [
        click.argument("output"),
        *(
            click.option(f"--{name}", type=_click_type(fields[name].annotation), help=fields[name].description)
            for name in ("workers", "cluster", "ledger", "scratch", "device")
        ),
        click.option("--json", "as_json", is_flag=True, help="print the summary as JSON"),
        click.option("--quiet", is_flag=True, help="no live progress"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _given(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}


@main.command(epilog=EXIT_CODES)
@_of_output
@click.option("--shard", "shards", multiple=True, help="make this shard again, from nothing; may be repeated")
def resume(output: str, shards: tuple[str, ...], as_json: bool, quiet: bool, **parameters: Any) -> None:
    """Finish an output from what lies in it: no catalogue, all partitions, what is missing or damaged."""
    from audiopipe.run import resume as resume_output

    _drive(lambda tick: resume_output(output, shards, on_tick=tick, **_given(parameters)), as_json, quiet)


@main.command(epilog=EXIT_CODES)
@_of_output
def retry(output: str, as_json: bool, quiet: bool, **parameters: Any) -> None:
    """Try the failed videos of an output again, and only those, as new shards."""
    from audiopipe.run import retry as retry_output

    _drive(lambda tick: retry_output(output, on_tick=tick, **_given(parameters)), as_json, quiet)


@main.command(epilog=EXIT_CODES)
@_of_output
@click.option("--catalog", help="where to look for new videos; default: the run's own catalogue")
def extend(output: str, as_json: bool, quiet: bool, **parameters: Any) -> None:
    """Add the videos that came to the catalogue since an output was planned, as new shards."""
    from audiopipe.run import extend as extend_output

    _drive(lambda tick: extend_output(output, on_tick=tick, **_given(parameters)), as_json, quiet)


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


main.add_command(progress, "monitor")


@main.command()
@click.argument("output")
def sync(output: str) -> None:
    """Send to Supabase what a run could not send while the database was down."""
    from audiopipe.ledger.address import sync_ledger

    sent, refused = sync_ledger(output)
    click.echo(f"{sent} updates sent, {refused} refused by the database")
    sys.exit(1 if refused else 0)


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
@click.option("--fast", is_flag=True, help="compare names and sizes alone, without reading audio or tables")
@click.option("--json", "as_json", is_flag=True, help="print the findings as JSON")
def verify(output: str, fast: bool, as_json: bool) -> None:
    """Read all of an output again: plan, commits, objects, tars, tables and manifests must agree."""
    from audiopipe.verify import verify as verify_output

    found = verify_output(output, fast)
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


@main.command()
@click.argument("output")
@click.option("--remove", is_flag=True, help="remove what is listed")
@click.option(
    "--min-age-hours",
    default=24.0,
    show_default=True,
    help="leave younger parts alone: an attempt may be under way",
    type=click.FloatRange(0),
)
@click.option("--json", "as_json", is_flag=True, help="print the names and sizes as JSON")
def gc(output: str, remove: bool, min_age_hours: float, as_json: bool) -> None:
    """List, or remove, what no commit names: parts of lost attempts, and objects of shards; nothing else."""
    from audiopipe.gc import collect

    found = collect(output, remove, min_age_hours)
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    for name, size in found.objects.items():
        click.echo(f"{size:>12,}  {name}")
    done = "removed" if remove else "--remove removes them"
    click.echo(f"{len(found.objects)} objects, {found.size:,} bytes: {done}")


@main.group()
def bench() -> None:
    """Measure this machine beside other ways of doing the same work."""


@bench.command("pipeline")
@click.option("--minutes", default=17.25, show_default=True, help="audio for each process", type=click.FloatRange(0.5))
@click.option("--rounds", default=3, show_default=True, help="the best of so many counts", type=click.IntRange(1))
@click.option(
    "--folder", default="demo/bench", show_default=True, help="keeps the material", type=click.Path(path_type=Path)
)
@click.option("--save", is_flag=True, help="write reports/benchmarks/pipeline-*.md and .json")
def bench_pipeline(minutes: float, rounds: int, folder: Path, save: bool) -> None:
    """The whole way beside decoding alone, ffmpeg's own pipeline and today's sequential code, on the same cores."""
    from audiopipe.bench import pipeline, readings
    from audiopipe.demo.sources import cache_folder

    found = pipeline.bench(folder, cache_folder(Path("demo/corpus")), minutes, rounds, CONSOLE.print)
    Console(width=160).print(readings.table(found))
    for line in readings.bottleneck(found):
        click.echo(line)
    for path in readings.save(found, Path("reports/benchmarks")) if save else []:
        click.echo(f"saved {path}")


@bench.command("scale")
@click.option("--videos", default=500_000, show_default=True, help="in the catalogue", type=click.IntRange(1))
@click.option("--languages", default=12, show_default=True, help="of the videos", type=click.IntRange(1, 100))
@click.option("--ledger", help="supabase:// for the database that SUPABASE_URL names; default: SQLite")
@click.option("--workers", default=2, show_default=True, help="worker processes", type=click.IntRange(1))
@click.option("--save", is_flag=True, help="write reports/benchmarks/scale-*.md and .json")
def bench_scale(videos: int, languages: int, ledger: str | None, workers: int, save: bool) -> None:
    """Plan, schedule and record a whole catalogue with stubbed work: minutes, memory, database, monitor."""
    from rich.table import Table

    from audiopipe.bench import scale

    found = scale.bench(videos, languages, ledger, workers)
    table = Table("what", "measured", "bar")
    for row in scale.rows(found):
        table.add_row(*row)
    Console(width=120).print(table)
    for path in scale.save(found, Path("reports/benchmarks")) if save else []:
        click.echo(f"saved {path}")


@main.command()
@click.option("--videos", default=500_000, show_default=True, type=click.IntRange(1), help="to be processed")
@click.option("--minutes", default=17.0, show_default=True, help="of audio in a video, on average")
@click.option("--deadline-h", default=24.0, show_default=True, help="hours that it may take")
@click.option("--nodes", type=click.IntRange(1, 10_000), help="default: as few as meet the deadline")
@click.option("--profile", default="auto", show_default=True, help="ec2 and gcp show their own machines, others all")
@click.option(
    "--audio-format",
    default="flac",
    show_default=True,
    type=click.Choice(["flac", "wav", "opus", "mp3"]),
    help="of the results: what has to leave the machines' cloud",
)
@click.option("--rates", "folder", default="reports/benchmarks", show_default=True, help="folder of rates-*.json")
@click.option("--json", "as_json", is_flag=True, help="print the choices as JSON")
def plan(
    videos: int,
    minutes: float,
    deadline_h: float,
    nodes: int | None,
    profile: str,
    audio_format: str,
    folder: str,
    as_json: bool,
) -> None:
    """Nodes, hours, bottleneck and cost of a run on the machines of the price table."""
    from rich.table import Table

    from audiopipe import planner
    from audiopipe.planner import present

    work = planner.Workload(videos, minutes, deadline_h, audio_format)
    rates = planner.load_rates(folder)
    found = planner.choices(work, rates, present.PROVIDER_OF.get(profile), nodes)
    if as_json:
        extra = [{"bottleneck": one.bottleneck, "total_usd": one.costs.total} for one in found]
        body = [asdict(one) | more for one, more in zip(found, extra, strict=True)]
        click.echo(json.dumps({"rates": asdict(rates), "choices": body}, default=str))
        return
    table = Table(*present.HEAD)
    for row in present.rows(found):
        table.add_row(*row)
    Console().print(table)
    for sentence in present.caveats(work, rates, found):
        click.echo(sentence)
