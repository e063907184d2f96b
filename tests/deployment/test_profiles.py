"""Check every profile's arguments against the signatures of Dask's classes, without starting a cluster."""

import asyncio
import importlib
import inspect
import subprocess
from pathlib import Path
from typing import Any

import dask.config
import pytest
import yaml
from dask.config import deserialize
from dask.utils import parse_timedelta
from dask_cloudprovider.generic.vmcluster import VMCluster
from dask_cloudprovider.utils.config_helper import serialize_custom_config
from distributed import Nanny, Scheduler, Security, Worker
from distributed.deploy.spec import SpecCluster
from distributed.utils import cli_keywords

from audiopipe.cluster import connect
from audiopipe.cluster.cuda_workers import CUDAWorkers
from audiopipe.cluster.engines import engine_arguments
from audiopipe.cluster.profiles import profiles, resolve_profile
from audiopipe.errors import ConfigError, MissingExtra

MANIFEST = str(Path(__file__).parents[2] / "cluster/kubernetes/dask-cluster.yaml")
GIVEN: dict[str, dict[str, Any]] = {
    "local-cpu": {"cores": 3},
    "local-cuda": {"gpus": 4},
    "ssh": {"hosts": ["alpha", "beta"]},
    "ec2": {
        "region": "us-east-1",
        "ami": "ami-1",
        "docker_image": "registry.example/audiopipe:1",
        "iam_instance_profile": {"Name": "audiopipe"},
        "secrets": "s3://private/audiopipe/",
        "security_groups": ["sg-1"],
    },
    "gcp": {
        "projectid": "speech",
        "zone": "us-central1-a",
        "network": "audiopipe",
        "source_image": "projects/speech/global/images/gpu",
        "docker_image": "registry.example/audiopipe:1",
        "service_account": "audiopipe@speech",
        "secrets": "gs://private/audiopipe",
    },
    "kubernetes": {"manifest": MANIFEST},
    "slurm": {},
}
BEYOND_THIS_MACHINE = ["ssh", "ec2", "gcp", "kubernetes", "slurm", "existing"]


def engine_of(profile: str) -> Any:
    module, name = profiles()[profile]["engine"].rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def parameters_of(engine: Any) -> set[str]:
    """Collect the parameters of a class and of all classes that get its **kwargs."""
    classes = list(inspect.getmro(engine)) if inspect.isclass(engine) else [engine, *inspect.getmro(SpecCluster)]
    if job := getattr(engine, "job_cls", None):
        classes += inspect.getmro(job)
    signatures = [
        inspect.signature(item if item is engine else item.__init__) for item in classes if item is not object
    ]
    return {name for signature in signatures for name in signature.parameters} - {"self", "args", "kwargs"}


def arguments(profile: str, **options: Any) -> dict[str, Any]:
    """Return the arguments that a profile's cluster class gets."""
    return engine_arguments(resolve_profile(profile, **options)).arguments


def dask_settings(profile: str, **options: Any) -> dict[str, Any]:
    return connect._dask_settings(resolve_profile(profile, **options), 1)


@pytest.mark.parametrize("profile", sorted(GIVEN))
def test_an_engine_accepts_every_argument_of_its_profile(profile: str) -> None:
    chosen = arguments(profile, **GIVEN[profile])
    assert chosen
    assert set(chosen) <= parameters_of(engine_of(profile))


def test_every_profile_is_among_those_checked() -> None:
    assert set(profiles()) - {"default", "auto", "existing"} == set(GIVEN)


@pytest.mark.parametrize("profile", ["ssh", "ec2", "gcp"])
def test_remote_workers_and_their_scheduler_take_their_options(profile: str) -> None:
    chosen = arguments(profile, **GIVEN[profile], threads_per_worker=3)
    # A CUDAWorker passes unknown arguments to its nannies, and these pass them to their workers.
    assert chosen["worker_class"] == f"{CUDAWorkers.__module__}.{CUDAWorkers.__name__}"
    assert set(chosen["worker_options"]) <= parameters_of(CUDAWorkers) | parameters_of(Nanny) | parameters_of(Worker)
    assert chosen["worker_options"]["nthreads"] == 3
    assert set(chosen["scheduler_options"]) <= parameters_of(Scheduler)


@pytest.mark.parametrize("profile", ["ssh", "ec2", "gcp"])
def test_remote_processes_of_a_killed_driver_end_by_themselves(profile: str) -> None:
    chosen = arguments(profile, **GIVEN[profile])
    assert chosen["scheduler_options"]["idle_timeout"] == chosen["worker_options"]["death_timeout"] == "30m"
    assert cli_keywords(chosen["scheduler_options"], cls=Scheduler)[-2:] == ["--idle-timeout", "30m"]
    assert parse_timedelta(chosen["scheduler_options"]["idle_timeout"]) == 30 * 60
    if profile == "ssh":
        return  # existing machines stay
    assert chosen["auto_shutdown"] is True
    labels = chosen.get("instance_labels") or chosen["instance_tags"]
    assert labels == {"audiopipe-run": "audiopipe"}, "teardown.sh finds them by this label"


