"""Describe the machine of a benchmark, without names that identify it."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

__all__ = ["Machine"]


@dataclass(frozen=True)
class Machine:
    """The hardware and the software that a benchmark depends on. `load` is that of other processes before it began."""

    cpu: str
    cores: int
    instructions: str
    gpu: str | None
    load: float
    torch: str

    @classmethod
    def detect(cls) -> Machine:
        """Describe this machine. The load is taken now, before the benchmark, since even ratios depend on it."""
        return cls(
            cpu=_read_cpu_model(),
            cores=os.cpu_count() or 1,
            instructions=torch.backends.cpu.get_cpu_capability(),
            gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            load=os.getloadavg()[0],
            torch=torch.__version__.split("+")[0],
        )

    @property
    def slug(self) -> str:
        """The model of the GPU, or of the CPU, and the number of cores, as a part of file names."""
        parts = "".join(c if c.isalnum() else " " for c in (self.gpu or self.cpu).lower()).split()
        return "-".join([*parts, f"{self.cores}-cores"])

    def as_text(self) -> dict[str, str]:
        """Return the fields as they are printed and saved."""
        return {name: str(value) for name, value in asdict(self).items()} | {
            "gpu": self.gpu or "none",
            "load": f"{self.load:.1f}",
        }

    def __str__(self) -> str:
        return ", ".join(f"{name}: {value}" for name, value in self.as_text().items())


def _read_cpu_model() -> str:
    """Return the model of the CPU as Linux names it, elsewhere as Python does."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
