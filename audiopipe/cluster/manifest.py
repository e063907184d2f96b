"""The manifest of a Dask cluster on Kubernetes, filled in for a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from audiopipe.errors import ConfigError

__all__ = ["fill_manifest"]

Object = dict[str, Any]  # a Kubernetes object, as its YAML


def fill_manifest(
    path: str, *, workers: int, threads: int, image: str | None, environment: Mapping[str, str], tls: bool
) -> Object:
    """Read a manifest of the Dask operator and set its workers, their threads, image and environment.

    Args:
        image: replaces the image of scheduler and workers; None keeps the manifest's.
        tls: whether the cluster encrypts; if not, the manifest's TLS settings are removed.

    Raises:
        ConfigError: the file cannot be read, or its workers do not encrypt and `tls` is set.
    """
    try:
        manifest: Object = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cluster profile 'kubernetes' needs its manifest: {error}") from None
    spec = manifest["spec"]
    spec["worker"]["replicas"] = workers
    scheduler, worker = (spec[role]["spec"]["containers"][0] for role in ("scheduler", "worker"))
    worker["args"] = [*worker["args"], "--nthreads", str(threads)]
    if image:
        worker["image"] = scheduler["image"] = image
    variables = [{"name": name, "value": value} for name, value in environment.items()]
    worker["env"] = [*worker.get("env", []), *variables]
    if not tls:
        for role in ("scheduler", "worker"):
            _remove_tls(spec[role]["spec"])
    elif not any(variable.get("value", "").startswith("tls://") for variable in worker["env"]):
        raise ConfigError(
            f"cluster profile 'kubernetes' has tls set, but the workers of {path} do not encrypt: copy the TLS "
            "settings of cluster/kubernetes/dask-cluster.yaml, or set tls: false on a private network"
        )
    return manifest


def _remove_tls(pod: Object) -> None:
    """Remove the manifest's TLS settings from a pod."""
    prefixes = ("DASK_DISTRIBUTED__COMM__", "DASK_SCHEDULER_ADDRESS")
    container = pod["containers"][0]
    container["env"] = [item for item in container.get("env", []) if not item["name"].startswith(prefixes)]
    for parent, kind in ((pod, "volumes"), (container, "volumeMounts")):
        parent[kind] = [item for item in parent.get(kind, []) if item["name"] != "tls"]