@pytest.mark.parametrize("profile", sorted(GIVEN))
def test_the_dashboards_listen_on_loopback_by_default(profile: str) -> None:
    chosen = arguments(profile, **GIVEN[profile])
    if profile == "kubernetes":  # the scheduler's port is open, because the operator's probe uses the pod's network
        assert "127.0.0.1:0" in chosen["custom_cluster_spec"]["spec"]["worker"]["spec"]["containers"][0]["args"]
        return
    address = chosen.get("scheduler_options", chosen)["dashboard_address"]
    assert address.startswith("127.0.0.1:")
    changed = arguments(profile, **GIVEN[profile], dashboard_address="0.0.0.0:8787")
    assert changed.get("scheduler_options", changed)["dashboard_address"] == "0.0.0.0:8787"


@pytest.mark.parametrize("profile", BEYOND_THIS_MACHINE)
def test_remote_clusters_are_encrypted_by_default(profile: str) -> None:
    assert resolve_profile(profile, **GIVEN.get(profile, {})).tls == "/etc/audiopipe/tls"


def test_encryption_sets_paths_and_no_keys_in_dask_s_settings(tmp_path: Path) -> None:
    (tmp_path / "node.key").write_text("PRIVATE")
    settings = dask_settings("ssh", **GIVEN["ssh"], tls=str(tmp_path))
    assert settings["distributed.comm.require-encryption"] is True
    assert settings["distributed.comm.tls.worker.key"] == str(tmp_path / "node.key")
    assert "PRIVATE" not in str(settings)


def test_missing_certificates_are_listed_with_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no ca.pem, node.pem, node.key: .*make_tls.sh"):
        connect.connect("ssh", **GIVEN["ssh"], tls=str(tmp_path))


def test_an_unencrypted_scheduler_elsewhere_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"tcp://10\.0\.0\.1:8786 is not encrypted"):
        connect.connect("existing", address="tcp://10.0.0.1:8786")


def test_a_profile_that_needs_more_names_all_of_it() -> None:
    with pytest.raises(ConfigError, match="needs ami, docker_image, iam_instance_profile, region, secrets, security_g"):
        arguments("ec2")


@pytest.mark.parametrize(("profile", "extra"), [("ssh", "ssh"), ("ec2", "aws"), ("slurm", "slurm")])
def test_a_missing_extra_is_named(profile: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = {"ssh": "asyncssh", "ec2": "dask_cloudprovider.aws", "slurm": "dask_jobqueue"}[profile]
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtra, match=rf"pip install 'audiopipe\[{extra}\]'"):
        connect.connect(profile, **GIVEN[profile], tls=False)


def test_the_hosts_file_has_comments_and_a_scheduler_host_first(tmp_path: Path) -> None:
    file = tmp_path / "hosts"
    file.write_text("# speech\nalpha\nbeta  # old\n\ngamma\n")
    assert arguments("ssh", hosts_file=str(file))["hosts"] == ["alpha", "alpha", "beta", "gamma"]
    two = engine_arguments(resolve_profile("ssh", hosts_file=str(file), n_workers=2))
    assert two.arguments["hosts"] == ["alpha", "alpha", "beta"]
    assert two.wait_workers == 2


@pytest.mark.parametrize("content", [None, "# empty\n"])
def test_a_hosts_file_without_hosts_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "hosts"
    if content:
        file.write_text(content)
    with pytest.raises(ConfigError, match=str(file)):
        arguments("ssh", hosts_file=str(file))


def test_kubernetes_gets_a_manifest_with_workers_threads_and_image() -> None:
    chosen = arguments("kubernetes", manifest=MANIFEST, n_workers=5, threads_per_worker=3, image="a/b:2")
    spec = chosen["custom_cluster_spec"]["spec"]
    assert spec["worker"]["replicas"] == 5
    assert spec["worker"]["spec"]["containers"][0]["args"][-2:] == ["--nthreads", "3"]
    assert {spec[role]["spec"]["containers"][0]["image"] for role in ("worker", "scheduler")} == {"a/b:2"}


def test_a_slurm_job_requests_one_gpu_and_gets_certificate_paths() -> None:
    from dask_jobqueue.slurm import SLURMJob

    chosen = arguments("slurm", threads_per_worker=3, job_cpu=12)
    job_arguments = {name: value for name, value in chosen.items() if name in parameters_of(SLURMJob)}
    tls = Security(tls_ca_file="/t/ca.pem", tls_worker_cert="/t/node.pem", tls_worker_key="/t/node.key")
    script = SLURMJob("tls://10.0.0.1:8786", name="w", security=tls, protocol="tls://", **job_arguments).job_script()
    assert "#SBATCH --gres=gpu:1" in script
    assert "#SBATCH --cpus-per-task=12" in script
    assert "--nthreads 3" in script
    assert "--tls-key /t/node.key" in script


