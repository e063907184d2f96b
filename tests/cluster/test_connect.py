import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import dask.config
import psutil
import pytest
from distributed import LocalCluster
from factories import config

from audiopipe.cluster import connect as cluster
from audiopipe.errors import ClusterError, ConfigError

LOOPBACK = "127.0.0.1"


def test_auto_is_cpu_workers_where_there_is_no_gpu() -> None:
    chosen = cluster.arguments("auto", gpus=0, cores=6)
    assert chosen["engine"] == "dask.distributed.LocalCluster"
    assert chosen["n_workers"] == 6


@pytest.mark.parametrize(("cores", "gpus", "workers"), [(16, 1, 4), (96, 8, 24), (8, 4, 4), (6, 1, 1), (2, 1, 1)])
def test_auto_starts_a_worker_per_four_cores_of_a_gpu(cores: int, gpus: int, workers: int) -> None:
    chosen = cluster.arguments("auto", cores=cores, gpus=gpus)
    assert chosen["engine"] == "dask_cuda.LocalCUDACluster"
    assert chosen["n_workers"] == chosen["wait_workers"] == workers


def test_how_many_workers_share_a_gpu_can_be_said() -> None:
    assert cluster.arguments("local-cuda", cores=16, gpus=2, workers_per_gpu=1)["n_workers"] == 2
    assert cluster.arguments("local-cuda", cores=16, gpus=2, n_workers=3)["n_workers"] == 3


def test_a_gpu_s_limits_are_by_config() -> None:
    chosen = cluster.arguments(
        "local-cuda", gpus=2, rmm_pool_size="8 GB", device_memory_limit="20 GB", memory_limit="9 GB"
    )
    given = {name: chosen[name] for name in ("rmm_pool_size", "device_memory_limit", "memory_limit")}
    assert given == {"rmm_pool_size": "8 GB", "device_memory_limit": "20 GB", "memory_limit": "9 GB"}
    assert "rmm_pool_size" not in cluster.arguments("local-cuda", gpus=2)


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 4), ("0,1", 2), ("3", 1), ("", 0), ("-1", 0), ("0,-1,1", 1), ("0,1,2,3,4", 4)]
)
def test_gpus_that_are_hidden_do_not_count(monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int) -> None:
    monkeypatch.setattr("pynvml.nvmlInit", lambda: None)
    monkeypatch.setattr("pynvml.nvmlDeviceGetCount", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert cluster.gpu_count() == count


def test_gpus_that_pytorch_cannot_use_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "gpu_count", lambda: 2)

    def too_old() -> bool:
        warnings.warn("driver (found version 11040)", stacklevel=1)
        return False

    monkeypatch.setattr("torch.cuda.is_available", too_old)
    with pytest.raises(ConfigError, match=r"knows of 2 GPUs, and PyTorch .*\(found version 11040\).*local-cpu"):
        cluster.connect("auto")


@pytest.mark.parametrize(("device", "name"), [("auto", "auto"), ("cuda", "auto"), ("cpu", "local-cpu")])
def test_without_a_gpu_workers_follow_the_cores(monkeypatch: pytest.MonkeyPatch, device: str, name: str) -> None:
    asked = []
    monkeypatch.setattr(cluster, "connect", lambda profile, **given: asked.append((profile, given)))
    cluster.connect_for(config(device=device, workers=3))
    cluster.connect_for(config(device=device, cluster="slurm"))
    given = {"n_workers": 3, "threads_per_worker": 2}
    assert asked == [(name, given), ("slurm", given | {"n_workers": None})]


def test_arguments_override_the_profile_unless_they_are_none() -> None:
    chosen = cluster.arguments("local-cpu", n_workers=3, threads_per_worker=None)
    assert chosen["n_workers"] == 3
    assert chosen["threads_per_worker"] == 2


