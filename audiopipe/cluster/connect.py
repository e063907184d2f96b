"""Workers: from a profile's name to a connected Dask client.

`arguments` turns a profile of `cluster/profiles.yaml` into the arguments of Dask's own cluster class, without starting
anything; `connect` starts or reaches it and waits until its workers are there.
"""

from __future__ import annotations

import ipaddress
import multiprocessing
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dask.config
import pynvml
import yaml
from distributed import Client, LocalCluster, Security, SpecCluster, Worker, WorkerPlugin

from audiopipe.cluster.engines import KUBERNETES, LOCAL, OURS, engine_arguments
from audiopipe.cluster.kubernetes_tls import encrypted
from audiopipe.cluster.ssh import supervised
from audiopipe.cluster.start_limit import with_startup_timeout
from audiopipe.cluster.worker_names import with_named_workers
from audiopipe.config import RunConfig
from audiopipe.errors import ClusterError, ConfigError
from audiopipe.extras import missing_extra

__all__ = ["arguments", "check_main_guard", "close", "connect", "connect_for", "gpu_count", "profiles"]

# What an engine's class imports only when it is used, so that its absence is told before anything is started.
IMPORTED_LATE = {"dask.distributed.SSHCluster": "asyncssh"}
TLS_FILES = ("ca.pem", "node.pem", "node.key")
# The driver alone talks to Supabase: workers, which read strangers' files, are started without its keys.
DRIVERS_OWN = ("SUPABASE_SERVICE_KEY", "SUPABASE_KEY", "SUPABASE_ACCESS_TOKEN")
CLOSED_WITHIN_S = 60.0
# What `connect` set in Dask's configuration for each client, until `close`.
_SETTINGS: dict[str, dask.config.set] = {}


def profiles() -> dict[str, dict[str, Any]]:
    """All profiles, the file that AUDIOPIPE_PROFILES names laid over the package's own."""
    merged: dict[str, dict[str, Any]] = yaml.safe_load((files("audiopipe.cluster") / "profiles.yaml").read_text())
    if path := os.environ.get("AUDIOPIPE_PROFILES"):
        for name, section in yaml.safe_load(Path(path).read_text()).items():
            merged[name] = merged.get(name, {}) | section
    return merged


def gpu_count() -> int:
    """GPUs that the NVIDIA driver knows, of those that CUDA_VISIBLE_DEVICES names if it is set; 0 without a driver."""
    try:
        pynvml.nvmlInit()
        known = int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return known
    named = takewhile(lambda name: name not in ("", "-1"), (name.strip() for name in visible.split(",")))
    return min(known, len(list(named)))


def arguments(profile: str, *, cores: int | None = None, gpus: int | None = None, **overrides: Any) -> dict[str, Any]:
    """The engine of a profile, what `connect` needs of it, and its class's own arguments.

    Args:
        cores, gpus: of this machine, if not the real ones.
        overrides: replace keys of the profile; None counts as not given.

    Raises:
        ConfigError: there is no such profile, or it needs what was not given.
    """
    known = profiles()
    if profile not in known or profile == "default":
        names = ", ".join(sorted(set(known) - {"default"}))
        raise ConfigError(f"unknown cluster profile '{profile}': known are {names}")
    devices = gpu_count() if gpus is None else gpus
    if known[profile]["engine"] == "auto":
        profile = "local-cuda" if devices else "local-cpu"
    given = {name: value for name, value in overrides.items() if value is not None}
    chosen = known["default"] | known[profile] | given
    cores = cores or len(os.sched_getaffinity(0))
    if chosen.get("n_workers") == "cores":
        chosen["n_workers"] = cores
    if chosen["engine"] == "dask_cuda.LocalCUDACluster":
        chosen |= {"gpus": devices, "cores": cores}
    return engine_arguments(profile, chosen)


