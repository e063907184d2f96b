"""Run a benchmark on this machine and save its result, as `bench.ipynb` does on request."""

from __future__ import annotations

from pathlib import Path

from audiopipe.bench import MINUTES, kernels, pipeline, results, scale, scorers
from audiopipe.bench.corpus.sources import find_cache_folder
from audiopipe.bench.inputs import make_inputs
from audiopipe.bench.machine import Machine
from audiopipe.errors import ConfigError

__all__ = ["rerun_benchmark"]

INPUTS, CORPUS = Path("demo/bench"), Path("demo/corpus")


def rerun_benchmark(name: str, folder: str, quick: bool = False) -> None:
    """Run a benchmark and save the result in `folder`: 'kernels', 'pipeline', 'scorers', 'scale', or 'none'.

    Args:
        quick: run fewer cases and rounds, to check that the benchmark works.

    Raises:
        ConfigError: the name is unknown.
    """
    if name == "kernels":
        kernels.run_benchmark(Path(folder), quick)
    elif name == "pipeline":
        minutes, rounds = (1.0, 1) if quick else (MINUTES, 3)
        inputs = make_inputs(INPUTS, find_cache_folder(CORPUS), minutes)
        measured = pipeline.run_benchmark(inputs, rounds)
        results.save_results(measured, Path(folder))
    elif name == "scorers":
        machine = Machine.detect()
        rated = scorers.run_benchmark(scorers.NAMES, find_cache_folder(CORPUS), quick)
        scorers.save_results(Path(folder), machine, rated)
    elif name == "scale":
        scale.save(scale.bench(5_000 if quick else 500_000, 12), Path(folder))
    elif name != "none":
        raise ConfigError(f"parameter 'rerun' {name!r}: must be none, kernels, pipeline, scorers or scale")
