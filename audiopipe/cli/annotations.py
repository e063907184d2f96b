"""Define the command that adds columns to an output after its run."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from audiopipe.cli.checks import check_output
from audiopipe.cli.main import CONSOLE, EXIT_CODES, main, name_next
from audiopipe.cli.options import output_options
from audiopipe.cli.outputs import show_progress
from audiopipe.cli.runs import live_progress, log_to_stderr, without_none
from audiopipe.driver.signals import SignalGuard
from audiopipe.errors import ConfigError

if TYPE_CHECKING:
    from audiopipe.driver.annotate import AnnotationSummary

SOURCES = ("scorers", "file", "removed", "is_list")


@main.command(epilog=EXIT_CODES)
@output_options
@click.option(
    "--scorers", help="scorers to run over the audio on the cluster, separated by commas: dnsmos, speakers, …"
)
@click.option("--speaker-labels", is_flag=True, help="let the scorer speakers tell the speakers of a video apart")
@click.option(
    "--speaker-embeddings", is_flag=True, help="add voice embeddings of the scorer speakers, which identify persons"
)
@click.option("--from", "file", help="Parquet, CSV, TSV or JSON lines at any address, with a row for each segment")
@click.option("--name", help="name of the annotation; default: the name of the file")
@click.option("--key-column", help="column of the file with the segment's key; default: key, or video_id and segment")
@click.option("--columns", help="columns of the file to take, separated by commas; default: all")
@click.option("--ignore-unknown", is_flag=True, help="leave out rows whose key is not in the output")
@click.option("--shard", "shards", multiple=True, help="annotate this shard again; may be repeated")
@click.option("--list", "is_list", is_flag=True, help="list the annotations of the output")
@click.option("--remove", "removed", help="remove the annotation with this name and version, as --list shows it")
def annotate(output: str, as_json: bool, quiet: bool, **parameters: Any) -> None:
    """Add columns to the segments of an output.

    The values come from scorers, which read the committed audio, or from a file. The same command continues where an
    interrupted one stopped.
    """
    chosen = [source for source in SOURCES if parameters[source]]
    if len(chosen) != 1:
        raise ConfigError("give exactly one of --scorers, --from, --list and --remove")
    check_output(output, parameters["cluster"])
    removed, is_list = parameters.pop("removed"), parameters.pop("is_list")
    if is_list:
        _list(output, as_json)
    elif removed:
        from audiopipe.driver.annotate import remove

        remove(output, removed)
        click.echo(f"removed {removed}")
    else:
        _annotate(output, parameters, as_json, quiet)


def _annotate(output: str, parameters: dict[str, Any], as_json: bool, quiet: bool) -> None:
    from audiopipe.driver.annotate import annotate as annotate_output

    log_to_stderr()
    if parameters["columns"] is not None:
        parameters["columns"] = [name.strip() for name in parameters["columns"].split(",")]
    try:
        with SignalGuard(signal.SIGTERM, signal.SIGINT) as stop:
            if parameters["scorers"] is not None:
                with live_progress(quiet or not sys.stderr.isatty()) as on_tick:
                    summary = annotate_output(output, on_tick=stop.before(on_tick), **without_none(parameters))
            else:
                with show_progress("shards", quiet) as on_shard:
                    summary = annotate_output(output, on_shard=stop.before(on_shard), **without_none(parameters))
    except KeyboardInterrupt:
        CONSOLE.print("stopped; annotated shards are safe: run the same command again to continue")
        sys.exit(4)
    click.echo(json.dumps(asdict(summary)) if as_json else "\n".join(_lines(summary)))
    if not as_json and summary.exit_code == 0:
        column = summary.columns[0] if summary.columns else "COLUMN"
        condition = shlex.quote(f"kept AND {column} IS NOT NULL")
        name_next(
            f"audiopipe select {shlex.quote(output)} DEST --where {condition}",
            f"audiopipe report {shlex.quote(output)}",
        )
    sys.exit(summary.exit_code)


def _lines(summary: AnnotationSummary) -> list[str]:
    names, columns = ", ".join(summary.annotations), ", ".join(summary.columns)
    lines = [
        f"{names}: {columns}",
        f"{summary.annotated:,} of {summary.shards:,} shards annotated, {summary.new:,} of them now",
    ]
    if (counts := summary.counts) is not None:
        lines.append(
            f"{counts.rows:,} rows: {counts.matched:,} of {counts.segments:,} segments have one, "
            f"{counts.segments - counts.matched:,} get null; {counts.unknown:,} rows left out"
        )
    lines += [f"{shard}: {reason}" for shard, reason in list(summary.failed.items())[:10]]
    lines += [f"retired   worker {worker}: {reason}" for worker, reason in summary.workers_retired.items()]
    if summary.stopped is not None:
        lines.append(f"NOT DONE  {summary.stopped}")
    if summary.uncommitted:
        lines.append(
            f"{summary.uncommitted:,} shards are not committed yet: finish the run, then run the same command again"
        )
    return lines


def _list(output: str, as_json: bool) -> None:
    from audiopipe.dataset.annotations import list_annotations
    from audiopipe.dataset.run_record import read_run_record
    from audiopipe.store.objects import Store

    store = Store(output)
    read_run_record(store)
    annotations = list_annotations(store)
    rows = [
        {
            "annotation": item.record.id,
            "shards": len(item.shards),
            "columns": [column.name for column in item.columns],
            "source": dict(item.record.source),
        }
        for item in annotations
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row, item in zip(rows, annotations, strict=True):
        source = ", ".join(f"{name} {value}" for name, value in item.record.source.items() if name != "sha256")
        columns = ", ".join(f"{column.name} ({column.type})" for column in item.columns)
        click.echo(f"{row['annotation']}: {columns}; {len(item.shards):,} shards; {source}")
    if not rows:
        click.echo("no annotations")
