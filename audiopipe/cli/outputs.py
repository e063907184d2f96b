"""Define the commands that read or maintain an output: monitor, explain, sync, export, verify, gc, restore."""

from __future__ import annotations

import difflib
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

import click
from rich.console import Console

from audiopipe.cli.main import CONSOLE, main, name_next
from audiopipe.errors import ConfigError

__all__ = ["show_progress"]


@main.command()
@click.argument("output", required=False)
@click.option("--ledger", help="SQLite file or supabase://, if the ledger is not in the output's folder")
@click.option("--run-id", help="default: the newest run")
@click.option("--once", is_flag=True, help="print once instead of watching until the run ends")
@click.option("--json", "as_json", is_flag=True, help="print the numbers once, as JSON")
def monitor(output: str | None, ledger: str | None, run_id: str | None, once: bool, as_json: bool) -> None:
    """Show the progress of a run.

    It shows totals, languages, workers and the last errors.
    """
    from audiopipe.ledger import open_ledger
    from audiopipe.ledger.snapshot import take_snapshot
    from audiopipe.report.terminal import render, watch

    with open_ledger(ledger, output, create=False) as source:
        if as_json:
            snapshot = take_snapshot(source, run_id)
            click.echo(json.dumps(snapshot.as_json() if snapshot else {"run": None}))
        elif once:
            Console().print(render(source, run_id))
        else:
            watch(source, run_id)


