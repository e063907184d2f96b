"""Commands that look at an output and tidy it: progress, verify, gc, sync, export."""

from __future__ import annotations

import difflib
import json
import sys
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from audiopipe.cli.main import main
from audiopipe.errors import ConfigError


@main.command()
@click.argument("output", required=False)
@click.option("--ledger", help="SQLite file of the run's progress, if it is not beside the output")
@click.option("--run-id", help="default: the newest run")
@click.option("--once", is_flag=True, help="print once instead of watching until the end")
@click.option("--json", "as_json", is_flag=True, help="print the numbers once, as JSON")
def progress(output: str | None, ledger: str | None, run_id: str | None, once: bool, as_json: bool) -> None:
    """Show how a run goes: totals, languages, workers, the last errors."""
    from audiopipe.ledger import open_ledger
    from audiopipe.ledger import snapshot as monitor
    from audiopipe.report import terminal

    with open_ledger(ledger, output, create=False) as source:
        if as_json:
            click.echo(json.dumps(monitor.snapshot(source, run_id)))
        elif once:
            Console().print(terminal.render(source, run_id))
        else:
            terminal.watch(source, run_id)


main.add_command(progress, "monitor")


@main.command()
@click.argument("word", required=False)
def explain(word: str | None) -> None:
    """What a word means that a run or a report says: a term, an error, a reason, an exit code, a metric, a parameter.

    Without a word, all words there are.
    """
    from audiopipe.cli.glossary import meanings

    known = meanings()
    if word is None:
        for meaning in known:
            click.echo(f"{meaning.word:24}{meaning.text.partition(chr(10))[0]}")
        return
    word = word.replace(" ", "_").replace("-", "_")  # as reports write it
    found = [meaning for meaning in known if meaning.word == word]
    if not found:
        near = difflib.get_close_matches(word, {meaning.word for meaning in known}, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "audiopipe explain lists them"
        raise ConfigError(f"nothing here is called '{word}': {hint}")
    for meaning in found:
        click.echo(f"{meaning.word}: {meaning.kind}\n{meaning.text}")
        if meaning.remedy:
            click.echo(f"what to do: {meaning.remedy}")


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
@click.argument("html")
@click.option("--print", "cell", help="also print the text output of the cell with this tag")
@click.option(
    "--exit-code", "pass_on", is_flag=True, help="end with the exit code of the run that the notebook records"
)
def export(notebook: Path, html: str, cell: str | None, pass_on: bool) -> None:
    """Turn a notebook that papermill saved into one HTML file that needs no network.

    HTML is a path or a URL (s3://bucket/prefix/reports/run.html). In a folder named reports, index.html lists all.
    """
    from audiopipe import report

    report.export(notebook, html)
    if cell:
        click.echo(report.text_of(notebook, cell))
    if pass_on:
        from audiopipe.report.notebook.record import exit_code

        sys.exit(exit_code(notebook))


@main.command()
@click.argument("output")
@click.option("--fast", is_flag=True, help="compare names and sizes alone, without reading audio or tables")
@click.option("--json", "as_json", is_flag=True, help="print the findings as JSON")
def verify(output: str, fast: bool, as_json: bool) -> None:
    """Read all of an output again: plan, commits, objects, tars, tables and manifests must agree."""
    from audiopipe.dataset.verify import verify as verify_output

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
    from audiopipe.dataset.gc import collect

    found = collect(output, remove, min_age_hours)
    if as_json:
        click.echo(json.dumps(asdict(found)))
        return
    for name, size in found.objects.items():
        click.echo(f"{size:>12,}  {name}")
    for name, begun in found.uploads.items():
        click.echo(f"{'unfinished':>12}  {name}: an upload {begun}")
    done = "removed" if remove else "--remove removes them"
    click.echo(f"{len(found.objects)} objects, {found.size:,} bytes, {len(found.uploads)} unfinished uploads: {done}")


@main.command()
@click.argument("output")
def mend(output: str) -> None:
    """Bring back a damaged or lost _run.json or plan from the copy that the output keeps, or the copy from it."""
    from audiopipe.dataset import backup as copies

    written = copies.restore(output)
    for name in written:
        click.echo(f"brought back {name}")
    click.echo("the run and its plan, and their copies, are whole")
