"""Cluster profiles: named settings of a Dask cluster, from `profiles.yaml` and the user's file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any

import pynvml
import yaml

from audiopipe.errors import ConfigError
from audiopipe.parameter_messages import suggest

__all__ = [
    "LOCAL_CPU",
    "LOCAL_CUDA",
    "LOCAL_ENGINES",
    "Profile",
    "check_profile",
    "gpu_count",
    "profiles",
    "resolve_profile",
]

LOCAL_CPU, LOCAL_CUDA = "dask.distributed.LocalCluster", "dask_cuda.LocalCUDACluster"
LOCAL_ENGINES = (LOCAL_CPU, LOCAL_CUDA)  # their workers are processes of this machine


@dataclass(frozen=True)
class Profile:
    """Settings of a cluster.

    Attributes:
        engine: import path of the Dask class or function that starts the workers, or 'existing'.
        options: keys of the profile that are the engine's own.
        extra: name of the package extra that installs the engine.
        wait_s: seconds that a scheduler elsewhere may take to start, and then its workers.
        tls: folder of the certificates; None for plain TCP.
        adapt: arguments of Dask's `Cluster.adapt`, for a number of workers that follows the work.
        lifetime: Dask's settings `distributed.worker.lifetime`.
    """

    name: str
    engine: str
    options: dict[str, object]
    extra: str | None = None
    wait_s: float = 120.0
    tls: str | None = None
    adapt: dict[str, Any] | None = None
    lifetime: dict[str, str] | None = None

    @classmethod
    def parse(cls, name: str, section: Mapping[str, Any]) -> Profile:
        """Split the keys of a section into the profile's settings and the engine's options."""
        common = ("engine", "extra", "wait_s", "tls", "adapt", "lifetime")
        return cls(
            name=name,
            engine=section["engine"],
            options={key: value for key, value in section.items() if key not in common},
            extra=section.get("extra"),
            wait_s=float(section["wait_s"]),
            tls=section.get("tls") or None,
            adapt=section.get("adapt"),
            lifetime=section.get("lifetime"),
        )

    @property
    def local(self) -> bool:
        """True if the workers are processes of this machine."""
        return self.engine in LOCAL_ENGINES


def profiles() -> dict[str, dict[str, Any]]:
    """Read the sections of the package's `profiles.yaml`, merged with the file that AUDIOPIPE_PROFILES names."""
    merged: dict[str, dict[str, Any]] = yaml.safe_load(
        (files("audiopipe.cluster") / "profiles.yaml").read_text("utf-8")
    )
    if path := os.environ.get("AUDIOPIPE_PROFILES"):
        for name, section in yaml.safe_load(Path(path).read_text("utf-8")).items():
            merged[name] = merged.get(name, {}) | section
    return merged


def check_profile(name: str) -> None:
    """Raise `ConfigError` if the profile does not exist."""
    names = profiles().keys() - {"default"}
    if name not in names:
        raise ConfigError(f"unknown cluster profile '{name}': {suggest(name, names)}")


def gpu_count() -> int:
    """Count the GPUs of NVIDIA's driver, limited to those in CUDA_VISIBLE_DEVICES if it is set; 0 without a driver."""
    try:
        pynvml.nvmlInit()
        count = int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return count
    # Like CUDA, stop at the first invalid entry.
    devices = takewhile(lambda name: name not in ("", "-1"), (name.strip() for name in visible.split(",")))
    return min(count, len(list(devices)))


def resolve_profile(name: str, *, cores: int | None = None, gpus: int | None = None, **overrides: object) -> Profile:
    """Return a profile with its defaults and overrides applied, and with an engine for `auto`.

    Args:
        cores, gpus: number of cores and GPUs; by default those of this machine.
        overrides: keys of the profile to replace; None keeps the profile's value.

    Raises:
        ConfigError: the profile does not exist, or it needs keys that were not given.
    """
    check_profile(name)
    sections = profiles()
    gpus = gpu_count() if gpus is None else gpus
    cores = cores or len(os.sched_getaffinity(0))
    if sections[name]["engine"] == "auto":
        name = "local-cuda" if gpus else "local-cpu"
    given = {key: value for key, value in overrides.items() if value is not None}
    section = sections["default"] | sections[name] | given
    if missing := sorted(key for key, value in section.items() if value == "required"):
        raise ConfigError(
            f"cluster profile '{name}' needs {', '.join(missing)}: set them in its section of the file that "
            "AUDIOPIPE_PROFILES names"
        )
    if section.get("n_workers") == "cores":
        section["n_workers"] = cores
    if section["engine"] == LOCAL_CUDA:
        section |= {"gpus": gpus, "cores": cores}
    return Profile.parse(name, section)
