"""The real LocalCUDACluster over a stub of NVML: who gets which device, threads and limits. Nothing about GPU work."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# In a process of its own: the loader reads LD_LIBRARY_PATH when a process starts.
PLACEMENT = """
import json, os, sys
from audiopipe import cluster

def device():
    return os.environ["CUDA_VISIBLE_DEVICES"]

if __name__ == "__main__":
    client = cluster.connect("auto", dashboard_address=":0", **json.loads(sys.argv[1]))
    workers = client.scheduler_info(n_workers=-1)["workers"]
    print(json.dumps({
        "engine": type(client.cluster).__name__,
        "gpus": cluster.gpu_count(),
        "devices": client.run(device),
        "names": sorted(worker["name"] for worker in workers.values()),
        "threads": [worker["nthreads"] for worker in workers.values()],
        "limits": [worker["memory_limit"] for worker in workers.values()],
        "hosts": [worker["host"] for worker in workers.values()],
    }))
    cluster.close(client)
"""


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("nvml_stub.c")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(folder / "libnvidia-ml.so.1"), str(source)],
        check=True,
    )
    (folder / "placement.py").write_text(PLACEMENT)
    return folder


def place(stub: Path, gpus: int, **overrides: Any) -> dict[str, Any]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(stub), "AUDIOPIPE_STUB_GPUS": str(gpus)}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
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
def test_auto_starts_one_worker_a_device_each_seeing_its_own_first(stub: Path) -> None:
    placed = place(stub, gpus=2, threads_per_worker=3)
    assert placed["engine"] == "LocalCUDACluster"
    assert placed["gpus"] == len(placed["devices"]) == 2
    assert sorted(visible.split(",")[0] for visible in placed["devices"].values()) == ["0", "1"]
    assert placed["threads"] == [3, 3]
    assert placed["names"] == ["gpu-0", "gpu-1"]
    assert placed["hosts"] == ["127.0.0.1", "127.0.0.1"]


@pytest.mark.slow
def test_workers_keep_to_the_memory_that_they_are_given(stub: Path) -> None:
    placed = place(stub, gpus=2, memory_limit="2 GiB")
    assert placed["limits"] == [2 << 30, 2 << 30]


@pytest.mark.slow
def test_fewer_workers_than_devices_can_be_asked_for(stub: Path) -> None:
    placed = place(stub, gpus=4, n_workers=1)
    assert len(placed["devices"]) == 1
