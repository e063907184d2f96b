import os
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import dask.config
import pytest
from distributed import Client, LocalCluster
from distributed.comm.core import CommClosedError
from factories import config
from waiting import has_ended, wait_until

from audiopipe.cluster import connect, profiles
from audiopipe.cluster.dask_patches import DRIVER_SECRETS, without_secrets
from audiopipe.cluster.profiles import Profile
from audiopipe.errors import ClusterError, ConfigError

LOOPBACK = "127.0.0.1"


def test_gpus_that_pytorch_cannot_use_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (connect, profiles):
        monkeypatch.setattr(module, "gpu_count", lambda: 2)

    def too_old() -> bool:
        warnings.warn("driver (found version 11040)", stacklevel=1)
        return False

    monkeypatch.setattr("torch.cuda.is_available", too_old)
    with pytest.raises(ConfigError, match=r"has 2 GPUs, but PyTorch .*\(found version 11040\).*device='cpu'"):
        connect.connect("auto")


@pytest.mark.parametrize(("device", "profile"), [("auto", "auto"), ("cuda", "auto"), ("cpu", "local-cpu")])
def test_without_a_gpu_workers_follow_the_cores(monkeypatch: pytest.MonkeyPatch, device: str, profile: str) -> None:
    calls = []
    monkeypatch.setattr(connect, "connect", lambda profile, **options: calls.append((profile, options)))
    connect.connect_for(config(device=device, workers=3))
    connect.connect_for(config(device=device, cluster="slurm"))
    options = {"n_workers": 3, "threads_per_worker": 2}
    assert calls == [(profile, options), ("slurm", options | {"n_workers": None})]


def test_existing_without_an_address_says_where_to_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match="DASK_SCHEDULER_ADDRESS"):
        connect.connect("existing")


# What Dask raises if a process of the cluster is killed, depending on when.
KILLED = [RuntimeError("Nanny failed to start."), CommClosedError("in <TCP>"), AssertionError(), TimeoutError()]


@pytest.mark.parametrize("error", KILLED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("profile", ["local-cpu", "local-cuda", "slurm"])
def test_a_worker_that_is_killed_while_it_starts_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, error: Exception, profile: str
) -> None:
    def start(**_: object) -> None:
        raise error

    monkeypatch.setattr(connect, "_cluster_class", lambda _: start)
    monkeypatch.setattr(connect, "_check_gpus", lambda _: None)
    monkeypatch.setattr(connect, "_security", lambda _: None)
    with pytest.raises(ClusterError, match=f"profile '{profile}': .* start") as raised:
        connect.connect(profile)
    assert raised.value.exit_code == 4
    assert ("its last lines are above" in str(raised.value)) is profile.startswith("local")


def test_a_worker_that_is_killed_just_after_its_start_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def register(*_: object) -> None:
        raise CommClosedError("the worker is gone")

    monkeypatch.setattr(Client, "register_plugin", register)
    with pytest.raises(ClusterError, match="a worker process ended while it started"):
        connect.connect("local-cpu", n_workers=1, dashboard_address=":0")


def test_a_scheduler_that_does_not_answer_is_named() -> None:
    with pytest.raises(ClusterError, match=r"no scheduler answers at tcp://127\.0\.0\.1:9"):
        connect.connect("existing", address="tcp://127.0.0.1:9", wait_s=1)


# A cloud whose scheduler never starts: its container ends at once, or a firewall blocks its port.
RENTED = """
import asyncio, pathlib
from distributed.deploy.spec import ProcessInterface, SpecCluster

class Machine(ProcessInterface):
    def note(self, event):
        with pathlib.Path({folder!r}, "notes").open("a") as notes:
            notes.write(event)

    async def start(self):
        self.note("rented, ")
        await asyncio.Event().wait()

    async def close(self):
        self.note("deleted")
        await super().close()

class RentedCluster(SpecCluster):
    def __init__(self, threads_per_worker, dashboard_address):
        super().__init__(scheduler={{"cls": Machine}})
"""


def test_machines_without_a_scheduler_in_time_are_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rented_machines.py").write_text(RENTED.format(folder=str(tmp_path)))
    (tmp_path / "profiles.yaml").write_text("cloud: {engine: rented_machines.RentedCluster, wait_s: 1}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AUDIOPIPE_PROFILES", str(tmp_path / "profiles.yaml"))
    with pytest.raises(
        ClusterError, match="'cloud': its scheduler did not start within 1 s, and the cluster was deleted"
    ):
        connect.connect("cloud")
    assert (tmp_path / "notes").read_text() == "rented, deleted"


