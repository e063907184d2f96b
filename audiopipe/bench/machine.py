"""What a benchmark ran on, without saying whose machine it is."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def cpu_model() -> str:
    """Model of the CPU as Linux names it, elsewhere as Python does."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def kind(described: dict[str, str]) -> str:
    """The GPU's model, or the CPU's, and the number of cores, as part of a file's name."""
    device = described["gpu"] if described["gpu"] != "none" else described["cpu"]
    words = "".join(c if c.isalnum() else " " for c in device.lower()).split()
    return "-".join([*words, f"{described['cores']}-cores"])


def describe() -> dict[str, str]:
    """CPU, cores, GPU, load and torch: no host name, no path."""
    load = f"{os.getloadavg()[0]:.1f}"  # before the benchmark: by other work, which blurs even ratios
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cpu": cpu_model(),
        "cores": str(os.cpu_count()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": gpu,
        "load": load,
        "torch": torch.__version__.split("+")[0],
    }