def test_a_users_file_adds_profiles_and_replaces_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("local-cpu: {n_workers: 7}\nlab: {engine: existing, address: 'tcp://lab:8786'}\n")
    monkeypatch.setenv("AUDIOPIPE_PROFILES", str(own))
    assert cluster.arguments("local-cpu")["n_workers"] == 7
    assert cluster.arguments("local-cpu")["host"] == LOOPBACK
    assert cluster.arguments("lab")["address"] == "tcp://lab:8786"


@pytest.mark.parametrize("name", ["default", "mars"])
def test_an_unknown_profile_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(
        ConfigError, match="known are auto, ec2, existing, gcp, kubernetes, local-cpu, local-cuda, slurm, ssh"
    ):
        cluster.arguments(name)


@pytest.mark.parametrize("name", ["local-cpu", "local-cuda"])
def test_the_dashboard_listens_on_loopback_alone(name: str) -> None:
    assert cluster.arguments(name)["dashboard_address"].startswith(LOOPBACK)
    assert cluster.arguments(name)["host"] == LOOPBACK


def test_existing_without_an_address_says_where_to_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match="DASK_SCHEDULER_ADDRESS"):
        cluster.connect("existing")


def test_a_scheduler_that_does_not_answer_is_named() -> None:
    with pytest.raises(ClusterError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9"):
        cluster.connect("existing", address="tcp://127.0.0.1:9", wait_s=1)


# A machine that is rented and whose scheduler never comes: its container ends at once, or a firewall is in between.
RENTED = """
import asyncio, pathlib
from distributed.deploy.spec import ProcessInterface, SpecCluster

class Machine(ProcessInterface):
    def note(self, word):
        with pathlib.Path({folder!r}, "notes").open("a") as notes:
            notes.write(word)

    async def start(self):
        self.note("rented, ")
        await asyncio.Event().wait()

    async def close(self):
        self.note("given back")
        await super().close()

class RentedCluster(SpecCluster):
    def __init__(self, threads_per_worker, dashboard_address):
        super().__init__(scheduler={{"cls": Machine}})
"""


def test_machines_without_a_scheduler_in_time_are_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rented_machines.py").write_text(RENTED.format(folder=str(tmp_path)))
    (tmp_path / "own.yaml").write_text("mine: {engine: rented_machines.RentedCluster, wait_s: 1}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AUDIOPIPE_PROFILES", str(tmp_path / "own.yaml"))
    with pytest.raises(ClusterError, match="'mine': its scheduler did not come within 1 s and is taken down again"):
        cluster.connect("mine")
    assert (tmp_path / "notes").read_text() == "rented, given back"


def test_connect_starts_workers_or_joins_an_existing_cluster() -> None:
    lifetime = {"duration": "1 hour", "stagger": "5 minutes"}
    with cluster.connect("local-cpu", n_workers=1, dashboard_address=":0", lifetime=lifetime) as client:
        assert dask.config.get("distributed.worker.lifetime.stagger") == "5 minutes"
        assert len(client.scheduler_info()["workers"]) == 1
        joined = cluster.connect("existing", address=client.scheduler.address)
        assert joined.submit(sum, [1, 2]).result() == 3
        cluster.close(joined)
        assert client.submit(sum, [1, 2]).result() == 3
        cluster.close(client)
    assert dask.config.get("distributed.worker.lifetime.stagger") == "0 seconds", "as before connect"


def test_workers_have_no_keys_of_the_driver_even_when_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_SERVICE_KEY", "a-secret")
    with cluster.connect("local-cpu", n_workers=1, dashboard_address=":0") as client:
        (first,) = client.run(os.getpid).values()
        assert "a-secret" not in Path(f"/proc/{first}/environ").read_text()
        client.restart()
        ((second, key),) = client.run(lambda: (os.getpid(), os.environ["SUPABASE_SERVICE_KEY"])).values()
        assert (first != second, key) == (True, "")
        assert os.environ["SUPABASE_SERVICE_KEY"] == "a-secret", "the driver has it still"
        cluster.close(client)


def test_workers_that_come_later_have_none_of_the_drivers_keys_either(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in cluster.DRIVERS_OWN:
        monkeypatch.setenv(name, "a-secret")
    with cluster.connect("local-cpu", n_workers=1, dashboard_address=":0") as client:
        client.cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        found = client.run(lambda: (os.getpid(), [os.environ[name] for name in cluster.DRIVERS_OWN]))
        assert len(found) == 2
        for process, keys in found.values():
            assert keys == ["", "", ""]
            assert "a-secret" not in Path(f"/proc/{process}/environ").read_text()
        client.sync(client.cluster._correct_state)  # while it starts workers the driver is without
        assert os.environ["SUPABASE_KEY"] == "a-secret", "the driver has it still"
        cluster.close(client)


def test_a_job_that_is_queued_later_has_none_of_the_drivers_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sbatch").write_text(
        f"#!/bin/sh\nenv > {tmp_path}/env.new\nmv {tmp_path}/env.new {tmp_path}/env\necho 7\n"
    )
    (tmp_path / "scancel").write_text("#!/bin/sh\n")
    for name in ("sbatch", "scancel"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SUPABASE_SERVICE_KEY", "a-secret")
    monkeypatch.setenv("AWS_REGION", "kept")
    start = cluster._engine("slurm", {"engine": "dask_jobqueue.SLURMCluster", "extra": "slurm", "wait_s": 60})
    with start(cores=1, memory="1GB", interface="lo", scheduler_options={"dashboard_address": ":0"}) as queue:
        queue.scale(1)
        deadline = time.monotonic() + 30
        while not (tmp_path / "env").exists():
            assert time.monotonic() < deadline, "nothing was submitted"
            time.sleep(0.05)
    told = (tmp_path / "env").read_text()
    assert "AWS_REGION=kept" in told
    assert "SUPABASE_SERVICE_KEY" not in told


def test_no_worker_runs_dasks_profiler_which_can_deadlock_python() -> None:
    with cluster.connect("local-cpu", n_workers=1, dashboard_address=":0") as client:
        enabled = client.run(lambda: __import__("dask").config.get("distributed.worker.profile.enabled"))
        client.cluster.close()
    assert list(enabled.values()) == [False]


def test_workers_that_do_not_come_are_counted() -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address=":0", host=LOOPBACK) as empty,
        pytest.raises(ClusterError, match="0 of 2 workers came within 1 s"),
    ):
        cluster.connect("existing", address=empty.scheduler_address, n_workers=2, wait_s=1)


