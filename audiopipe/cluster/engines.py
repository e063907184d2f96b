"""Translate a profile's options into the arguments of one of Dask's cluster classes. Nothing here imports Dask.

Engines name the same things differently: threads are `nthreads`, `threads_per_worker` or a job's cores, and the
dashboard belongs to the cluster or to the scheduler. There is one function for each engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from shlex import quote
from typing import TypeVar

from audiopipe.cluster.manifest import fill_manifest
from audiopipe.cluster.profiles import LOCAL_CUDA, Profile
from audiopipe.config.environment import WORKERS_PER_GPU
from audiopipe.errors import ConfigError

__all__ = ["CORES_PER_CUDA_WORKER", "EXISTING", "KUBERNETES", "SSH", "EngineArguments", "engine_arguments"]

EXISTING = "existing"
SSH = "dask.distributed.SSHCluster"
KUBERNETES = "dask_kubernetes.operator.KubeCluster"
WORKER_DASHBOARD = "127.0.0.1:0"
# A host is lost after a minute of silence; a new connection to it must answer soon.
SSH_TIMEOUTS = {"connect_timeout": 20, "keepalive_interval": 15, "keepalive_count_max": 3}
# A worker is one interpreter with two shards, and so at most eight decoders. With more cores its interpreter becomes
# the bottleneck, and each further worker takes its own share of the GPU's memory.
CORES_PER_CUDA_WORKER = 4
CONTAINER_UID = 10001  # user of cluster/Containerfile, who reads the certificates on the host

Arguments = dict[str, object]
T = TypeVar("T")


@dataclass(frozen=True)
class EngineArguments:
    """Arguments of an engine's class, the number of workers to wait for, and how many of them share a GPU."""

    arguments: Arguments
    wait_workers: int = 1
    workers_per_gpu: int = 1


def engine_arguments(profile: Profile) -> EngineArguments:
    """Translate a profile's options.

    Raises:
        ConfigError: an option is unknown, or a file that it names cannot be read.
    """
    return ENGINES.get(profile.engine, _same_names)(profile)


