"""Connect to a Dask cluster: start or join the cluster of a profile, and wait for its workers."""

from __future__ import annotations

import ipaddress
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask.config
from distributed import Client, LocalCluster, Security
from distributed.deploy.cluster import Cluster

from audiopipe.cluster.dask_patches import (
    NannyWithoutSecrets,
    OwnProcessGroup,
    StopProfiler,
    hide_interrupted_sync,
    patch,
    start_workers_without_main,
    without_secrets,
)
from audiopipe.cluster.engines import EXISTING, SSH, engine_arguments
from audiopipe.cluster.profiles import LOCAL_CUDA, Profile, gpu_count, resolve_profile
from audiopipe.cluster.ssh import supervised
from audiopipe.config import RunConfig
from audiopipe.config.environment import WORKERS_PER_GPU
from audiopipe.errors import ClusterError, ConfigError
from audiopipe.extras import missing_extra

__all__ = ["close", "connect", "connect_for"]

# Modules that an engine imports only when it starts; importing them first reports a missing package early.
DEFERRED_IMPORTS = {SSH: "asyncssh"}
TLS_FILES = ("ca.pem", "node.pem", "node.key")
CLOSE_TIMEOUT_S = 60.0
# Dask raises these if a process of a cluster ends while it starts; an assertion where only some of them had started.
START_ERRORS = (RuntimeError, OSError, TimeoutError, AssertionError)
# Dask settings by client id, from `connect` until `close`.
_SETTINGS: dict[str, dask.config.set] = {}


def connect_for(config: RunConfig) -> Client:
    """Connect to the cluster that a run's config names; raises as `connect`."""
    profile = "local-cpu" if (config.cluster, config.device) == ("auto", "cpu") else config.cluster
    return connect(profile, n_workers=config.workers, threads_per_worker=config.shards_in_flight)


def connect(profile: str = "auto", **overrides: Any) -> Client:
    """Start or join the cluster of a profile, and return a client once its workers are there.

    `close` closes a cluster that was started here, and leaves an existing one running.

    Args:
        profile: name of a section of `profiles.yaml`.
        overrides: keys of the profile to replace.

    Raises:
        ConfigError: the profile does not exist, it needs keys that were not given, or PyTorch cannot use the machine's
            GPUs.
        MissingExtra: a package that the profile needs is not installed.
        ClusterError: the cluster cannot be reached, or its workers did not start in time.
    """
    hide_interrupted_sync()
    start_workers_without_main()
    chosen = resolve_profile(profile, **overrides)
    engine = engine_arguments(chosen)
    if chosen.engine == EXISTING:
        address = _scheduler_address(engine.arguments["address"], chosen.tls)
        if not address.startswith("tls://"):
            chosen = replace(chosen, tls=None)
    if chosen.engine == LOCAL_CUDA:
        _check_gpus(profile)
    settings = dask.config.set(_dask_settings(chosen, engine.workers_per_gpu))
    try:
        client = _join(address, chosen) if chosen.engine == EXISTING else _start(chosen, engine.arguments)
    except BaseException:
        settings.__exit__(None, None, None)
        raise
    _SETTINGS[client.id] = settings
    try:
        _register_plugin(client, chosen)
        _wait_for_workers(client, chosen, int(chosen.adapt["minimum"]) if chosen.adapt else engine.wait_workers)
    except START_ERRORS as error:
        with suppress(*START_ERRORS):
            close(client)
        raise _start_failure(chosen, error) from None
    return client


def _register_plugin(client: Client, profile: Profile) -> None:
    if profile.local:
        client.register_plugin(OwnProcessGroup())
        return
    with suppress(
        ImportError, AttributeError
    ):  # a worker without this package, or with an older one, has its own error
        client.register_plugin(StopProfiler())


def close(client: Client) -> None:
    """Close a client, and its cluster if `connect` started it; restore Dask's settings."""
    cluster = client.cluster
    client.close()
    if cluster is not None:
        # A local worker that does not end in time is killed with this process; its shards are committed. Dask would
        # wait for it without a limit (dask/distributed#9300), also for one that `adapt` is starting. Machines of a
        # cloud get all the time they need, because they cost money until they are deleted.
        limit = {"timeout": CLOSE_TIMEOUT_S} if isinstance(cluster, LocalCluster) else {}
        with suppress(TimeoutError):
            cluster.close(**limit)
    if settings := _SETTINGS.pop(client.id, None):
        settings.__exit__(None, None, None)


def _check_gpus(profile: str) -> None:
    """Check that PyTorch can use the GPUs; otherwise a machine with an old driver would use its CPU only."""
    import torch  # noqa: PLC0415 - takes seconds, and only this profile needs it

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return
    reason = "; ".join(str(warning.message).split("\n")[0] for warning in caught) or "it finds no device"
    raise ConfigError(
        f"cluster profile '{profile}': NVIDIA's driver has {gpu_count()} GPUs, but PyTorch {torch.__version__} can use "
        f"none ({reason}): install driver 580 or newer, or set device='cpu' to run without GPUs"
    )


