"""Build the container file on a bare Debian instead of its base image, and run the command that Kubernetes runs in it.

The test needs root, Debian's `buildah`, `crun` and `debootstrap`, the package mirrors, and 7 GB of disk.
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
FIXED = (
    "--shard-videos 2 --min-snr-db none --max-silence-ratio none --run-id tests --device cpu --workers 1 "
    "--max-failed-share 1"
)
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
    """A private store of images and containers."""

    folder: Path

    def buildah(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        store = ("--root", str(self.folder / "images"), "--runroot", str(self.folder / "run"))
        command = ["buildah", *store, "--storage-driver", "overlay", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)

    def do(self, *arguments: str) -> str:
        done = self.buildah(*arguments)
        assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
        return done.stdout.strip()

    def build(self, context: Path) -> str:
        """Build the image, with the wheels in this machine's cache, and return the log of its steps."""
        wheels = Path.home() / ".cache/uv"
        cache = ("--volume", f"{wheels}:/wheels", "--build-arg", "UV_CACHE_DIR=/wheels") if wheels.exists() else ()
        options = ("--isolation", "chroot", "--pull-never", "--layers", "--build-arg", "UV_COMPILE_BYTECODE=0", *cache)
        file = str(context / "cluster/Containerfile")
        return self.do("build", *options, "--file", file, "--tag", "audiopipe-test", str(context))

    def close(self) -> None:
        self.buildah("rm", "--all")
        self.buildah("rmi", "--all", "--force")
        subprocess.run(["rm", "-rf", str(self.folder)], check=True)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[Images]:
    images = Images(tmp_path / "store")
    if (info := images.buildah("info")).returncode:
        pytest.skip(f"buildah does not work here: {info.stderr.strip()}")
    yield images
    images.close()


def make_base(images: Images, context: Path, folder: Path) -> None:
    """Create a Debian image with Python, under the name of the container file's base image."""
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

    container = images.do("from", "--pull-never", "audiopipe-test")
    catalog = corpus(data / "corpus", videos=4, missing=False)
    variables = {"PARTITION_INDEX": "0", "PARTITION_COUNT": "1", "AUDIOPIPE_CATALOG": catalog}
    variables |= {"AUDIOPIPE_OUTPUT": data / "out", "AUDIOPIPE_OPTIONS": FIXED}
    environment = [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
    inside = ("run", "--isolation", "chroot", "--volume", f"{data}:{data}", *environment, container, "--")
    assert images.do(*inside, "id", "-u") == str(CONTAINER_UID)
    assert images.do(*inside, "audiopipe", "explain", "snr_db").startswith("snr_db: metric")
    (job,) = yaml.safe_load_all(PARTITION.read_text())
    images.do(*inside, *job["spec"]["template"]["spec"]["containers"][0]["command"])
    assert (data / "out/dataset.json").stat().st_uid == CONTAINER_UID
    in_container = content(data / "out")
    shutil.rmtree(data / "out")
    make_output(config(catalog, data / "out", partition_count=1))
    assert in_container == content(data / "out"), "same bytes as on this machine, with another Python"

    with (context / "audiopipe/__init__.py").open("a") as code:
        code.write("# new\n")
    steps = images.build(context).split("STEP ")
    rebuilt = {step.split("\n")[0].partition(": ")[2].split()[0] for step in steps[1:] if "Using cache" not in step}
    (heavy,) = [step for step in steps if "--requirement pyproject.toml" in step]
    assert "Using cache" in heavy
    assert rebuilt >= {"COPY"}, "the new code is copied"
