"""The profile `kubernetes`: a whole run by the manifest that is shipped, encrypted, on a stand-in for Kubernetes.

Real are the driver and its `KubeCluster`, the operator's functions, and the scheduler and the workers with the
arguments and the environment that the operator gives their pods; workers find GPUs in a stub of NVML. They have a
network and a table of names of their own, in which the scheduler has the name of its service.
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
# In namespaces of its own, which end with it and take all processes along.
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
APART = ("unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child")
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


async def plainly(address):
    \"\"\"What somebody without certificates gets to hear.\"\"\"
    try:
        async with Client(address, timeout=3, asynchronous=True, security={"require_encryption": False}):
            return "served"
    except OSError:
        return "refused"


async def operated():
    \"\"\"What the operator finds out and does by itself.\"\"\"
    with suppress(TypeError):  # the first look after work has no answer; the operator looks again after five seconds
        await controller.check_scheduler_idle("audiopipe-scheduler", NAMESPACE, LOG)
    idle = await controller.check_scheduler_idle("audiopipe-scheduler", NAMESPACE, LOG)
    wanted = await controller.get_desired_workers("audiopipe-scheduler", NAMESPACE)
    retired = await controller.retire_workers(1, "audiopipe-scheduler", "audiopipe-default", NAMESPACE, LOG)
    return {"idle": idle, "wanted": wanted, "retired": retired}


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    folder = pathlib.Path(told["folder"])
    kubernetes = Kubernetes(folder, {"/etc/audiopipe/tls": pathlib.Path(told["tls"])})
    os.environ["KUBECONFIG"] = str(folder / "kubeconfig")
    try:
        client = connect("kubernetes", n_workers=2, manifest=told["manifest"], tls=told["tls"])
        workers = client.scheduler_info(n_workers=-1)["workers"]
        said = {"scheduler": client.scheduler.address, "workers": {one["name"]: at for at, one in workers.items()}}
        said["code"] = run.run(config(told["catalog"], told["output"]), client=client).exit_code
        said["plainly"] = asyncio.run(plainly("tcp://audiopipe-scheduler:8786"))
        said |= asyncio.run(operated())
        close(client)
        said["left"] = sorted(name for _, name in kubernetes.objects)
        (folder / "said").write_text(json.dumps(said))
    finally:
        kubernetes.close()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.privileged,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.skipif(not shutil.which("ip"), reason="Debian's iproute2 is not installed"),
]


def on_kubernetes(folder: Path, catalog: Path) -> dict[str, Any]:
    """What a run on the stand-in had to say."""
    stub = folder / "libnvidia-ml.so.1"
    source = str(Path(__file__).with_name("nvml_stub.c"))
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(stub), source], check=True)
    subprocess.run([REPOSITORY / "cluster/make_tls.sh", folder / "tls"], check=True, capture_output=True)
    name = "audiopipe-scheduler"
    names = f"{name} {name}.audiopipe {name}.audiopipe.svc.cluster.local"
    (folder / "hosts").write_text(f"127.0.0.1 localhost\n{ADDRESS} {os.uname().nodename} {names}\n")
    (folder / "driver.py").write_text(DRIVER)
    told = {
        "folder": str(folder),
        "tls": str(folder / "tls"),
        "manifest": str(REPOSITORY / "cluster/kubernetes/dask-cluster.yaml"),
        "catalog": str(catalog),
        "output": str(folder / "out"),
    }
    path = ":".join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
    arguments = [str(folder / "hosts"), sys.executable, str(folder / "driver.py"), json.dumps(told)]
    network = CLUSTER_NETWORK.format(address=ADDRESS)
    done = subprocess.run(
        [*APART, "bash", "-c", network, "network", *arguments],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder), "AUDIOPIPE_STUB_GPUS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    logs = "".join(f"\n{log.name}: {log.read_text()[-1000:]}" for log in folder.glob("*.log"))
    assert done.returncode == 0, done.stderr[-3000:] + logs
    assert done.stdout == "", "what a command prints is its own"
    said: dict[str, Any] = json.loads((folder / "said").read_text())
    return said


def test_a_kubernetes_run_is_encrypted_and_the_operator_can_scale_it(
    tmp_path: Path,
) -> None:
    catalog = corpus(tmp_path / "corpus", videos=4, missing=False)
    said = on_kubernetes(tmp_path, catalog)
    assert said["code"] == 0
    assert content(tmp_path / "out") == content(make_output(config(catalog, tmp_path / "calm")).url)
    assert said["scheduler"] == "tls://audiopipe-scheduler.audiopipe:8786"
    assert set(said["workers"]) == {"audiopipe-default-worker-0", "audiopipe-default-worker-1"}
    assert all(address.startswith(f"tls://{ADDRESS}:") for address in said["workers"].values())
    assert said["plainly"] == "refused"
    assert said["idle"] > 0, "how long it has had no work: what `idleTimeout` ends it by"
    assert (said["wanted"], len(said["retired"])) == (0, 1)
    assert set(said["retired"]) < set(said["workers"]), "deployments of these names are deleted"
    assert said["left"] == []


class WithoutNodes(Kubernetes):
    """It takes the cluster on, and has no machine for it."""

    def operate(self, cluster: dict[str, Any]) -> None:
        cluster["status"] = {"phase": "Running"}


def test_a_cluster_that_kubernetes_cannot_place_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subprocess.run([REPOSITORY / "cluster/make_tls.sh", tmp_path / "tls"], check=True, capture_output=True)
    kubernetes = WithoutNodes(tmp_path, {})
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    manifest = str(REPOSITORY / "cluster/kubernetes/dask-cluster.yaml")
    try:
        with pytest.raises(ClusterError, match="'kubernetes': its scheduler did not come within 3 s"):
            connect("kubernetes", manifest=manifest, tls=str(tmp_path / "tls"), wait_s=3)
        assert not kubernetes.objects
    finally:
        kubernetes.close()
