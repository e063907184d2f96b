"""How fast one core and one GPU are: measured where it was, the design's figures where it was not.

A measurement is a file `rates-*.json` of the folder of benchmarks, which `audiopipe bench pipeline --save` writes: the
fields of `Rates` but the last two, null where that machine could not measure it. The newest measurement that has a rate
counts; where there is none, the design's, which is said.
Rates are in seconds of audio per second of one physical core, all stages together; a vCPU is half a core.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from audiopipe.errors import ConfigError

__all__ = ["GPU_GB_S", "Rates", "load_rates"]

# Memory bandwidth in GB/s by the makers' data sheets: the kernels read and write, so a GPU that was not measured is
# scaled by it.
GPU_GB_S = {"A10G": 600.0, "L4": 300.0, "A100": 1555.0, "H200": 4800.0}

# What is measured, or not, together.
TOGETHER = (("core_x_with_gpu",), ("core_x_without_gpu",), ("gpu", "gpu_x"))

OPUS_DECODE_X, FLAC_ENCODE_X = 600.0, 3500.0  # design, section 1
CODEC_FLOOR_X = 1 / (1 / OPUS_DECODE_X + 1 / FLAC_ENCODE_X)


@dataclass(frozen=True)
class Rates:
    """Of one kind of machine. `assumed` names what was not measured but is the design's."""

    machine: str
    source: str
    core_x_with_gpu: float
    core_x_without_gpu: float
    gpu: str
    gpu_x: float
    measured: bool = True
    assumed: tuple[str, ...] = ()

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
        if not self.measured:
            return f"rates NOT measured but the design's own bars; {self.source}"
        but = f"; NOT measured but the design's own bars: {', '.join(self.assumed)}" if self.assumed else ""
        return f"rates measured ({self.machine}; {self.source}{but})"


# Section 6 of the design: 0.85 of the codec floor with a GPU, ffmpeg's C without, 12,000 segments of 10 s/s on an H200.
DESIGN = Rates(
    machine="no machine",
    source="'audiopipe bench pipeline --save' measures those of a machine",
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
    chosen = [body for body in found if machine in (None, body["machine"])]
    if machine and not chosen:
        known = ", ".join(str(body["machine"]) for body in found) or "none"
        raise ConfigError(f"no rates of machine '{machine}' in {folder}: there are {known}")
    return _filled(chosen[0], found) if chosen else DESIGN


def _filled(body: dict[str, Any], others: list[dict[str, Any]]) -> Rates:
    """A measurement whose missing rates are those of the next newest that has them, else the design's."""
    rates, sources = dict(body), [str(body["source"])]
    assumed: list[str] = []
    for names in TOGETHER:
        if rates[names[0]] is not None:
            continue
        there = next((other for other in others if other[names[0]] is not None), None)
        if there is None:
            assumed += names
            rates |= {name: getattr(DESIGN, name) for name in names}
        else:
            sources.append(f"{', '.join(names)} of {there['machine']}: {there['source']}")
            rates |= {name: there[name] for name in names}
    return Rates(**rates | {"source": "; ".join(sources)}, assumed=tuple(assumed))


def _age(path: Path) -> tuple[float, str]:
    return path.stat().st_mtime, path.name


def _read(path: Path) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    names = {field.name for field in fields(Rates)} - {"measured", "assumed"}
    if body.keys() != names:
        raise ConfigError(f"{path}: rates need exactly {', '.join(sorted(names))}")
    return body
