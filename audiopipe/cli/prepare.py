"""Define the commands to use before a run: demo, estimate."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

from audiopipe.cli.main import CONSOLE, main, name_next

WIDTH = 132  # characters of the table of machines


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--videos", default=30, show_default=True, help="number of good videos", type=click.IntRange(1, 1000))
@click.option("--seed", default=0, show_default=True, help="seed of the random choices")
@click.option("--json", "as_json", is_flag=True, help="print the result as JSON")
def demo(directory: Path, videos: int, seed: int, as_json: bool) -> None:
    """Make a corpus of real speech to try.

    The corpus has videos in five languages, some of them broken, and a catalog.
    """
    from audiopipe.bench.corpus import make_corpus

    corpus = make_corpus(directory, seed=seed, videos=videos, log=CONSOLE.print)
    if as_json:
        click.echo(json.dumps(asdict(corpus), default=str))
    else:
        click.echo(f"{corpus.videos} videos, {corpus.bad} bad ones, {corpus.hours:.2f} h: {corpus.catalog}")
        name_next(f"audiopipe run --catalog {shlex.quote(str(corpus.catalog))} --output OUTPUT --max-failed-share 1")


@main.command()
@click.option("--videos", default=500_000, show_default=True, type=click.IntRange(1), help="videos to process")
@click.option("--minutes", default=17.0, show_default=True, help="minutes of audio per video, on average")
@click.option("--deadline-h", default=24.0, show_default=True, help="hours until the run must be finished")
@click.option("--nodes", type=click.IntRange(1, 10_000), help="default: the fewest that meet the deadline")
@click.option("--profile", default="auto", show_default=True, help="ec2 and gcp list their machines, others list all")
@click.option(
    "--audio-format",
    default="flac",
    show_default=True,
    type=click.Choice(["flac", "wav", "opus", "mp3"]),
    help="codec of the results: decides how many bytes leave the cloud",
)
@click.option("--rates", "folder", default="reports/benchmarks", show_default=True, help="folder of rates-*.json")
@click.option("--json", "as_json", is_flag=True, help="print the estimate as JSON")
def estimate(
    videos: int,
    minutes: float,
    deadline_h: float,
    nodes: int | None,
    profile: str,
    audio_format: str,
    folder: str,
    as_json: bool,
) -> None:
    """Estimate the time and the cost of a run.

    For each machine of the price table, it lists nodes, hours, bottleneck and cost.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from audiopipe import estimation
    from audiopipe.report.estimate import COLUMNS, notes, table_rows

    result = estimation.estimate(
        videos,
        minutes,
        deadline_h=deadline_h,
        nodes=nodes,
        profile=profile,
        audio_format=audio_format,
        rates_folder=folder,
    )
    if as_json:
        rows = [asdict(row) | {"bottleneck": row.bottleneck, "total_usd": row.costs.total} for row in result.rows]
        click.echo(json.dumps({"rates": asdict(result.rates), "rows": rows}, default=str))
        return
    table = Table(*COLUMNS, box=SIMPLE_HEAD)
    for cells in table_rows(result):
        table.add_row(*cells)
    # On a narrow terminal or in a pipe, wrapped lines are better than truncated numbers.
    Console(width=max(WIDTH, Console().width)).print(table)
    for note in notes(result):
        click.echo(note)
    name_next("audiopipe run --catalog CATALOG --output OUTPUT --cluster PROFILE")
