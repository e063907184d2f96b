"""From a profile's flat keys to the arguments of one of Dask's cluster classes. Pure: nothing here knows Dask.

Each engine names the same things differently: threads are `nthreads`, `threads_per_worker` or a job's cores, the
dashboard is the cluster's or the scheduler's. A function an engine takes the profile and returns what its class takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote
from typing import Any

import yaml

from audiopipe.errors import ConfigError

__all__ = ["LOCAL", "OURS", "engine_arguments"]

LOCAL = ("dask.distributed.LocalCluster", "dask_cuda.LocalCUDACluster")  # workers are this machine's own processes

# Keys of a profile that are about the cluster and not the engine's own; `connect` reads them.
OURS = ("engine", "extra", "wait_s", "wait_workers", "tls", "adapt", "lifetime")
WORKER_DASHBOARD = "127.0.0.1:0"
# A host that says nothing for a minute is out of reach, and one that is tried again must answer soon.
SSH_PATIENCE = {"connect_timeout": 20, "keepalive_interval": 15, "keepalive_count_max": 3}
KUBERNETES, SLURM = "dask_kubernetes.operator.KubeCluster", "dask_jobqueue.SLURMCluster"
# Of these, what goes into a pod or a job, which do not get the driver's settings of Dask.
ALSO = {KUBERNETES: ("tls", "lifetime"), SLURM: ("lifetime",)}
# A worker is one interpreter with two shards under way, and so at most eight decoders. With more cores it would become
# what all wait for; and each further worker takes a part of the GPU's memory for itself.
CORES_A_CUDA_WORKER = 4
CONTAINER_UID = 10001  # of cluster/Containerfile: it reads the certificates that its host holds

Arguments = dict[str, Any]


def engine_arguments(profile: str, chosen: Mapping[str, Any]) -> Arguments:
    """The engine's own arguments, and beside them those of `OURS` that `connect` needs.

    Raises:
        ConfigError: a key that has no sensible default was not given, or a file that it names cannot be read.
    """
    missing = sorted(name for name, value in chosen.items() if value == "required")
    if missing:
        raise ConfigError(
            f"cluster profile '{profile}' needs {', '.join(missing)}: set them in its section of the file that "
            "AUDIOPIPE_PROFILES names"
        )
    own = {name: value for name, value in chosen.items() if name not in OURS}
    ours = {name: chosen.get(name) for name in OURS}
    own |= {name: chosen.get(name) for name in ALSO.get(chosen["engine"], ())}
    translated = ENGINES.get(chosen["engine"], _as_given)(own)
    ours["wait_workers"] = translated.pop("wait_workers", None) or translated.get("n_workers") or 1
    return ours | translated


def _as_given(options: Arguments) -> Arguments:
    return {name: value for name, value in options.items() if value is not None}


def useful_workers(cores: int, gpus: int) -> int:
    """How many workers each GPU has use for, on a machine with so many of both.

    >>> useful_workers(cores=16, gpus=1), useful_workers(cores=8, gpus=4)
    (4, 1)
    """
    return max(1, cores // max(1, gpus) // CORES_A_CUDA_WORKER)


def _cuda(options: Arguments) -> Arguments:
    """Without a number, as many workers as this machine's cores have use for."""
    options = _as_given(options)
    gpus, cores = options.pop("gpus"), options.pop("cores")
    each = options.pop("workers_per_gpu", None) or useful_workers(cores, gpus)
    return {"n_workers": gpus * each, **options}


def _existing(options: Arguments) -> Arguments:
    """Somebody else decides on its threads and its dashboard; how many workers to wait for is ours."""
    return {"address": options.get("address"), "wait_workers": options.get("n_workers")}


def _ssh(options: Arguments) -> Arguments:
    """The first host runs the scheduler and workers, the others workers; `n_workers` takes that many hosts.

    As in a cloud they end by themselves some time after a driver that was killed: nobody else would end them.
    """
    hosts = options["hosts"] or _read_hosts(options["hosts_file"])
    hosts = hosts[: options.get("n_workers") or len(hosts)]
    network = {"interface": options["interface"]} if options.get("interface") else {}
    idle = options["idle_timeout"]
    return {
        "hosts": [hosts[0], *hosts],
        "connect_options": SSH_PATIENCE | options["connect_options"],
        "worker_class": options["worker_class"],
        "remote_python": options["remote_python"],
        "scheduler_options": {"dashboard_address": options["dashboard_address"], "idle_timeout": idle, **network},
        "worker_options": {"death_timeout": idle, **_remote_worker(options), **network},
        "wait_workers": len(hosts),
    }


def _read_hosts(path: str) -> list[str]:
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(f"cluster profile 'ssh' needs hosts or hosts_file: {error}") from None
    hosts = [line.split("#")[0].strip() for line in lines]
    if not any(hosts):
        raise ConfigError(f"cluster profile 'ssh': {path} names no host; write one a line")
    return [host for host in hosts if host]


def _remote_worker(options: Mapping[str, Any]) -> Arguments:
    return {
        "nthreads": options["threads_per_worker"],
        "dashboard_address": WORKER_DASHBOARD,
        **options.get("worker_options", {}),
    }