def check_main_guard() -> None:
    """Check that this process is not a new worker that imports its driver's script.

    Dask starts local workers by `spawn`, which imports the main script in each of them (dask/distributed#5726). A call
    at the script's top level would start a cluster in every worker of the first one, and the driver would hang.

    Raises:
        ConfigError: it is.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ConfigError(
            "a worker process ran into this call while it imported your script: put the call under "
            'if __name__ == "__main__":'
        )


def connect_for(config: RunConfig) -> Client:
    """A client of the workers that a run asks for; raises as `connect`."""
    profile = "local-cpu" if (config.cluster, config.device) == ("auto", "cpu") else config.cluster
    return connect(profile, n_workers=config.workers, threads_per_worker=config.shards_in_flight)


def connect(profile: str = "auto", **overrides: Any) -> Client:
    """A client of the profile's cluster, whose workers have come.

    A cluster that was started here is closed by `close`; an existing one is left as it was.

    Raises:
        ConfigError: there is no such profile, it needs what was not given, or there are GPUs that PyTorch cannot use.
        MissingExtra: a package that the profile needs is not installed.
        ClusterError: it could not be reached, or its workers did not come in time.
    """
    check_main_guard()
    chosen = arguments(profile, **overrides)
    ours = {name: chosen.pop(name) for name in OURS}
    if ours["engine"] == "existing":
        chosen["address"], ours["tls"] = _address(chosen["address"], ours["tls"])
    if ours["engine"] == "dask_cuda.LocalCUDACluster":
        _refuse_idle_gpus(profile)
    settings = dask.config.set(_settings(ours))
    try:
        client = _reach(profile, ours, chosen)
    except BaseException:
        settings.__exit__(None, None, None)
        raise
    _SETTINGS[client.id] = settings
    if ours["engine"] in LOCAL:
        client.register_plugin(OwnProcessGroup())
    _wait(client, profile, ours)
    return client


def _refuse_idle_gpus(profile: str) -> None:
    """Without this a machine whose driver is too old would do all on its CPU, and be paid for its GPU."""
    import torch  # noqa: PLC0415 - seconds, which those who ask for other workers do not have to wait

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return
    reason = "; ".join(str(one.message).split("\n")[0] for one in said) or "it finds none of them"
    raise ConfigError(
        f"cluster profile '{profile}': the driver knows of {gpu_count()} GPUs, and PyTorch {torch.__version__} "
        f"can use none ({reason}): install a driver of version 580 or newer, or take cluster='local-cpu' to do without"
    )


class OwnProcessGroup(WorkerPlugin):
    """A worker in a process group of its own: a stop is for the driver, which goes on with the same workers later.

    JupyterLab's stop button and a terminal's Ctrl-C interrupt all processes of the group. A worker whose driver has
    died ends in any case.
    """

    name = "audiopipe-apart"

    def setup(self, worker: Worker) -> None:
        with suppress(PermissionError):  # it leads a session: it is in a group of its own
            os.setpgid(0, 0)


def close(client: Client) -> None:
    """Close a client, and the cluster if this process started it; Dask's settings are as before `connect`."""
    cluster = client.cluster
    client.close()
    if cluster is not None:
        # What is slow to end on this machine is killed at this process's end: what was done is done. And a cluster that
        # adapts may be starting a worker just now, for which Dask would wait. A cloud's machines take their time.
        limit = {"timeout": CLOSED_WITHIN_S} if isinstance(cluster, LocalCluster) else {}
        with suppress(TimeoutError):
            cluster.close(**limit)
    if settings := _SETTINGS.pop(client.id, None):
        settings.__exit__(None, None, None)


