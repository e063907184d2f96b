"""Workers: from a profile's name to a connected Dask client.

`arguments` turns a profile of `cluster/profiles.yaml` into the arguments of Dask's own cluster class, without starting
anything; `connect` starts or reaches it and waits until its workers are there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import Any

import pynvml
import yaml
from distributed import Client

from audiopipe.errors import ClusterError, ConfigError

__all__ = ["arguments", "connect", "gpu_count", "profiles"]


def profiles() -> dict[str, dict[str, Any]]:
    """All profiles, the file that AUDIOPIPE_PROFILES names laid over the package's own."""
    merged: dict[str, dict[str, Any]] = yaml.safe_load((files("audiopipe") / "profiles.yaml").read_text())
    if path := os.environ.get("AUDIOPIPE_PROFILES"):
        for name, section in yaml.safe_load(Path(path).read_text()).items():
            merged[name] = merged.get(name, {}) | section
    return merged


def gpu_count() -> int:
    """GPUs that the NVIDIA driver knows; 0 where there is no driver."""
    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


def arguments(profile: str, *, cores: int | None = None, gpus: int | None = None, **overrides: Any) -> dict[str, Any]:
    """The engine of a profile and its arguments; overrides that are None count as not given.

    Args:
        cores, gpus: of this machine, if not the real ones.

    Raises:
        ConfigError: there is no such profile.
    """
    known = profiles()
    if profile not in known or profile == "default":
        names = ", ".join(sorted(set(known) - {"default"}))
        raise ConfigError(f"unknown cluster profile '{profile}': known are {names}")
    if known[profile]["engine"] == "auto":
        profile = "local-cuda" if (gpu_count() if gpus is None else gpus) else "local-cpu"
    given = {name: value for name, value in overrides.items() if value is not None}
    chosen = known["default"] | known[profile] | given
    if chosen.get("n_workers") == "cores":
        chosen["n_workers"] = cores or len(os.sched_getaffinity(0))
    return {name: value for name, value in chosen.items() if value is not None or name == "address"}


def connect(profile: str = "auto", **overrides: Any) -> Client:
    """A client of the profile's cluster, whose workers have come.

    A cluster that was started here is closed with the client's `cluster`; an existing one is left as it was.

    Raises:
        ConfigError: there is no such profile, or 'existing' without an address.
        ClusterError: it could not be reached, or its workers did not come in time.
    """
    chosen = arguments(profile, **overrides)
    engine, wait_s = chosen.pop("engine"), float(chosen.pop("wait_s"))
    client = _existing(chosen, wait_s) if engine == "existing" else _start(engine, chosen)
    wanted = chosen.get("n_workers") or 1
    try:
        client.wait_for_workers(wanted, timeout=wait_s)
    except TimeoutError:
        came = len(client.scheduler_info(n_workers=-1)["workers"])
        close(client)
        raise ClusterError(
            f"profile '{profile}': {came} of {wanted} workers came within {wait_s:.0f} s; "
            "look at the workers' own logs, or give them more time (wait_s)"
        ) from None
    return client


def close(client: Client) -> None:
    """Close a client, and the cluster if this process started it."""
    cluster = client.cluster
    client.close()
    if cluster is not None:
        cluster.close()


def _existing(chosen: Mapping[str, Any], wait_s: float) -> Client:
    address = chosen.get("address") or os.environ.get("DASK_SCHEDULER_ADDRESS")
    if not address:
        raise ConfigError("cluster profile 'existing' needs an address: set DASK_SCHEDULER_ADDRESS=tcp://host:8786")
    try:
        return Client(address, timeout=wait_s)
    except (OSError, TimeoutError) as error:
        raise ClusterError(f"no scheduler answers at {address}: {error}") from None


def _start(engine: str, chosen: dict[str, Any]) -> Client:
    module, name = engine.rsplit(".", 1)
    return Client(getattr(import_module(module), name)(**chosen))
