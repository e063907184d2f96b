"""Start Dask-CUDA's workers over a stub of NVML, and check their devices, threads and limits; no GPU work is done."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from distributed.system import MEMORY_LIMIT

# Runs in another process: the loader reads LD_LIBRARY_PATH when a process starts.
PLACEMENT = """
import json, os, sys
import torch
from audiopipe.cluster.connect import close, connect
from audiopipe.cluster.profiles import gpu_count

torch.cuda.is_available = lambda: True

def device():
    return os.environ["CUDA_VISIBLE_DEVICES"]

def sharing():
    return os.environ["AUDIOPIPE_WORKERS_PER_GPU"]

if __name__ == "__main__":
    client = connect("auto", dashboard_address=":0", **json.loads(sys.argv[1]))
    workers = client.scheduler_info(n_workers=-1)["workers"]
    print(json.dumps({
        "engine": type(client.cluster).__name__,
        "gpus": gpu_count(),
        "devices": client.run(device),
        "sharing": sorted(set(client.run(sharing).values())),
        "names": sorted(worker["name"] for worker in workers.values()),
        "threads": [worker["nthreads"] for worker in workers.values()],
        "limits": [worker["memory_limit"] for worker in workers.values()],
        "hosts": [worker["host"] for worker in workers.values()],
    }))
    close(client)
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("nvml_stub.c")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(folder / "libnvidia-ml.so.1"), str(source)],
        check=True,
    )
    return folder


def place(stub: Path, gpus: int, script: str = PLACEMENT, visible: str = "", **overrides: Any) -> dict[str, Any]:
    (stub / "placement.py").write_text(script)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stub), "AUDIOPIPE_STUB_GPUS": str(gpus)}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    environment |= {"CUDA_VISIBLE_DEVICES": visible} if visible else {}
    done = subprocess.run(
        [sys.executable, str(stub / "placement.py"), json.dumps(overrides)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    placed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return placed


@pytest.mark.slow
def test_auto_starts_a_worker_per_device_which_it_sees_first(stub: Path) -> None:
    placed = place(stub, gpus=2, threads_per_worker=3, workers_per_gpu=1)
    assert placed["engine"] == "LocalCUDACluster"
    assert placed["gpus"] == len(placed["devices"]) == 2
    assert sorted(visible.split(",")[0] for visible in placed["devices"].values()) == ["0", "1"]
    assert placed["threads"] == [3, 3]
    assert placed["names"] == ["gpu-0", "gpu-1"]
    assert placed["sharing"] == ["1"]
    assert placed["hosts"] == ["127.0.0.1", "127.0.0.1"]


@pytest.mark.slow
def test_workers_keep_to_the_memory_that_they_are_given(stub: Path) -> None:
    placed = place(stub, gpus=2, memory_limit="2 GiB")
    assert placed["limits"] == [2 << 30, 2 << 30]


@pytest.mark.slow
def test_fewer_workers_than_devices_can_be_asked_for(stub: Path) -> None:
    placed = place(stub, gpus=4, n_workers=1)
    assert len(placed["devices"]) == 1


@pytest.mark.slow
def test_several_workers_share_a_device_and_the_memory_of_the_host(stub: Path) -> None:
    placed = place(stub, gpus=2, workers_per_gpu=2, memory_limit="auto")
    firsts = sorted(visible.split(",")[0] for visible in placed["devices"].values())
    assert firsts == ["0", "0", "1", "1"]
    assert placed["names"] == ["gpu-0", "gpu-0.1", "gpu-1", "gpu-1.1"]
    assert placed["sharing"] == ["2"]
    assert sum(placed["limits"]) <= MEMORY_LIMIT


@pytest.mark.slow
def test_devices_that_are_hidden_get_no_workers(stub: Path) -> None:
    placed = place(stub, gpus=4, visible="2,3", workers_per_gpu=1)
    assert placed["gpus"] == 2
    assert sorted(visible.split(",")[0] for visible in placed["devices"].values()) == ["2", "3"]
    assert placed["names"] == ["gpu-2", "gpu-3"]


# Starts the workers by the command that other machines use.
ELSEWHERE = """
import json, os, subprocess, sys
from distributed import Client, LocalCluster

def device():
    return os.environ["CUDA_VISIBLE_DEVICES"]

def sharing():
    return os.environ["AUDIOPIPE_WORKERS_PER_GPU"]

if __name__ == "__main__":
    with LocalCluster(n_workers=0, dashboard_address=":0") as here, Client(here) as client:
        spec = {"cls": "audiopipe.cluster.cuda_workers.CUDAWorkers", "opts": json.loads(sys.argv[1])}
        command = [sys.executable, "-m", "distributed.cli.dask_spec", here.scheduler_address]
        workers = subprocess.Popen([*command, "--spec", json.dumps(spec)])
        try:
            client.wait_for_workers(4, timeout=60)
            known = client.scheduler_info(n_workers=-1)["workers"].values()
            print(json.dumps({
                "devices": client.run(device),
                "sharing": sorted(set(client.run(sharing).values())),
                "names": sorted(worker["name"] for worker in known),
                "threads": [worker["nthreads"] for worker in known],
                "limits": [worker["memory_limit"] for worker in known],
            }))
        finally:
            workers.terminate()
            workers.wait(60)
"""


@pytest.mark.slow
def test_workers_of_other_machines_share_devices_the_same_way(stub: Path) -> None:
    placed = place(stub, gpus=2, script=ELSEWHERE, workers_per_gpu=2, name="node", nthreads=3)
    firsts = sorted(visible.split(",")[0] for visible in placed["devices"].values())
    assert firsts == ["0", "0", "1", "1"]
    assert placed["names"] == ["node-0", "node-1", "node.1-0", "node.1-1"]
    assert placed["threads"] == [3, 3, 3, 3]
    assert placed["sharing"] == ["2"]
    assert sum(placed["limits"]) <= MEMORY_LIMIT