def _dask_settings(profile: Profile, workers_per_gpu: int) -> dict[str, object]:
    """Return Dask's settings for a profile. Remote workers get them too, so they hold paths and never keys."""
    settings: dict[str, object] = {
        f"distributed.worker.lifetime.{name}": value for name, value in (profile.lifetime or {}).items()
    }
    if settings:
        settings["distributed.worker.lifetime.restart"] = True
    # Dask's profiler reads the frames of all threads a hundred times a second, which can deadlock Python 3.11
    # (CPython gh-106883, dask/distributed#8616); a deadlocked worker still sends heartbeats.
    settings["distributed.worker.profile.enabled"] = False
    # Every server checks its event loop, 50 times a second by default: 3 % of a core with one local worker.
    settings["distributed.admin.tick.interval"] = "500ms"
    if profile.local:
        settings[f"distributed.nanny.environ.{WORKERS_PER_GPU}"] = str(workers_per_gpu)
    else:
        # SSHCluster reads the scheduler's address from its log (dask/distributed#8393), so the command's quiet
        # terminal must not change the log level of other processes.
        settings["logging"] = {"distributed": "info"}
    if profile.tls:
        ca, certificate, key = (str(Path(profile.tls).expanduser() / name) for name in TLS_FILES)
        settings["distributed.comm.tls.ca-file"] = ca
        for role in ("scheduler", "worker", "client"):
            settings[f"distributed.comm.tls.{role}.cert"] = certificate
            settings[f"distributed.comm.tls.{role}.key"] = key
        settings["distributed.comm.require-encryption"] = True
        settings["distributed.comm.default-scheme"] = "tls"
    return settings


def _start(profile: Profile, arguments: dict[str, object]) -> Client:
    """Start a cluster."""
    if security := _security(profile):
        arguments = arguments | {"security": security}
    if profile.local:
        arguments = {"worker_class": NannyWithoutSecrets} | arguments
    start = _cluster_class(profile)
    with without_secrets(), warnings.catch_warnings():
        # The dashboard of a second cluster on this machine gets another port, which its link shows.
        warnings.filterwarnings("ignore", message=r"Port \d+ is already in use")
        try:
            cluster = start(**arguments)
        except START_ERRORS as error:
            raise _start_failure(profile, error) from None
    if profile.adapt:
        cluster.adapt(**profile.adapt)
    try:
        return Client(cluster)
    except START_ERRORS as error:
        cluster.close()
        raise _start_failure(profile, error) from None


def _start_failure(profile: Profile, error: BaseException) -> ClusterError:
    """Describe why a cluster did not start; a worker process of this machine has written its last lines."""
    reason = f"{error or type(error).__name__}"
    if not profile.local:
        return ClusterError(f"profile '{profile.name}': the cluster did not start: {reason}; read the workers' logs")
    return ClusterError(
        f"profile '{profile.name}': a worker process ended while it started ({reason}); its last lines are above"
    )


def _cluster_class(profile: Profile) -> Callable[..., Cluster]:
    """Import the engine's class or function, with the changes that it needs."""
    module, name = profile.engine.rsplit(".", 1)
    try:
        import_module(DEFERRED_IMPORTS.get(profile.engine, module))
        start = getattr(import_module(module), name)
    except ImportError as error:
        raise missing_extra(f"cluster profile '{profile.name}'", error, profile.extra) from None
    if profile.engine == SSH:
        return supervised(start)
    return patch(start, profile) if isinstance(start, type) else start


def _security(profile: Profile) -> Security | None:
    """Return TLS with the files of `_dask_settings`; both sides must show a certificate of the same authority."""
    if not profile.tls:
        return None
    missing = [name for name in TLS_FILES if not (Path(profile.tls).expanduser() / name).is_file()]
    if missing:
        raise ConfigError(
            f"cluster profile '{profile.name}' encrypts, but {profile.tls} has no {', '.join(missing)}: make them with "
            "cluster/make_tls.sh, or set tls: false on a private network"
        )
    return Security(require_encryption=True)


def _scheduler_address(address: object, tls: str | None) -> str:
    """Return the address of an existing scheduler, if connecting to it is safe."""
    address = str(address or os.environ.get("DASK_SCHEDULER_ADDRESS", ""))
    if not address:
        raise ConfigError("cluster profile 'existing' needs an address: set DASK_SCHEDULER_ADDRESS=tls://host:8786")
    if tls and not address.startswith("tls://") and not _is_loopback(address):
        raise ConfigError(f"{address} is not encrypted: use tls://, or set tls: false on a private network")
    return address


def _is_loopback(address: str) -> bool:
    host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or address.startswith("inproc://")


def _join(address: str, profile: Profile) -> Client:
    """Connect to a scheduler. Dask retries a refused connection; this also retries one that ends in the handshake."""
    security = _security(profile)
    deadline = time.monotonic() + profile.wait_s
    while True:
        try:
            return Client(address, timeout=max(1.0, deadline - time.monotonic()), security=security)
        except (OSError, TimeoutError) as error:
            if time.monotonic() > deadline:
                raise ClusterError(f"no scheduler answers at {address}: {error}") from None
        time.sleep(0.5)


def _wait_for_workers(client: Client, profile: Profile, count: int) -> None:
    try:
        client.wait_for_workers(max(1, count), timeout=profile.wait_s)
    except TimeoutError:
        # A scheduler that has ended meanwhile would not answer.
        started = len(client.scheduler_info(n_workers=-1)["workers"]) if client.status == "running" else 0
        close(client)
        raise ClusterError(
            f"profile '{profile.name}': {started} of {count} workers started within {profile.wait_s:.0f} s; read the "
            "workers' logs, or set a longer wait_s"
        ) from None
