"""How fast one core and one GPU are: measured where it was, the design's figures where it was not.

A measurement is a file `rates-*.json` of the folder of benchmarks, with the fields of `Rates` but `measured`.
Rates are in seconds of audio per second of one physical core, all stages together; a vCPU is half a core.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from audiopipe.errors import ConfigError

__all__ = ["GPU_GB_S", "Rates", "load_rates"]

# Memory bandwidth in GB/s by the makers' data sheets: the kernels read and write, so a GPU that was not measured is
# scaled by it.
GPU_GB_S = {"A10G": 600.0, "L4": 300.0, "A100": 1555.0, "H200": 4800.0}

OPUS_DECODE_X, FLAC_ENCODE_X = 600.0, 3500.0  # design, section 1
CODEC_FLOOR_X = 1 / (1 / OPUS_DECODE_X + 1 / FLAC_ENCODE_X)


@dataclass(frozen=True)
class Rates:
    """Of one kind of machine."""

    machine: str
    source: str
    core_x_with_gpu: float
    core_x_without_gpu: float
    gpu: str
    gpu_x: float
    measured: bool = True

    def gpu_x_of(self, gpu: str) -> float:
        """Seconds of audio per second of another GPU, scaled by memory bandwidth.

        Raises:
            ConfigError: its bandwidth is not known here.
        """
        if gpu == self.gpu:
            return self.gpu_x
        if gpu not in GPU_GB_S:
            raise ConfigError(f"no rate for GPU '{gpu}': known are {', '.join(sorted(GPU_GB_S))}")
        return self.gpu_x * GPU_GB_S[gpu] / GPU_GB_S[self.gpu]

    def describe(self) -> str:
        word = "measured" if self.measured else "NOT measured: the design's own bars"
        return f"rates {word} ({self.machine}; {self.source})"


# Section 6 of the design: 0.85 of the codec floor with a GPU, ffmpeg's C without, 12,000 segments of 10 s/s on an H200.
DESIGN = Rates(
    machine="no machine",
    source="design.md, sections 1 and 6",
    core_x_with_gpu=0.85 * CODEC_FLOOR_X,
    core_x_without_gpu=295.0,
    gpu="H200",
    gpu_x=12_000 * 10.0,
    measured=False,
)


def load_rates(folder: str | Path = "reports/benchmarks", machine: str | None = None) -> Rates:
    """The measured rates of a machine, the newest file first; the design's where there are none.

    Raises:
        ConfigError: a machine was named and was not measured, or a file is not one of rates.
    """
    found = [_read(path) for path in sorted(Path(folder).glob("rates-*.json"), key=_age, reverse=True)]
    chosen = [rates for rates in found if machine in (None, rates.machine)]
    if machine and not chosen:
        known = ", ".join(rates.machine for rates in found) or "none"
        raise ConfigError(f"no rates of machine '{machine}' in {folder}: there are {known}")
    return chosen[0] if chosen else DESIGN


def _age(path: Path) -> tuple[float, str]:
    return path.stat().st_mtime, path.name


def _read(path: Path) -> Rates:
    body = json.loads(path.read_text(encoding="utf-8"))
    names = {field.name for field in fields(Rates)} - {"measured"}
    if body.keys() != names:
        raise ConfigError(f"{path}: rates need exactly {', '.join(sorted(names))}")
    return Rates(**body)
