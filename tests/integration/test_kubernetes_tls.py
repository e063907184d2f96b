"""Run the profile `kubernetes` with the shipped manifest, encrypted, on a stand-in for Kubernetes.

The driver, its `KubeCluster`, the functions of the operator, the scheduler and the workers are real, with the arguments
and the environment that the operator gives their pods; workers find GPUs in a stub of NVML. They share a network
namespace and a hosts file in which the scheduler has the name of its service.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kubernetes_stand_in import Kubernetes
from output_factory import config, content, corpus, make_output

from audiopipe.cluster.connect import connect
from audiopipe.errors import ClusterError

REPOSITORY = Path(__file__).parents[2]
ADDRESS = "10.66.0.1"
# Runs in new namespaces, whose processes end with it.
CLUSTER_NETWORK = """
set -e
mount --make-rprivate /
mount --bind "$1" /etc/hosts
ip link set lo up
ip link add eth0 type veth peer name switch
ip link set switch up
ip link set eth0 up
ip address add {address}/24 dev eth0
ip route add default dev eth0
exec "$2" "$3" "$4"
"""
NAMESPACES = ("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")
DRIVER = """
import asyncio, json, logging, os, pathlib, sys
from contextlib import suppress

from dask_kubernetes.operator.controller import controller
from distributed import Client
from kubernetes_stand_in import NAMESPACE, Kubernetes
from output_factory import config

from audiopipe.cluster.connect import close, connect
from audiopipe.driver import run

LOG = logging.getLogger("test")


async def connect_without_tls(address):
    \"\"\"Connect without certificates.\"\"\"
    try:
        async with Client(address, timeout=3, asynchronous=True, security={"require_encryption": False}):
            return "served"
    except OSError:
        return "refused"


async def call_operator():
    \"\"\"Do what the operator does by itself.\"\"\"
    with suppress(TypeError):  # the first check after work has no result; the operator checks again after five seconds
        await controller.check_scheduler_idle("audiopipe-scheduler", NAMESPACE, LOG)
    idle = await controller.check_scheduler_idle("audiopipe-scheduler", NAMESPACE, LOG)
    wanted = await controller.get_desired_workers("audiopipe-scheduler", NAMESPACE)
    retired = await controller.retire_workers(1, "audiopipe-scheduler", "audiopipe-default", NAMESPACE, LOG)
    return {"idle": idle, "wanted": wanted, "retired": retired}


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    folder = pathlib.Path(settings["folder"])
    kubernetes = Kubernetes(folder, {"/etc/audiopipe/tls": pathlib.Path(settings["tls"])})
    os.environ["KUBECONFIG"] = str(folder / "kubeconfig")
    try:
        client = connect("kubernetes", n_workers=2, manifest=settings["manifest"], tls=settings["tls"])
        workers = client.scheduler_info(n_workers=-1)["workers"]
        result = {"scheduler": client.scheduler.address}
        result["workers"] = {worker["name"]: address for address, worker in workers.items()}
        result["code"] = run.run(config(settings["catalog"], settings["output"]), client=client).exit_code
        result["without_tls"] = asyncio.run(connect_without_tls("tcp://audiopipe-scheduler:8786"))
        result |= asyncio.run(call_operator())
        close(client)
        result["left"] = sorted(name for _, name in kubernetes.objects)
        (folder / "result.json").write_text(json.dumps(result))
    finally:
        kubernetes.close()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.privileged,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.skipif(not shutil.which("ip"), reason="Debian's iproute2 is not installed"),
]


def run_on_kubernetes(folder: Path, catalog: Path) -> dict[str, Any]:
    """Run on the stand-in and return the observations of its driver."""
    stub = folder / "libnvidia-ml.so.1"
    source = str(Path(__file__).with_name("nvml_stub.c"))
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(stub), source], check=True)
    subprocess.run([REPOSITORY / "cluster/make_tls.sh", folder / "tls"], check=True, capture_output=True)
    name = "audiopipe-scheduler"
    names = f"{name} {name}.audiopipe {name}.audiopipe.svc.cluster.local"
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{ADDRESS} {os.uname().nodename} {names}\n")
    (folder / "driver.py").write_text(DRIVER)
    settings = {
        "folder": str(folder),
        "tls": str(folder / "tls"),
        "manifest": str(REPOSITORY / "cluster/kubernetes/dask-cluster.yaml"),
        "catalog": str(catalog),
        "output": str(folder / "out"),
    }
    path = ":".join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
    arguments = [str(folder / "hosts"), sys.executable, str(folder / "driver.py"), json.dumps(settings)]
    network = CLUSTER_NETWORK.format(address=ADDRESS)
    done = subprocess.run(
        [*NAMESPACES, "bash", "-c", network, "network", *arguments],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder), "AUDIOPIPE_STUB_GPUS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    logs = "".join(f"\n{log.name}: {log.read_text()[-1000:]}" for log in folder.glob("*.log"))
    assert done.returncode == 0, done.stderr[-3000:] + logs
    assert done.stdout == "", "the run writes to stdout"
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def test_a_kubernetes_run_is_encrypted_and_the_operator_can_scale_it(
    tmp_path: Path,
) -> None:
    catalog = corpus(tmp_path / "corpus", videos=4, missing=False)
    result = run_on_kubernetes(tmp_path, catalog)
    assert result["code"] == 0
    assert content(tmp_path / "out") == content(make_output(config(catalog, tmp_path / "expected")).url)
    assert result["scheduler"] == "tls://audiopipe-scheduler.audiopipe:8786"
    assert set(result["workers"]) == {"audiopipe-default-worker-0", "audiopipe-default-worker-1"}
    assert all(address.startswith(f"tls://{ADDRESS}:") for address in result["workers"].values())
    assert result["without_tls"] == "refused"
    assert result["idle"] > 0, "the idle time, which `idleTimeout` limits"
    assert (result["wanted"], len(result["retired"])) == (0, 1)
    assert set(result["retired"]) < set(result["workers"]), "deployments of these names are deleted"
    assert result["left"] == []


class WithoutNodes(Kubernetes):
    """Accepts a cluster and has no machine for it."""

    def operate(self, cluster: dict[str, Any]) -> None:
        cluster["status"] = {"phase": "Running"}


def test_a_cluster_that_kubernetes_cannot_place_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([REPOSITORY / "cluster/make_tls.sh", tmp_path / "tls"], check=True, capture_output=True)
    kubernetes = WithoutNodes(tmp_path, {})
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    manifest = str(REPOSITORY / "cluster/kubernetes/dask-cluster.yaml")
    try:
        with pytest.raises(ClusterError, match="'kubernetes': its scheduler did not start within 3 s"):
            connect("kubernetes", manifest=manifest, tls=str(tmp_path / "tls"), wait_s=3)
        assert not kubernetes.objects
    finally:
        kubernetes.close()
