"""The container file, built for real over a bare Debian in the place of its base, and what Kubernetes runs in it.

Needs root, Debian's `buildah`, `crun` and `debootstrap`, the package mirrors, and 7 GB of disk for a while.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from debian import copy_checkout, install_debian
from output_factory import config, content, corpus, make_output

from audiopipe.cluster.engines import CONTAINER_UID

MISSING = [tool for tool in ("buildah", "debootstrap") if not shutil.which(tool, path="/usr/sbin:/usr/bin")]
FIXED = "--shard-videos 2 --min-snr-db none --max-silence-ratio none --run-id tests --device cpu --workers 1"
PARTITION = Path(__file__).parents[2] / "cluster/kubernetes/partitions.yaml"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.privileged,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="images of whole systems need root"),
]


@dataclass
class Images:
    """Images and containers in a folder of the test's own."""

    folder: Path

    def buildah(self, *told: str) -> subprocess.CompletedProcess[str]:
        own = ("--root", str(self.folder / "images"), "--runroot", str(self.folder / "run"))
        command = ["buildah", *own, "--storage-driver", "overlay", *told]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)

    def do(self, *told: str) -> str:
        done = self.buildah(*told)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
        return done.stdout.strip()

    def build(self, context: Path) -> str:
        """What the build says, step by step. Wheels that this machine has are not fetched again."""
        wheels = Path.home() / ".cache/uv"
        known = ("--volume", f"{wheels}:/wheels", "--build-arg", "UV_CACHE_DIR=/wheels") if wheels.exists() else ()
        told = ("--isolation", "chroot", "--pull-never", "--layers", "--build-arg", "UV_COMPILE_BYTECODE=0", *known)
        return self.do("build", *told, "--file", str(context / "cluster/Containerfile"), "--tag", "made", str(context))

    def close(self) -> None:
        self.buildah("rm", "--all")
        self.buildah("rmi", "--all", "--force")
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    mine = Images(tmp_path / "store")
    if (can := mine.buildah("info")).returncode:
        pytest.skip(f"no images here: {can.stderr.strip()}")
    yield mine
    mine.close()


def make_base(images: Images, context: Path, folder: Path) -> None:
    """Under the name that the container file gives its base, a Debian with the same Python."""
    (line,) = [line for line in (context / "cluster/Containerfile").read_text().splitlines() if "ARG BASE=" in line]
    install_debian(folder / "debian", "python3-venv")
    subprocess.run(["tar", "-C", str(folder / "debian"), "-cf", str(folder / "debian.tar"), "."], check=True)
    empty = images.do("from", "scratch")
    images.do("add", empty, str(folder / "debian.tar"), "/")
    images.do("commit", "--rm", empty, line.removeprefix("ARG BASE="))


def test_the_image_builds_runs_unprivileged_and_caches_dependencies(images: Images, data: Path, tmp_path: Path) -> None:
    context = tmp_path / "checkout"
    copy_checkout(context)
    make_base(images, context, tmp_path)
    images.build(context)

    made = images.do("from", "--pull-never", "made")
    catalog = corpus(data / "corpus", videos=4, missing=False)
    told = {"PARTITION_INDEX": "0", "PARTITION_COUNT": "1", "AUDIOPIPE_CATALOG": catalog}
    told |= {"AUDIOPIPE_OUTPUT": data / "out", "AUDIOPIPE_OPTIONS": FIXED}
    environment = [word for name, value in told.items() for word in ("--env", f"{name}={value}")]
    inside = ("run", "--isolation", "chroot", "--volume", f"{data}:{data}", *environment, made, "--")
    assert images.do(*inside, "id", "-u") == str(CONTAINER_UID)
    assert images.do(*inside, "audiopipe", "explain", "snr_db").startswith("snr_db: metric")
    (job,) = yaml.safe_load_all(PARTITION.read_text())
    images.do(*inside, *job["spec"]["template"]["spec"]["containers"][0]["command"])
    assert (data / "out/dataset.json").stat().st_uid == CONTAINER_UID
    in_container = content(data / "out")
    shutil.rmtree(data / "out")
    make_output(config(catalog, data / "out", partition_count=1))
    assert in_container == content(data / "out"), "the bytes that this machine makes, with its other Python"

    with (context / "audiopipe/__init__.py").open("a") as code:
        code.write("# new\n")
    steps = images.build(context).split("STEP ")
    again = {step.split("\n")[0].partition(": ")[2].split()[0] for step in steps[1:] if "Using cache" not in step}
    (heavy,) = [step for step in steps if "--requirement pyproject.toml" in step]
    assert "Using cache" in heavy
    assert again >= {"COPY"}, "the code is in it"