def unstarted(chosen: dict[str, Any]) -> Any:
    """Return an EC2Cluster that has started nothing and closes nothing."""
    from dask_cloudprovider.aws import EC2Cluster

    class Unstarted(EC2Cluster):  # type: ignore[misc]
        def __del__(self) -> None:
            """Skip the close of EC2Cluster."""

    async def make() -> Any:
        return Unstarted(**chosen, asynchronous=True)

    return asyncio.run(make())


def user_data(ec2: Any) -> str:
    """Render the user data of its nodes."""
    options = {name: ec2.options[name] for name in ("docker_args", "extra_bootstrap", "gpu_instance", "bootstrap")}
    options |= {"command": "dask", "env_vars": {}, "auto_shutdown": ec2.auto_shutdown, "image": "i"}
    return str(ec2.render_cloud_init(**options))


def test_ec2_user_data_names_where_secrets_are_and_holds_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ca.pem", "node.pem", "node.key"):
        (tmp_path / name).write_text("PRIVATE KEY")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-send")
    chosen = arguments("ec2", **GIVEN["ec2"], tls=str(tmp_path))
    with dask.config.set(dask_settings("ec2", **GIVEN["ec2"], tls=str(tmp_path))):
        sent = user_data(unstarted(chosen | {"security": Security(require_encryption=True)}))
        sent += str(deserialize(serialize_custom_config()))
    commands = yaml.safe_load(sent.partition("{")[0])["runcmd"]
    assert "aws s3 cp --recursive --only-show-errors s3://private/audiopipe/ /etc/audiopipe/" in commands
    assert any("--gpus=all" in line and "--env-file /etc/audiopipe/environment" in line for line in commands)
    assert not any("driver" in line for line in commands), (
        "the driver is part of the image, because the library installs one that is too old"
    )
    assert commands[-1] == "shutdown -h now", "the node shuts down when its container has ended"
    assert str(tmp_path / "node.key") in sent, "the path; the file comes from `secrets`"
    assert "PRIVATE" not in sent
    assert "do-not-send" not in sent


@pytest.mark.parametrize("profile", ["ec2", "gcp"])
def test_an_unencrypted_cloud_cluster_sends_no_keys_in_user_data(profile: str) -> None:
    """The library's default, `security=True`, creates certificates and puts them into the nodes' user data."""
    assert inspect.signature(VMCluster.__init__).parameters["security"].default is True
    assert arguments(profile, **GIVEN[profile], tls=False)["security"] is False


LIFETIME = {"duration": "23 hours", "stagger": "30 minutes"}


def test_lifetimes_are_staggered_and_lost_workers_replaced() -> None:
    settings = dask_settings("ssh", **GIVEN["ssh"], lifetime=LIFETIME)
    assert settings["distributed.worker.lifetime.stagger"] == "30 minutes"
    assert settings["distributed.worker.lifetime.restart"] is True


def test_jobs_and_pods_get_their_settings_explicitly(tmp_path: Path) -> None:
    prologue = arguments("slurm", job_script_prologue=["module load cuda"])["job_script_prologue"]
    assert prologue[0] == "module load cuda"
    done = subprocess.run(
        ["bash", "-c", "\n".join([*prologue[1:], "env -0"])], capture_output=True, text=True, check=True
    )
    job = dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)
    manifest = arguments("kubernetes", manifest=MANIFEST, lifetime=LIFETIME)["custom_cluster_spec"]
    pod = {item["name"]: item["value"] for item in manifest["spec"]["worker"]["spec"]["containers"][0]["env"]}
    for variables in (job, pod):
        collected = dask.config.collect_env(variables)["distributed"]["worker"]
        assert collected == {"profile": {"enabled": False}, "lifetime": LIFETIME}


def test_a_job_has_a_worker_for_every_four_cores_of_its_gpu() -> None:
    chosen = arguments("slurm", threads_per_worker=3)
    assert (chosen["processes"], chosen["cores"], chosen["job_cpu"]) == (4, 12, 16)
    assert "export AUDIOPIPE_WORKERS_PER_GPU=4" in chosen["job_script_prologue"]
    chosen = arguments("slurm", job_cpu=2)
    assert (chosen["processes"], chosen["cores"]) == (1, 2)


@pytest.mark.parametrize("profile", sorted(GIVEN))
def test_remote_processes_log_even_when_the_terminal_is_quiet(profile: str) -> None:
    """SSHCluster reads its scheduler's address from the log, and would hang without it."""
    settings = dask_settings(profile, **GIVEN[profile], tls=False)
    assert settings.get("logging") == (None if profile.startswith("local-") else {"distributed": "info"})


def test_ssh_drops_a_silent_host_after_a_minute_by_default() -> None:
    options = arguments("ssh", **GIVEN["ssh"], connect_options={"username": "speech", "connect_timeout": 5})
    assert options["connect_options"] == {
        "username": "speech",
        "connect_timeout": 5,
        "keepalive_interval": 15,
        "keepalive_count_max": 3,
    }