def _cloud(options: Arguments, fetch: str) -> Arguments:
    """A virtual machine for each worker, on which the container finds its secrets in files that only it and root read.

    User data holds the address of the secrets, never the secrets; the node's own role fetches them. A scheduler without
    work and a worker without a scheduler end after a while, and their machines with them: a driver that was killed
    leaves no bill behind.
    """
    options = {name: value for name, value in options.items() if value is not None}
    secrets, idle = options.pop("secrets").rstrip("/"), options.pop("idle_timeout")
    worker = {"death_timeout": idle, **_remote_worker(options)}
    dashboard = options.pop("dashboard_address")
    del options["threads_per_worker"]
    return {
        **options,
        "worker_class": "audiopipe.cluster.cuda_workers.CUDAWorkers",
        "worker_options": worker,
        "scheduler_options": {"dashboard_address": dashboard, "idle_timeout": idle},
        "docker_args": "--env-file /etc/audiopipe/environment --volume /etc/audiopipe/tls:/etc/audiopipe/tls:ro",
        "security": False,  # unless `connect` has some: the library would make keys and put them into user data
        "extra_bootstrap": [
            "install -d -m 0700 /etc/audiopipe",
            f"{fetch} {secrets}/ /etc/audiopipe/",
            f"chown -R {CONTAINER_UID} /etc/audiopipe/tls",
            "chmod -R go= /etc/audiopipe",
        ],
    }


def _ec2(options: Arguments) -> Arguments:
    chosen = _cloud(options, "aws s3 cp --recursive --only-show-errors")
    chosen["extra_bootstrap"].insert(0, "command -v aws || snap install aws-cli --classic")
    return chosen


def _gcp(options: Arguments) -> Arguments:
    return _cloud(options, "gcloud storage rsync --recursive")


def _kubernetes(options: Arguments) -> Arguments:
    """The operator's own manifest, with the number of workers and their threads filled in."""
    try:
        spec = yaml.safe_load(Path(options["manifest"]).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cluster profile 'kubernetes' needs its manifest: {error}") from None
    spec["spec"]["worker"]["replicas"] = options["n_workers"]
    scheduler, worker = (spec["spec"][role]["spec"]["containers"][0] for role in ("scheduler", "worker"))
    worker["args"] = [*worker["args"], "--nthreads", str(options["threads_per_worker"])]
    if image := options.get("image"):
        worker["image"] = scheduler["image"] = image
    worker["env"] = [
        *worker.get("env", []),
        *({"name": one, "value": value} for one, value in _lifetime(options).items()),
    ]
    if not options["tls"]:
        for role in ("scheduler", "worker"):
            _without_encryption(spec["spec"][role]["spec"])
    elif not any(variable.get("value", "").startswith("tls://") for variable in worker["env"]):
        raise ConfigError(
            f"cluster profile 'kubernetes' encrypts, and the workers of {options['manifest']} do not: do as "
            "cluster/kubernetes/dask-cluster.yaml does, or set tls: false on a network that is yours alone"
        )
    return {
        "custom_cluster_spec": spec,
        "namespace": options["namespace"],
        "quiet": True,  # it draws its progress where a command's own output goes
        "wait_workers": options["n_workers"],
    }


def _without_encryption(pod: Arguments) -> None:
    """Take out of a pod what the manifest says of TLS."""
    said = ("DASK_DISTRIBUTED__COMM__", "DASK_SCHEDULER_ADDRESS")
    container = pod["containers"][0]
    container["env"] = [one for one in container.get("env", []) if not one["name"].startswith(said)]
    for place, kind in ((pod, "volumes"), (container, "volumeMounts")):
        place[kind] = [one for one in place.get(kind, []) if one["name"] != "tls"]


def _lifetime(options: Arguments) -> dict[str, str]:
    """As environment variables. A pod that has ended is started again; for a job another is queued, with `adapt`."""
    return {
        f"DASK_DISTRIBUTED__WORKER__LIFETIME__{name.upper()}": value
        for name, value in (options["lifetime"] or {}).items()
    }


def _slurm(options: Arguments) -> Arguments:
    """As many workers a job as its cores have use for. Shards in flight are a worker's threads."""
    variables = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False"} | _lifetime(options)  # why: cluster.py
    options = {name: value for name, value in options.items() if value is not None}
    options.pop("lifetime", None)
    threads, dashboard = options.pop("threads_per_worker"), options.pop("dashboard_address")
    before = options.pop("job_script_prologue", [])
    each = useful_workers(options["job_cpu"], 1)
    return {
        **options,
        "cores": threads * each,
        "processes": each,
        "scheduler_options": {"dashboard_address": dashboard},
        "worker_extra_args": ["--dashboard-address", WORKER_DASHBOARD],
        "job_script_prologue": [*before, *(f"export {name}={quote(value)}" for name, value in variables.items())],
    }


ENGINES: dict[str, Callable[[Arguments], Arguments]] = {
    "dask_cuda.LocalCUDACluster": _cuda,
    "existing": _existing,
    "dask.distributed.SSHCluster": _ssh,
    "dask_cloudprovider.aws.EC2Cluster": _ec2,
    "dask_cloudprovider.gcp.GCPCluster": _gcp,
    KUBERNETES: _kubernetes,
    SLURM: _slurm,
}
