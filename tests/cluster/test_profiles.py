from pathlib import Path
from typing import Any

import pytest

from audiopipe.cluster.engines import engine_arguments
from audiopipe.cluster.profiles import gpu_count, resolve_profile
from audiopipe.errors import ConfigError

LOOPBACK = "127.0.0.1"


def arguments(profile: str, **options: Any) -> dict[str, Any]:
    """Return the arguments that a profile's cluster class gets."""
    return engine_arguments(resolve_profile(profile, **options)).arguments


def test_auto_is_cpu_workers_where_there_is_no_gpu() -> None:
    profile = resolve_profile("auto", gpus=0, cores=6)
    assert profile.engine == "dask.distributed.LocalCluster"
    assert engine_arguments(profile).arguments["n_workers"] == 6


@pytest.mark.parametrize(("cores", "gpus", "workers"), [(16, 1, 4), (96, 8, 24), (8, 4, 4), (6, 1, 1), (2, 1, 1)])
def test_auto_starts_a_worker_per_four_cores_of_a_gpu(cores: int, gpus: int, workers: int) -> None:
    profile = resolve_profile("auto", cores=cores, gpus=gpus)
    assert profile.engine == "dask_cuda.LocalCUDACluster"
    engine = engine_arguments(profile)
    assert engine.arguments["n_workers"] == engine.wait_workers == workers
    assert engine.workers_per_gpu == workers // gpus


def test_the_number_of_workers_per_gpu_can_be_set() -> None:
    assert arguments("local-cuda", cores=16, gpus=2, workers_per_gpu=1)["n_workers"] == 2
    assert arguments("local-cuda", cores=16, gpus=2, n_workers=3)["n_workers"] == 3


def test_memory_limits_of_a_gpu_can_be_set() -> None:
    limits = {"rmm_pool_size": "8 GB", "device_memory_limit": "20 GB", "memory_limit": "9 GB"}
    chosen = arguments("local-cuda", gpus=2, **limits)
    assert {name: chosen[name] for name in limits} == limits
    assert "rmm_pool_size" not in arguments("local-cuda", gpus=2)


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 4), ("0,1", 2), ("3", 1), ("", 0), ("-1", 0), ("0,-1,1", 1), ("0,1,2,3,4", 4)]
)
def test_hidden_gpus_are_not_counted(monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int) -> None:
    monkeypatch.setattr("pynvml.nvmlInit", lambda: None)
    monkeypatch.setattr("pynvml.nvmlDeviceGetCount", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_count() == count


def test_arguments_override_the_profile_unless_they_are_none() -> None:
    chosen = arguments("local-cpu", n_workers=3, threads_per_worker=None)
    assert chosen["n_workers"] == 3
    assert chosen["threads_per_worker"] == 2


def test_a_users_file_adds_profiles_and_replaces_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "profiles.yaml"
    file.write_text("local-cpu: {n_workers: 7}\nlab: {engine: existing, address: 'tcp://lab:8786'}\n")
    monkeypatch.setenv("AUDIOPIPE_PROFILES", str(file))
    assert arguments("local-cpu")["n_workers"] == 7
    assert arguments("local-cpu")["host"] == LOOPBACK
    assert arguments("lab")["address"] == "tcp://lab:8786"


@pytest.mark.parametrize("name", ["default", "mars"])
def test_an_unknown_profile_is_refused_with_the_known_ones(name: str) -> None:
    names = "auto, ec2, existing, gcp, kubernetes, local-cpu, local-cuda, slurm, ssh"
    with pytest.raises(ConfigError, match=f"known are {names}"):
        resolve_profile(name)


@pytest.mark.parametrize("profile", ["ssh", "kubernetes"])
def test_an_unknown_key_is_refused(profile: str) -> None:
    with pytest.raises(ConfigError, match=f"cluster profile '{profile}' has no key color, size"):
        arguments(profile, size=3, color="red")


def test_a_missing_key_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "profiles.yaml"
    file.write_text("lab: {engine: dask.distributed.SSHCluster, hosts: [alpha]}\n")
    monkeypatch.setenv("AUDIOPIPE_PROFILES", str(file))
    with pytest.raises(
        ConfigError, match="cluster profile 'lab' needs hosts_file, idle_timeout, remote_python, worker"
    ):
        arguments("lab")


@pytest.mark.parametrize("name", ["local-cpu", "local-cuda"])
def test_the_dashboard_listens_on_loopback_alone(name: str) -> None:
    assert arguments(name)["dashboard_address"].startswith(LOOPBACK)
    assert arguments(name)["host"] == LOOPBACK