def useful_workers(cores: int, gpus: int) -> int:
    """Return the number of workers for each GPU, on a machine with this many cores and GPUs.

    >>> useful_workers(cores=16, gpus=1), useful_workers(cores=8, gpus=4)
    (4, 1)
    """
    return max(1, cores // max(1, gpus) // CORES_PER_CUDA_WORKER)


def _split(profile: Profile, kind: Callable[..., T]) -> tuple[T, Arguments]:
    """Split options into those that a dataclass describes and the engine's other arguments; None is not passed on."""
    described = fields(kind)  # type: ignore[arg-type] # `kind` is a dataclass
    names = {item.name for item in described}
    required = {item.name for item in described if item.default is MISSING and item.default_factory is MISSING}
    given = {name: value for name, value in profile.options.items() if value is not None}
    if missing := sorted(required - given.keys()):
        raise ConfigError(f"cluster profile '{profile.name}' needs {', '.join(missing)}")
    known = {name: value for name, value in given.items() if name in names}
    return kind(**known), {name: value for name, value in given.items() if name not in names}


def _refuse_unknown(profile: Profile, options: Mapping[str, object]) -> None:
    if options:
        raise ConfigError(f"cluster profile '{profile.name}' has no key {', '.join(sorted(options))}")


@dataclass(frozen=True)
class _Workers:
    n_workers: int | None = None


def _same_names(profile: Profile) -> EngineArguments:
    options, arguments = _split(profile, _Workers)
    if options.n_workers is not None:
        arguments["n_workers"] = options.n_workers
    return EngineArguments(arguments, options.n_workers or 1)


@dataclass(frozen=True)
class _CUDA:
    gpus: int
    cores: int
    workers_per_gpu: int | None = None
    n_workers: int | None = None


def _cuda(profile: Profile) -> EngineArguments:
    """Start as many workers for each GPU as the machine's cores can use, unless the profile has a number."""
    options, arguments = _split(profile, _CUDA)
    per_gpu = options.workers_per_gpu or useful_workers(options.cores, options.gpus)
    workers = options.n_workers or options.gpus * per_gpu
    return EngineArguments({"n_workers": workers, **arguments}, workers, -(-workers // max(1, options.gpus)))


@dataclass(frozen=True)
class _Existing:
    address: str | None = None
    n_workers: int | None = None


def _existing(profile: Profile) -> EngineArguments:
    """Join a cluster that has its own threads and dashboard; `n_workers` is the number of workers to wait for."""
    options, _ = _split(profile, _Existing)
    return EngineArguments({"address": options.address}, options.n_workers or 1)


@dataclass(frozen=True)
class _SSH:
    dashboard_address: str
    threads_per_worker: int
    hosts_file: str
    idle_timeout: str
    worker_class: str
    remote_python: str
    hosts: list[str] = field(default_factory=list)
    n_workers: int | None = None
    interface: str | None = None
    connect_options: Arguments = field(default_factory=dict)
    worker_options: Arguments = field(default_factory=dict)


def _ssh(profile: Profile) -> EngineArguments:
    """Start the scheduler and workers on the first host, and workers on the others; `n_workers` limits the hosts.

    If the driver is killed, scheduler and workers end after `idle_timeout`, because nothing else would end them.
    """
    options, unknown = _split(profile, _SSH)
    _refuse_unknown(profile, unknown)
    hosts = options.hosts or _read_hosts(options.hosts_file)
    hosts = hosts[: options.n_workers or len(hosts)]
    network = {"interface": options.interface} if options.interface else {}
    idle = options.idle_timeout
    scheduler_options = {"dashboard_address": options.dashboard_address, "idle_timeout": idle, **network}
    worker_options = _remote_worker(options.threads_per_worker, options.worker_options)
    arguments: Arguments = {
        "hosts": [hosts[0], *hosts],
        "connect_options": SSH_TIMEOUTS | options.connect_options,
        "worker_class": options.worker_class,
        "remote_python": options.remote_python,
        "scheduler_options": scheduler_options,
        "worker_options": {"death_timeout": idle, **worker_options, **network},
    }
    return EngineArguments(arguments, len(hosts))


def _read_hosts(path: str) -> list[str]:
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"cluster profile 'ssh' needs hosts or hosts_file: {error}") from None
    hosts = [line.split("#")[0].strip() for line in lines]
    if not any(hosts):
        raise ConfigError(f"cluster profile 'ssh': {path} names no host; write one per line")
    return [host for host in hosts if host]


def _remote_worker(threads: int, options: Mapping[str, object]) -> Arguments:
    return {"nthreads": threads, "dashboard_address": WORKER_DASHBOARD, **options}


@dataclass(frozen=True)
class _Cloud:
    dashboard_address: str
    threads_per_worker: int
    idle_timeout: str
    secrets: str
    n_workers: int = 1
    worker_options: Arguments = field(default_factory=dict)


def _cloud(profile: Profile, fetch: str, *prepare: str) -> EngineArguments:
    """Start one virtual machine per worker; its container reads secrets from files that only it and root can read.

    User data holds the address of the secrets, never the secrets; the node's role fetches them. If the driver is
    killed, scheduler and workers end after `idle_timeout`, and their machines with them.

    Args:
        fetch: command that copies a folder from the address of the secrets.
        prepare: commands to run before.
    """
    options, arguments = _split(profile, _Cloud)
    idle = options.idle_timeout
    arguments |= {
        "n_workers": options.n_workers,
        "worker_class": "audiopipe.cluster.cuda_workers.CUDAWorkers",
        "worker_options": {
            "death_timeout": idle,
            **_remote_worker(options.threads_per_worker, options.worker_options),
        },
        "scheduler_options": {"dashboard_address": options.dashboard_address, "idle_timeout": idle},
        "docker_args": "--env-file /etc/audiopipe/environment --volume /etc/audiopipe/tls:/etc/audiopipe/tls:ro",
        # Without `connect`'s own security the library would create keys and put them into user data.
        "security": False,
        "extra_bootstrap": [
            *prepare,
            "install -d -m 0700 /etc/audiopipe",
            f"{fetch} {options.secrets.rstrip('/')}/ /etc/audiopipe/",
            f"chown -R {CONTAINER_UID} /etc/audiopipe/tls",
            "chmod -R go= /etc/audiopipe",
        ],
    }
    return EngineArguments(arguments, options.n_workers)


def _ec2(profile: Profile) -> EngineArguments:
    install = "command -v aws || snap install aws-cli --classic"
    return _cloud(profile, "aws s3 cp --recursive --only-show-errors", install)


def _gcp(profile: Profile) -> EngineArguments:
    return _cloud(profile, "gcloud storage rsync --recursive")


@dataclass(frozen=True)
class _Kubernetes:
    manifest: str
    namespace: str
    n_workers: int
    threads_per_worker: int
    dashboard_address: str  # unused: the manifest has its own
    image: str | None = None


def _kubernetes(profile: Profile) -> EngineArguments:
    """Fill in the operator's manifest."""
    options, unknown = _split(profile, _Kubernetes)
    _refuse_unknown(profile, unknown)
    spec = fill_manifest(
        options.manifest,
        workers=options.n_workers,
        threads=options.threads_per_worker,
        image=options.image,
        environment=_lifetime_variables(profile),
        tls=profile.tls is not None,
    )
    # `quiet`, because its progress display would go to the command's standard output.
    arguments: Arguments = {"custom_cluster_spec": spec, "namespace": options.namespace, "quiet": True}
    return EngineArguments(arguments, options.n_workers)


def _lifetime_variables(profile: Profile) -> dict[str, str]:
    """Return the lifetime as environment variables, for pods and jobs, which do not get the driver's Dask settings."""
    return {
        f"DASK_DISTRIBUTED__WORKER__LIFETIME__{name.upper()}": value for name, value in (profile.lifetime or {}).items()
    }


@dataclass(frozen=True)
class _Slurm:
    dashboard_address: str
    threads_per_worker: int
    job_cpu: int
    n_workers: int = 1
    job_script_prologue: list[str] = field(default_factory=list)


def _slurm(profile: Profile) -> EngineArguments:
    """Start as many workers in each job as its cores can use; a worker has a thread for each shard in flight."""
    options, arguments = _split(profile, _Slurm)
    # Dask's profiler is off for the reason given in `connect._dask_settings`.
    variables = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"} | _lifetime_variables(profile)
    exports = [f"export {name}={quote(value)}" for name, value in variables.items()]
    workers = useful_workers(options.job_cpu, 1)
    exports.append(f"export {WORKERS_PER_GPU}={workers}")
    arguments |= {
        "n_workers": options.n_workers,
        "job_cpu": options.job_cpu,
        "cores": options.threads_per_worker * workers,
        "processes": workers,
        "scheduler_options": {"dashboard_address": options.dashboard_address},
        "worker_extra_args": ["--dashboard-address", WORKER_DASHBOARD],
        "job_script_prologue": [*options.job_script_prologue, *exports],
    }
    return EngineArguments(arguments, options.n_workers)


ENGINES: dict[str, Callable[[Profile], EngineArguments]] = {
    LOCAL_CUDA: _cuda,
    EXISTING: _existing,
    SSH: _ssh,
    "dask_cloudprovider.aws.EC2Cluster": _ec2,
    "dask_cloudprovider.gcp.GCPCluster": _gcp,
    KUBERNETES: _kubernetes,
    "dask_jobqueue.SLURMCluster": _slurm,
}
