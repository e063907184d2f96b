"""Commands that measure this machine."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from audiopipe.bench import MINUTES
from audiopipe.cli.main import CONSOLE, main

REPORTS = Path("reports/benchmarks")


@main.group()
def bench() -> None:
    """Measure this machine beside other ways of doing the same work."""


@bench.command("kernels")
@click.option("--quick", is_flag=True, help="fewer cases and rounds: to see that it runs")
@click.option("--save", is_flag=True, help="write reports/benchmarks/kernels-*.md and .json")
def bench_kernels(quick: bool, save: bool) -> None:
    """Loudness, metrics and resampling beside pyloudnorm, libebur128, torchaudio, librosa and soxr."""
    from audiopipe.bench.kernels import run

    run(REPORTS if save else None, quick)


@bench.command("pipeline")
@click.option("--minutes", default=MINUTES, show_default=True, help="audio for each core", type=click.FloatRange(0.5))
@click.option("--rounds", default=3, show_default=True, help="the best of so many counts", type=click.IntRange(1))
@click.option(
    "--folder", default="demo/bench", show_default=True, help="keeps the material", type=click.Path(path_type=Path)
)
@click.option("--quick", is_flag=True, help="a minute of audio, one round: to see that it runs")
@click.option("--save", is_flag=True, help="write reports/benchmarks/pipeline-*.md and .json, and the planner's rates")
def bench_pipeline(minutes: float, rounds: int, folder: Path, quick: bool, save: bool) -> None:
    """The whole way beside decoding alone, ffmpeg's own pipeline and today's sequential code, on the same cores."""
    from audiopipe.bench import pipeline
    from audiopipe.bench import results as readings
    from audiopipe.bench.corpus.sources import cache_folder

    minutes, rounds = (1.0, 1) if quick else (minutes, rounds)
    found = pipeline.bench(folder, cache_folder(Path("demo/corpus")), minutes, rounds, CONSOLE.print)
    Console(width=160).print(readings.table(found))
    for line in readings.bottleneck(found):
        click.echo(line)
    for path in readings.save(found, REPORTS) if save else []:
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
    for path in scale.save(found, REPORTS) if save else []:
        click.echo(f"saved {path}")