@main.command()
@click.argument("word", required=False)
def explain(word: str | None) -> None:
    """Explain a word of a run or a report.

    WORD is a term, an error, a drop reason, an exit code, a metric or a parameter. Without it, list all words.
    """
    from audiopipe.cli.glossary import glossary

    entries = glossary()
    if word is None:
        for entry in entries:
            click.echo(f"{entry.word:26}{entry.text.partition(chr(10))[0]}")
        return
    word = word.replace(" ", "_").replace("-", "_")  # reports print names with spaces
    matches = [entry for entry in entries if entry.word == word]
    if not matches:
        close = difflib.get_close_matches(word, {entry.word for entry in entries}, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else "`audiopipe explain` lists all words"
        raise ConfigError(f"unknown word '{word}': {hint}")
    for entry in matches:
        click.echo(f"{entry.word}: {entry.kind}\n{entry.text}")
        if entry.remedy:
            click.echo(f"what to do: {entry.remedy}")


@main.command()
@click.argument("output")
def sync(output: str) -> None:
    """Send outstanding ledger updates to Supabase.

    They are the updates that a run could not send while the database was down.
    """
    from audiopipe.ledger.address import sync_ledger

    sent, refused = sync_ledger(output)
    click.echo(f"{sent} updates sent, {refused} refused by the database")
    sys.exit(1 if refused else 0)


@main.command()
@click.argument("output")
@click.argument("destination", required=False)
@click.option(
    "--format",
    "format_name",
    default="parquet",
    show_default=True,
    help="format of the copy",
    type=click.Choice(["parquet", "lhotse-shar", "mds", "energon"]),
)
@click.option(
    "--threads", help="shards to write at the same time; default: one per core, up to 8", type=click.IntRange(1)
)
@click.option("--json", "as_json", is_flag=True, help="print the summary as JSON")
def export(output: str, destination: str | None, format_name: str, threads: int | None, as_json: bool) -> None:
    """Write the kept segments of a finished dataset in a format of trainers.

    \b
    parquet      for Hugging Face's load_dataset, with the audio in a column
    lhotse-shar  for Lhotse's CutSet.from_shar
    mds          for MosaicML's StreamingDataset
    energon      for Megatron-Energon: an index next to the tars of OUTPUT, without DESTINATION

    If it is interrupted, the same command continues where it stopped. The same dataset gives the same bytes.
    """
    from audiopipe.dataset.export.run import export as export_dataset

    if output.endswith(".ipynb"):
        raise ConfigError(f"export writes datasets; for a notebook: audiopipe html {output} {destination or 'HTML'}")
    with show_progress("shards") as on_shard:
        summary = export_dataset(output, destination, format=format_name, threads=threads, on_shard=on_shard)
    if as_json:
        click.echo(json.dumps(asdict(summary)))
        return
    click.echo(
        f"{summary.destination}: {summary.samples} segments, {summary.hours:.2f} h, {summary.size:,} bytes in "
        f"{summary.shards} shards, {summary.written} of them written now"
    )


@main.command()
@click.argument("output")
@click.option("--fast", is_flag=True, help="compare names and sizes only; do not read audio or tables")
@click.option("--sample", help="check so many shards, chosen at random", type=click.IntRange(1))
@click.option("--seed", default=0, show_default=True, help="number that decides which shards --sample chooses")
@click.option("--threads", help="shards to read at the same time; default: one per core", type=click.IntRange(1))
@click.option("--restart", is_flag=True, help="also read what an interrupted verification has read")
@click.option("--json", "as_json", is_flag=True, help="print the findings as JSON")
def verify(
    output: str, fast: bool, sample: int | None, seed: int, threads: int | None, restart: bool, as_json: bool
) -> None:
    """Check all of an output.

    It reads all objects and compares plan, commits, tars, tables and manifests. If it is interrupted, the same command
    continues where it stopped.
    """
    from audiopipe.dataset.verify import verify as verify_output

    with show_progress("shards") as on_shard:
        result = verify_output(
            output, fast, sample=sample, seed=seed, threads=threads, restart=restart, on_shard=on_shard
        )
    if as_json:
        click.echo(json.dumps(asdict(result)))
    else:
        for finding in result.findings:
            click.echo(str(finding))
        verdict = f"{len(result.findings)} findings" if result.findings else "all objects match their commits"
        known = f", {result.known} of them by an interrupted verification" if result.known else ""
        shards = f"{result.checked} of {result.shards}" if sample is not None else f"{result.shards}"
        click.echo(f"{shards} shards{known}, {result.objects} objects, {result.samples} samples read: {verdict}")
        if result.checked < result.shards:
            click.echo(f"with 95 % confidence, at most {result.max_bad_share:.1%} of all shards have findings")
        if not result.findings:
            name_next(f"audiopipe report {shlex.quote(output)}", f"audiopipe select {shlex.quote(output)} DEST")
    sys.exit(1 if result.findings else 0)


@contextmanager
def show_progress(unit: str, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Yield a callback that shows how much of something is done, if stderr is a terminal."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=CONSOLE, transient=True, disable=quiet or not sys.stderr.isatty()) as progress:
        task = progress.add_task(unit, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@main.command()
@click.argument("output")
@click.option("--remove", is_flag=True, help="remove the listed objects")
@click.option(
    "--min-age-hours",
    default=24.0,
    show_default=True,
    help="skip younger parts: an attempt may still be uploading them",
    type=click.FloatRange(0),
)
@click.option("--json", "as_json", is_flag=True, help="print the names and sizes as JSON")
def gc(output: str, remove: bool, min_age_hours: float, as_json: bool) -> None:
    """List or remove objects that no commit names.

    They are parts of failed attempts, and orphaned objects of shards.
    """
    from audiopipe.dataset.gc import collect_garbage

    garbage = collect_garbage(output, remove, min_age_hours)
    if as_json:
        click.echo(json.dumps(asdict(garbage)))
        return
    for name, size in garbage.objects.items():
        click.echo(f"{size:>12,}  {name}")
    for name, started in garbage.uploads.items():
        click.echo(f"{'unfinished':>12}  {name}: upload {started}")
    done = "removed" if remove else "add --remove to remove them"
    counts = f"{len(garbage.objects)} objects, {garbage.size:,} bytes, {len(garbage.uploads)} unfinished uploads"
    click.echo(f"{counts}: {done}")


@main.command()
@click.argument("output")
def restore(output: str) -> None:
    """Restore a damaged or lost run record or plan.

    _run.json and the plan are restored from their backup in the output, or the backup from the original.
    """
    from audiopipe.dataset.backup import restore as restore_output

    for name in restore_output(output):
        click.echo(f"restored {name}")
    click.echo("the run, its plan and their backups are intact")
    name_next(f"audiopipe verify {shlex.quote(output)}")
