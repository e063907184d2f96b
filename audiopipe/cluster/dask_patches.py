"""Changes to Dask's cluster classes at run time; each names the upstream behavior that makes it necessary.

A change is a mixin that `patch` puts in front of a cluster class. The versions that they were written for:
distributed 2026.7.1, dask-cuda 26.10, dask-cloudprovider 2025.9, dask-kubernetes 2026.3.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from multiprocessing import spawn
from typing import Any

from distributed import Nanny, Security, SpecCluster, Worker, WorkerPlugin, rpc
from distributed.core import Status
from distributed.deploy.cluster import Cluster

from audiopipe.cluster.engines import KUBERNETES
from audiopipe.cluster.profiles import LOCAL_CPU, LOCAL_CUDA, Profile
from audiopipe.errors import ClusterError

__all__ = [
    "DRIVER_SECRETS",
    "NannyWithoutSecrets",
    "OwnProcessGroup",
    "StopProfiler",
    "hide_interrupted_sync",
    "patch",
    "start_workers_without_main",
    "without_secrets",
]

# Only the driver talks to Supabase: workers, which read files of strangers, are started without its keys.
DRIVER_SECRETS = ("SUPABASE_SERVICE_KEY", "SUPABASE_KEY", "SUPABASE_ACCESS_TOKEN")


class _InterruptedSync(logging.Filter):
    """Drops the error of a request to the scheduler that is interrupted before it has begun.

    `distributed.utils.sync` then cancels a variable that does not exist yet. Nothing is wrong: the request is not sent.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return not (kind is NameError and "sync.<locals>.cancel" in record.getMessage())


_INTERRUPTED_SYNC = _InterruptedSync()


def hide_interrupted_sync() -> None:
    """Keep a traceback out of the log of a run that is stopped by a signal."""
    logging.getLogger("tornado.application").addFilter(_INTERRUPTED_SYNC)


WORKER_PROCESS = "Dask Worker process (from Nanny)"  # Nanny's name for the process of a local worker
_prepare_with_main = spawn.get_preparation_data


def start_workers_without_main() -> None:
    """Let local workers start without importing the driver's script.

    Upstream: `spawn` imports the main script in each new process (dask/distributed#5726), so that a script that calls
    this package at its top level would start a cluster in every worker of the first one. Workers need nothing of it:
    cloudpickle sends what a script defines by value, as it does to workers on other machines.
    """
    vars(spawn)["get_preparation_data"] = _prepare_without_main


def _prepare_without_main(name: str) -> dict[str, Any]:
    data = _prepare_with_main(name)
    if name == WORKER_PROCESS:
        data = {key: value for key, value in data.items() if not key.startswith("init_main_from_")}
    return data


def patch(cluster_class: type[Cluster], profile: Profile) -> type[Cluster]:
    """Put the mixins that a profile's engine needs in front of its cluster class."""
    mixins: list[type[Cluster]] = []
    if profile.engine == KUBERNETES:
        _encrypt_kubernetes_rpc()
        mixins.append(KubernetesTLS)
    if issubclass(cluster_class, SpecCluster):
        mixins.append(WithoutSecrets)
    if profile.engine == LOCAL_CPU:
        mixins.append(CPUWorkerNames)
    if profile.engine == LOCAL_CUDA:
        mixins.append(GPUWorkerNames)
    if not profile.local:
        mixins.append(StartupTimeout)
    attributes = {"profile_name": profile.name, "startup_timeout_s": profile.wait_s}
    # Dask shows the name of the class, so the subclass keeps it.
    return type(cluster_class.__name__, (*mixins, cluster_class), attributes)


class StartupTimeout(Cluster):
    """Close a cluster whose scheduler does not start in time, so that none of its machines is billed further.

    Upstream: VMCluster waits for its scheduler without a limit (dask/dask-cloudprovider#277), and so does KubeCluster
    while the pod is pending (dask/dask-kubernetes#655).
    """

    profile_name: str
    startup_timeout_s: float

    async def _start(self) -> None:
        try:
            async with asyncio.timeout(self.startup_timeout_s) as deadline:
                await super()._start()  # type: ignore[no-untyped-call]
        except TimeoutError:
            if not deadline.expired():
                raise
            self.status = Status.failed  # `_close` leaves the machines of a cluster whose status is `starting`
            await self._close()  # type: ignore[no-untyped-call]
            raise ClusterError(
                f"profile '{self.profile_name}': its scheduler did not start within {self.startup_timeout_s:.0f} s, "
                "and the cluster was deleted; read the scheduler's log, check that this machine can reach its network, "
                "or set a longer wait_s"
            ) from None


class WithoutSecrets(SpecCluster):
    """Withhold the driver's keys from workers and jobs, also from those that `scale` and `adapt` start later.

    Upstream: a worker process inherits the environment of the driver, and no option excludes a variable: Dask's setting
    `distributed.nanny.environ` only adds variables, after the process has started (dask/distributed#5098).
    """

    async def _correct_state_internal(self) -> None:
        with without_secrets():
            await super()._correct_state_internal()