def test_connect_starts_workers_or_joins_an_existing_cluster() -> None:
    lifetime = {"duration": "1 hour", "stagger": "5 minutes"}
    with connect.connect("local-cpu", n_workers=1, dashboard_address=":0", lifetime=lifetime) as client:
        assert dask.config.get("distributed.worker.lifetime.stagger") == "5 minutes"
        assert len(client.scheduler_info()["workers"]) == 1
        joined = connect.connect("existing", address=client.scheduler.address)
        assert joined.submit(sum, [1, 2]).result() == 3
        connect.close(joined)
        assert client.submit(sum, [1, 2]).result() == 3
        connect.close(client)
    assert dask.config.get("distributed.worker.lifetime.stagger") == "0 seconds", "as before connect"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A cluster of one worker, started by a driver that has keys."""
    with pytest.MonkeyPatch.context() as environment:
        for name in DRIVER_SECRETS:
            environment.setenv(name, "a-secret")
        client = connect.connect("local-cpu", n_workers=1, dashboard_address=":0")
        yield client
        connect.close(client)


def environments(client: Client) -> dict[int, str]:
    """Return the environment of each worker by process id, as it was at its start and as it is now."""
    values = client.run(lambda: (os.getpid(), str(os.environ))).values()
    return {process: Path(f"/proc/{process}/environ").read_text() + now for process, now in values}


def test_restarted_workers_have_no_keys_of_the_driver(client: Client) -> None:
    first = environments(client)
    client.restart()
    second = environments(client)
    assert first.keys() != second.keys()
    assert "a-secret" not in str([first, second])


def test_workers_of_a_scaled_cluster_have_no_keys_of_the_driver(client: Client) -> None:
    client.cluster.scale(2)
    client.wait_for_workers(2, timeout=60)
    workers = environments(client)
    assert len(workers) == 2
    assert "a-secret" not in str(workers)
    client.sync(client.cluster._correct_state)  # the driver has no keys while it starts workers
    assert os.environ["SUPABASE_KEY"] == "a-secret", "the driver keeps it"


def test_keys_return_after_the_last_overlapping_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUPABASE_KEY", "a-secret")
    first, second = without_secrets(), without_secrets()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert "SUPABASE_KEY" not in os.environ
    second.__exit__(None, None, None)
    assert os.environ["SUPABASE_KEY"] == "a-secret"


def test_no_worker_runs_dasks_profiler_which_can_deadlock_python(client: Client) -> None:
    enabled = client.run(lambda: dask.config.get("distributed.worker.profile.enabled"))
    assert set(enabled.values()) == {False}


def test_workers_check_their_event_loops_twice_a_second(client: Client) -> None:
    intervals = client.run(lambda: dask.config.get("distributed.admin.tick.interval"))
    assert set(intervals.values()) == {"500ms"}


def test_a_queued_job_has_no_keys_of_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sbatch").write_text(
        f"#!/bin/sh\nenv > {tmp_path}/env.new\nmv {tmp_path}/env.new {tmp_path}/env\necho 7\n"
    )
    (tmp_path / "scancel").write_text("#!/bin/sh\n")
    for name in ("sbatch", "scancel"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SUPABASE_SERVICE_KEY", "a-secret")
    monkeypatch.setenv("AWS_REGION", "kept")
    start = connect._cluster_class(Profile("slurm", "dask_jobqueue.SLURMCluster", {}))
    with start(cores=1, memory="1GB", interface="lo", scheduler_options={"dashboard_address": ":0"}) as queue:
        queue.scale(1)
        wait_until((tmp_path / "env").exists, "a job is submitted")
    environment = (tmp_path / "env").read_text()
    assert "AWS_REGION=kept" in environment
    assert "SUPABASE_SERVICE_KEY" not in environment


def test_workers_that_do_not_start_are_counted() -> None:
    with (
        LocalCluster(n_workers=0, dashboard_address=":0", host=LOOPBACK) as empty,
        pytest.raises(ClusterError, match="0 of 2 workers started within 1 s"),
    ):
        connect.connect("existing", address=empty.scheduler_address, n_workers=2, wait_s=1)


@pytest.mark.slow
def test_an_adaptive_cluster_scales_and_loses_no_task() -> None:
    client = connect.connect(
        "local-cpu", n_workers=0, dashboard_address=":0", adapt={"minimum": 1, "maximum": 2, "interval": "100ms"}
    )
    tasks = client.map(lambda number: time.sleep(0.3) or number, range(24))
    client.wait_for_workers(2, timeout=30)
    assert sum(client.gather(tasks)) == sum(range(24))
    wait_until(lambda: len(client.scheduler_info()["workers"]) == 1, "the second worker retires")
    connect.close(client)


# A driver whose worker ignores every request to close.
UNCLOSABLE = """
import asyncio, os
from audiopipe.cluster import connect

async def never():
    await asyncio.Event().wait()

if __name__ == "__main__":
    connect.CLOSE_TIMEOUT_S = 0.5
    client = connect.connect("local-cpu", n_workers=1, threads_per_worker=1, dashboard_address=":0")
    print(client.submit(os.getpid).result(), flush=True)
    client.cluster._correct_state_internal = never
    connect.close(client)
    print("closed", flush=True)
"""


@pytest.mark.slow
def test_a_local_cluster_that_does_not_close_ends_with_its_process(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(UNCLOSABLE)
    done = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    worker, message = done.stdout.split()
    assert message == "closed"
    wait_until(lambda: has_ended(int(worker)), "the worker ends with its driver")