def _settings(profile_settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dask's settings for TLS, lifetimes and profiling. They go to remote workers as they are: paths, never keys."""
    settings: dict[str, Any] = {
        f"distributed.worker.lifetime.{name}": value for name, value in (profile_settings["lifetime"] or {}).items()
    }
    if settings:
        settings["distributed.worker.lifetime.restart"] = True
    # Dask's profiler asks for all threads' frames a hundred times a second, in which Python 3.11 deadlocks now and then
    # (CPython gh-106883): a worker then hangs for good, with its heart beating.
    settings["distributed.worker.profile.enabled"] = False
    if profile_settings["engine"] not in LOCAL:
        # What the command does to silence Dask's log is for its own terminal. Elsewhere logs are files that somebody
        # will need; and SSHCluster would wait for ever for the address that a scheduler logs.
        settings["logging"] = {"distributed": "info"}
    # A nanny keeps what it resolved while `_withheld` held, so that the workers it restarts have no keys either.
    settings |= {f"distributed.nanny.environ.{name}": "" for name in DRIVERS_OWN}
    if folder := profile_settings["tls"] and Path(profile_settings["tls"]).expanduser():
        ca, certificate, key = (str(folder / name) for name in TLS_FILES)
        settings["distributed.comm.tls.ca-file"] = ca
        for role in ("scheduler", "worker", "client"):
            settings[f"distributed.comm.tls.{role}.cert"] = certificate
            settings[f"distributed.comm.tls.{role}.key"] = key
        settings["distributed.comm.require-encryption"] = True
        settings["distributed.comm.default-scheme"] = "tls"
    return settings


def _reach(profile: str, profile_settings: Mapping[str, Any], chosen: dict[str, Any]) -> Client:
    security = _security(profile, profile_settings["tls"]) if profile_settings["tls"] else None
    if profile_settings["engine"] == "existing":
        return _existing(chosen["address"], profile_settings["wait_s"], security)
    start = _engine(profile, profile_settings)
    with without_secrets(), warnings.catch_warnings():
        # Of several clusters on a machine all but one have their dashboard elsewhere; its link is told in any case.
        warnings.filterwarnings("ignore", message=r"Port \d+ is already in use")
        try:
            cluster = start(**chosen | ({"security": security} if security else {}))
        except RuntimeError as error:
            if profile_settings["engine"] not in LOCAL:
                raise
            raise ClusterError(
                f"profile '{profile}': a worker process ended while it started ({error}); its last lines are above. "
                'If your script calls audiopipe at its top level, put the call under if __name__ == "__main__":'
            ) from None
    if profile_settings["adapt"]:
        cluster.adapt(**profile_settings["adapt"])
    return Client(cluster)


@contextmanager
def without_secrets() -> Iterator[None]:
    """This process without the driver's own secrets, which what it starts meanwhile would inherit."""
    kept = {name: os.environ.pop(name) for name in DRIVERS_OWN if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _start_without_secrets(start: Any) -> Any:
    """The cluster class with the keys withheld from workers and jobs that it starts later, too: `scale`, `adapt`.

    Engines that are functions start theirs on other machines, which inherit nothing.
    """
    if not (isinstance(start, type) and issubclass(start, SpecCluster)):
        return start

    async def correct(self: Any) -> None:
        with without_secrets():
            await start._correct_state_internal(self)

    return type(start.__name__, (start,), {"_correct_state_internal": correct})


def _engine(profile: str, profile_settings: Mapping[str, Any]) -> Any:
    module, name = profile_settings["engine"].rsplit(".", 1)
    try:
        import_module(IMPORTED_LATE.get(profile_settings["engine"], module))
        start = getattr(import_module(module), name)
    except ImportError as error:
        raise missing_extra(f"cluster profile '{profile}'", error, profile_settings["extra"]) from None
    if profile_settings["engine"] == "dask.distributed.SSHCluster":
        return supervised(start)
    if profile_settings["engine"] not in LOCAL:
        start = with_startup_timeout(start, profile, float(profile_settings["wait_s"]))
    if profile_settings["engine"] == KUBERNETES:
        return encrypted(start)
    return _start_without_secrets(with_named_workers(profile_settings["engine"], start))


def _security(profile: str, folder: str) -> Security:
    """Of the files that `_settings` has named; each side must show a certificate of the same authority."""
    missing = [name for name in TLS_FILES if not (Path(folder).expanduser() / name).is_file()]
    if missing:
        raise ConfigError(
            f"cluster profile '{profile}' encrypts, and {folder} has no {', '.join(missing)}: "
            "make them with cluster/make_tls.sh, or set tls: false on a network that is yours alone"
        )
    return Security(require_encryption=True)


def _address(address: str | None, tls: str | bool) -> tuple[str, str | bool]:
    """A scheduler's address, and the folder of its certificates if it encrypts."""
    address = address or os.environ.get("DASK_SCHEDULER_ADDRESS")
    if not address:
        raise ConfigError("cluster profile 'existing' needs an address: set DASK_SCHEDULER_ADDRESS=tls://host:8786")
    if address.startswith("tls://"):
        return address, tls
    if tls and not _loopback(address):
        raise ConfigError(f"{address} is not encrypted: use tls://, or set tls: false on a network that is yours alone")
    return address, False


def _existing(address: str, wait_s: float, security: Security | None) -> Client:
    """Dask asks again where nobody listens yet; a scheduler that ends while it is greeted is waited for here."""
    until = time.monotonic() + wait_s
    while True:
        try:
            return Client(address, timeout=max(1.0, until - time.monotonic()), security=security)
        except (OSError, TimeoutError) as error:
            if time.monotonic() > until:
                raise ClusterError(f"no scheduler answers at {address}: {error}") from None
        time.sleep(0.5)


def _loopback(address: str) -> bool:
    host = urlsplit(address if "//" in address else f"//{address}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or address.startswith("inproc://")


def _wait(client: Client, profile: str, profile_settings: Mapping[str, Any]) -> None:
    wanted = profile_settings["adapt"]["minimum"] if profile_settings["adapt"] else profile_settings["wait_workers"]
    try:
        client.wait_for_workers(max(1, wanted), timeout=float(profile_settings["wait_s"]))
    except TimeoutError:
        # A scheduler that went away meanwhile would be asked for ever.
        came = len(client.scheduler_info(n_workers=-1)["workers"]) if client.status == "running" else 0
        close(client)
        raise ClusterError(
            f"profile '{profile}': {came} of {wanted} workers came within {float(profile_settings['wait_s']):.0f} s; "
            "look at the workers' own logs, or give them more time (wait_s)"
        ) from None