class NannyWithoutSecrets(Nanny):
    """Withhold the driver's keys from a local worker that its nanny restarts; see `WithoutSecrets`."""

    async def instantiate(self) -> Status:
        with without_secrets():
            return await super().instantiate()


class _SecretsOfDriver:
    """The keys that are out of the environment while at least one context needs them to be."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.contexts = 0
        self.removed: dict[str, str] = {}

    def withhold(self) -> None:
        with self.lock:
            self.contexts += 1
            self.removed |= {name: os.environ.pop(name) for name in DRIVER_SECRETS if name in os.environ}

    def restore(self) -> None:
        with self.lock:
            self.contexts -= 1
            if not self.contexts:
                os.environ.update(self.removed)
                self.removed.clear()


_SECRETS = _SecretsOfDriver()


@contextmanager
def without_secrets() -> Iterator[None]:
    """Remove the driver's keys from the environment, which processes started in this context inherit."""
    _SECRETS.withhold()
    try:
        yield
    finally:
        _SECRETS.restore()


class CPUWorkerNames(SpecCluster):
    """Name workers `cpu-0`, `cpu-1`, … on the dashboard, in the ledger and in reports.

    Upstream: LocalCluster names its workers by bare integers and finds them by these names, so the names are changed
    where it creates them.
    """

    async def _start(self) -> None:
        self.worker_spec = {
            f"cpu-{name}" if isinstance(name, int) else name: spec for name, spec in self.worker_spec.items()
        }
        await super()._start()  # type: ignore[no-untyped-call]

    def _new_worker_name(self, worker_number: int) -> str:
        return f"cpu-{worker_number}"


class GPUWorkerNames(SpecCluster):
    """Start several workers for each GPU, named `gpu-0`, `gpu-0.1`, `gpu-0.2`, …

    Upstream: LocalCUDACluster starts at most one worker for each GPU (rapidsai/dask-cuda#571), on the first device that
    no worker is named after; so it is shown the other devices as taken.
    """

    cuda_visible_devices: list[int]

    def new_worker_spec(self) -> dict[str, Any]:
        """Return the specification of another worker, on a device with the fewest workers."""
        workers, devices = self.worker_spec, self.cuda_visible_devices
        free = (
            (device, name)
            for number in itertools.count()
            for device in devices
            if (name := f"gpu-{device}.{number}" if number else f"gpu-{device}") not in workers
        )
        chosen, name = next(free)
        self.worker_spec = {device: None for device in devices if device != chosen}
        try:
            (spec,) = super().new_worker_spec().values()  # type: ignore[no-untyped-call]
        finally:
            self.worker_spec = workers
        return {name: spec}


class KubernetesTLS(Cluster):
    """Add a parameter `security` to KubeCluster; with it the driver talks TLS to the scheduler.

    Upstream: KubeCluster takes no `security` and always connects by tcp:// (dask/dask-kubernetes#857). The manifest
    makes scheduler and workers encrypt (cluster/kubernetes/dask-cluster.yaml); this is the driver's side.
    """

    def __init__(self, *, security: Security | None = None, **arguments: Any) -> None:
        self.security = security
        super().__init__(**arguments)  # type: ignore[no-untyped-call]

    async def _get_scheduler_address(self) -> str:
        address: str = await super()._get_scheduler_address()  # type: ignore[misc] # KubeCluster's
        return address.replace("tcp://", "tls://", 1) if self.security else address


def _encrypt_kubernetes_rpc() -> None:
    """Make dask-kubernetes connect with the certificates of Dask's settings; it calls `rpc` without any."""
    for name in ("dask_kubernetes.operator.kubecluster.kubecluster", "dask_kubernetes.operator.networking"):
        vars(import_module(name))["rpc"] = _rpc_with_certificates


def _rpc_with_certificates(address: str, **options: Any) -> rpc:
    return rpc(address, connection_args=Security().get_connection_args("client"), **options)


class OwnProcessGroup(WorkerPlugin):
    """Move a local worker to its own process group, so that an interrupt stops only the driver.

    Upstream: Ctrl-C in a terminal and JupyterLab's stop button signal the whole process group, which kills the workers
    of a LocalCluster (dask/distributed#1925). A worker still ends when its driver has died.
    """

    name = "audiopipe-process-group"

    def setup(self, worker: Worker) -> None:
        with suppress(PermissionError):  # a session leader already has its own group
            os.setpgid(0, 0)


class StopProfiler(WorkerPlugin):
    """Stop the profiler of a worker that was started without the settings of `connect`, by a plain `dask worker`.

    Upstream: it reads the frames of all threads a hundred times a second, which can deadlock Python 3.11
    (CPython gh-106883, dask/distributed#8616). The scheduler then waits five minutes before it restarts the worker.
    """

    name = "audiopipe-profiler"

    def setup(self, worker: Worker) -> None:
        for name in ("profile", "profile-cycle"):
            if callback := worker.periodic_callbacks.pop(name, None):
                callback.stop()
