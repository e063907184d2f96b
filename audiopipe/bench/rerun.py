"""Measure once more on this machine and save it: what `bench.ipynb` does when it is asked to."""

from __future__ import annotations

from pathlib import Path

from audiopipe.bench import MINUTES, kernels, pipeline, scale
from audiopipe.bench import results as readings
from audiopipe.bench.corpus.sources import cache_folder
from audiopipe.errors import ConfigError

__all__ = ["measure_again"]

MATERIAL, CORPUS = Path("demo/bench"), Path("demo/corpus")


def measure_again(what: str, folder: str, quick: bool = False) -> None:
    """Run 'kernels', 'pipeline' or 'scale' and save the result in `folder`; 'none' does nothing.

    Args:
        quick: fewer cases and rounds, to see that it runs.

    Raises:
        ConfigError: no such bench.
    """
    if what == "kernels":
        kernels.run(Path(folder), quick)
    elif what == "pipeline":
        found = pipeline.bench(MATERIAL, cache_folder(CORPUS), 1.0 if quick else MINUTES, 1 if quick else 3)
        readings.save(found, Path(folder))
    elif what == "scale":
        scale.save(scale.bench(5_000 if quick else 500_000, 12), Path(folder))
    elif what != "none":
        raise ConfigError(f"parameter 'rerun' {what!r}: must be none, kernels, pipeline or scale")
