"""Turn half a million videos into a scored, resampled, sharded speech dataset in a day.

    import audiopipe

    summary = audiopipe.run(catalog="videos.parquet", output="s3://speech/en", language="en")
    dataset = audiopipe.Dataset("s3://speech/en")
    for segment in dataset.filter("snr_db > 20"):
        segment.audio, segment.text, segment.metrics["loudness_lufs"]

Most commands are functions here. What a name needs is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from audiopipe import kernels as kernels
    from audiopipe.config import RunConfig as RunConfig
    from audiopipe.dataset.export.run import export as export
    from audiopipe.dataset.reader import Dataset as Dataset
    from audiopipe.dataset.reader import Segment as Segment
    from audiopipe.dataset.verify import verify as verify
    from audiopipe.driver.annotate import annotate as annotate
    from audiopipe.driver.run import RunSummary as RunSummary
    from audiopipe.driver.run import extend as extend
    from audiopipe.driver.run import resume as resume
    from audiopipe.driver.run import retry as retry
    from audiopipe.driver.run import run as run
    from audiopipe.driver.select import select as select
    from audiopipe.errors import AudiopipeError as AudiopipeError
    from audiopipe.estimation import estimate as estimate

__version__ = "0.1.0"

_MODULES = {
    "AudiopipeError": "audiopipe.errors",
    "Dataset": "audiopipe.dataset.reader",
    "RunConfig": "audiopipe.config",
    "RunSummary": "audiopipe.driver.run",
    "Segment": "audiopipe.dataset.reader",
    "annotate": "audiopipe.driver.annotate",
    "estimate": "audiopipe.estimation",
    "export": "audiopipe.dataset.export.run",
    "extend": "audiopipe.driver.run",
    "resume": "audiopipe.driver.run",
    "retry": "audiopipe.driver.run",
    "run": "audiopipe.driver.run",
    "select": "audiopipe.driver.select",
    "verify": "audiopipe.dataset.verify",
}
_SUBMODULES = ("errors", "kernels")

__all__ = [
    "AudiopipeError",
    "Dataset",
    "RunConfig",
    "RunSummary",
    "Segment",
    "__version__",
    "annotate",
    "errors",
    "estimate",
    "export",
    "extend",
    "kernels",
    "resume",
    "retry",
    "run",
    "select",
    "verify",
]


def __getattr__(name: str) -> object:
    if name in _SUBMODULES:
        return import_module(f"audiopipe.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module 'audiopipe' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