@pytest.mark.slow
def test_adaptive_workers_come_for_work_and_go_and_no_task_is_lost() -> None:
    client = cluster.connect(
        "local-cpu", n_workers=0, dashboard_address=":0", adapt={"minimum": 1, "maximum": 2, "interval": "100ms"}
    )
    tasks = client.map(lambda number: time.sleep(0.3) or number, range(24))
    client.wait_for_workers(2, timeout=30)
    assert sum(client.gather(tasks)) == sum(range(24))
    deadline = time.monotonic() + 30
    while len(client.scheduler_info()["workers"]) > 1:
        assert time.monotonic() < deadline, "the second worker stays without work"
        time.sleep(0.2)
    cluster.close(client)


NEVER_CLOSES = """
import asyncio, os
from audiopipe import cluster

async def never():
    await asyncio.sleep(3600)

if __name__ == "__main__":
    cluster.CLOSED_WITHIN_S = 0.5
    client = cluster.connect("local-cpu", n_workers=1, threads_per_worker=1, dashboard_address=":0")
    print(client.submit(os.getpid).result(), flush=True)
    client.cluster._correct_state_internal = never
    cluster.close(client)
    print("closed", flush=True)
"""


def test_a_local_cluster_that_does_not_close_ends_with_its_process(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(NEVER_CLOSES)
    done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    worker, said = done.stdout.split()
    assert said == "closed"
    deadline = time.monotonic() + 10
    while psutil.pid_exists(int(worker)) and psutil.Process(int(worker)).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)
