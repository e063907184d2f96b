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
