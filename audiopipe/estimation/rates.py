"""Read how fast one core and one GPU process audio, from saved benchmarks or, where there are none, from assumptions.

`audiopipe bench pipeline --save` writes a benchmark as `rates-*.json`: the fields of `Measurement`, null where the
machine could not measure a rate. The most recent file that has a rate supplies it.
Rates are seconds of audio per second of one physical core, all stages together; a vCPU counts as half a core.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from audiopipe.errors import ConfigError

__all__ = ["GPU_GB_S", "Rates", "load_rates"]

# Memory bandwidth in GB/s from the vendors' data sheets. The kernels are bound by memory, so the rate of a GPU without
# a benchmark is scaled by bandwidth.
GPU_GB_S = {"A10G": 600.0, "L4": 300.0, "A100": 1555.0, "H200": 4800.0}

# Fields that one benchmark supplies together.
GROUPS = (("core_x_with_gpu",), ("core_x_without_gpu",), ("gpu", "gpu_x"))

# Speed of the codecs alone on one core, as multiples of real time; their sum in time bounds the pipeline.
OPUS_DECODE_X, FLAC_ENCODE_X = 600.0, 3500.0
CODEC_FLOOR_X = 1 / (1 / OPUS_DECODE_X + 1 / FLAC_ENCODE_X)


@dataclass(frozen=True)
class Rates:
    """The rates of one kind of machine. `assumed` names the fields that no benchmark measured."""

    machine: str
    source: str
    core_x_with_gpu: float
    core_x_without_gpu: float
    gpu: str
    gpu_x: float
    measured: bool = True
    assumed: tuple[str, ...] = ()

    def gpu_x_of(self, gpu: str) -> float:
        """Return the rate of another GPU in seconds of audio per second, scaled by memory bandwidth.

        Raises:
            ConfigError: the bandwidth of the GPU is unknown.
        """
        if gpu == self.gpu:
            return self.gpu_x
        if gpu not in GPU_GB_S:
            raise ConfigError(f"no rate for GPU '{gpu}'; known GPUs: {', '.join(sorted(GPU_GB_S))}")
        return self.gpu_x * GPU_GB_S[gpu] / GPU_GB_S[self.gpu]

    def describe(self) -> str:
        """Return the origin of the rates as one line."""
        if not self.measured:
            return f"rates assumed, NOT measured; {self.source}"
        assumed = f"; assumed, NOT measured: {', '.join(self.assumed)}" if self.assumed else ""
        return f"rates measured ({self.machine}; {self.source}{assumed})"


@dataclass(frozen=True)
class Measurement:
    """One rates file. A rate is None where the machine could not measure it."""

    machine: str
    source: str
    core_x_with_gpu: float | None
    core_x_without_gpu: float | None
    gpu: str | None
    gpu_x: float | None


# The performance goals of this project: 0.85 of the codec floor with a GPU, the speed of ffmpeg's C code without one,
# and 12,000 segments of 10 s per second on an H200.
ASSUMED = Rates(
    machine="no machine",
    source="run `audiopipe bench pipeline --save` to measure a machine",
    core_x_with_gpu=0.85 * CODEC_FLOOR_X,
    core_x_without_gpu=295.0,
    gpu="H200",
    gpu_x=12_000 * 10.0,
    measured=False,
)


def load_rates(folder: str | Path = "reports/benchmarks", machine: str | None = None) -> Rates:
    """Load the rates of a machine, or of the most recent benchmark; fall back to assumed rates if there is none.

    Raises:
        ConfigError: `machine` has no benchmark, or a file does not have the fields of a measurement.
    """
    measurements = [_read(path) for path in sorted(Path(folder).glob("rates-*.json"), key=_age, reverse=True)]
    matches = [measurement for measurement in measurements if machine in (None, measurement.machine)]
    if machine and not matches:
        known = ", ".join(measurement.machine for measurement in measurements) or "none"
        raise ConfigError(f"no rates of machine '{machine}' in {folder}; benchmarked machines: {known}")
    return _complete(matches[0], measurements) if matches else ASSUMED


def _complete(measurement: Measurement, measurements: list[Measurement]) -> Rates:
    """Fill missing rates from the most recent other measurement that has them, else from the assumed rates."""
    values: dict[str, object] = {}
    sources = [measurement.source]
    assumed: list[str] = []
    for names in GROUPS:
        candidates = [measurement, *measurements]
        supplier = next((item for item in candidates if getattr(item, names[0]) is not None), None)
        if supplier is None:
            assumed += names
            continue
        values |= {name: getattr(supplier, name) for name in names}
        if supplier is not measurement:
            sources.append(f"{', '.join(names)} of {supplier.machine}: {supplier.source}")
    measured = {
        "machine": measurement.machine,
        "source": "; ".join(sources),
        "measured": True,
        "assumed": tuple(assumed),
    }
    return Rates(**vars(ASSUMED) | values | measured)


def _age(path: Path) -> tuple[float, str]:
    return path.stat().st_mtime, path.name


def _read(path: Path) -> Measurement:
    body = json.loads(path.read_text(encoding="utf-8"))
    names = {field.name for field in fields(Measurement)}
    if not isinstance(body, dict) or body.keys() != names:
        raise ConfigError(f"{path}: a rates file must have exactly the fields {', '.join(sorted(names))}")
    return Measurement(**body)
