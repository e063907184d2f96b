"""A node from nothing: a clean Debian, what cloud-init runs on it, and its first boot under a systemd of its own.

Needs root, Debian's `debootstrap` and `systemd-container`, and the package mirrors. The cloud and its GPU are all that
is not real: a command in the place of `aws` copies the secrets, and one in the place of `nvidia-smi` names a driver.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from debian import REPOSITORY, copy_checkout, install_debian
from output_factory import config, content, corpus, make_output

TOOLS = ("debootstrap", "systemd-nspawn", "unshare")
MISSING = [tool for tool in TOOLS if not shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin")]

pytestmark = [
    pytest.mark.privileged,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="chroot and mounts need root"),
]

# In a mount and process namespace of its own, so that nothing stays mounted whatever happens.
CHROOT = """
set -e
root=$1; shift
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot "$root" env -i HOME=/root PATH="$IN_CHROOT" SYSTEMD_OFFLINE=1 UV_COMPILE_BYTECODE=0 "$@"
"""
# systemd wants one hierarchy of control groups; this machine may have the older many.
BOOT = """
set -e
mount --make-rprivate /
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
exec systemd-nspawn --quiet --boot --register=no --keep-unit --private-network --directory "$1" --bind "$2" \
  --console=pipe
"""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SETTINGS = """AUDIOPIPE_CATALOG={data}/corpus/catalog.parquet
AUDIOPIPE_OUTPUT={data}/out
AUDIOPIPE_OPTIONS=--shard-videos 2 --min-snr-db none --max-silence-ratio none --run-id tests --device cpu
"""


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


def in_root(root: Path, *command: str, path: str = PATH) -> "subprocess.CompletedProcess[str]":
    """A command in the new machine, as root, with the network of this one."""
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "bash", "-c", CHROOT, "chroot", str(root), *command],
        env={**os.environ, "IN_CHROOT": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def boot(root: Path, data: Path) -> "subprocess.CompletedProcess[str]":
    """From systemd's start to the machine's switching itself off."""
    return subprocess.run(
        ["unshare", "--mount", "bash", "-c", BOOT, "boot", str(root), str(data)],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


def journal(root: Path, unit: str) -> str:
    told = ["journalctl", "--no-pager", "--directory", str(root / "var/log/journal"), "--unit", unit, "--lines", "40"]
    return subprocess.run(told, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bare Debian 13, as a cloud's image has it: systemd, and none of our packages."""
    folder = tmp_path_factory.mktemp("node") / "root"
    install_debian(folder, "systemd-sysv,dbus")
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", folder / "etc" / name)
    (folder / "var/log/journal").mkdir(parents=True, exist_ok=True)
    copy_checkout(folder / "opt/audiopipe")
    spare_the_download(folder)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def spare_the_download(root: Path) -> None:
    """What uv keeps on this machine, as hard links: gigabytes of CUDA are neither fetched nor copied again."""
    here = Path.home() / ".cache/uv"
    if here.exists() and here.stat().st_dev == root.stat().st_dev:
        (root / "root/.cache").mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-al", str(here), str(root / "root/.cache/uv")], check=True)


def has_driver(root: Path, version: str) -> None:
    script(root / "usr/local/bin/nvidia-smi", f"echo {version}\n")


def put_user_data(root: Path) -> str:
    """Where the program lies that cloud-init writes and starts."""
    text = (REPOSITORY / "cluster/cloud-init.yaml").read_text()
    for name, value in {"SECRETS": "s3://private/x", "INDEX": "0", "COUNT": "1", "MAX_MINUTES": "60"}.items():
        text = text.replace(f"@{name}@", value)
    (node,) = yaml.safe_load(text)["write_files"]
    program = root / str(node["path"]).lstrip("/")
    program.write_text(node["content"])
    program.chmod(int(node["permissions"], 8))
    return str(node["path"])


def installed(root: Path) -> dict[str, bytes]:
    """What the bootstrap put there, but for compiled Python."""
    folders = (root / "opt/audiopipe/cluster", root / "etc/audiopipe", root / "etc/systemd/system")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files += (root / "opt/audiopipe/.venv").glob("lib/python*/site-packages/*/METADATA")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_a_bad_gpu_driver_is_refused_before_anything_is_installed(root: Path) -> None:
    bootstrap = "/opt/audiopipe/cluster/bootstrap.sh"
    before = in_root(root, bootstrap, "partition")
    assert (before.returncode, "no NVIDIA driver" in before.stderr, "ALLOW_CPU=1" in before.stderr) == (1, True, True)
    has_driver(root, "570.86.10")
    assert "driver 570.86.10 is too old for CUDA 13: 580 or newer" in in_root(root, bootstrap, "partition").stderr
    script(root / "usr/local/bin/nvidia-smi", "echo NVIDIA-SMI has failed; exit 9\n")
    assert "nvidia-smi finds no GPU: NVIDIA-SMI has failed" in in_root(root, bootstrap, "partition").stderr
    assert not (root / "etc/audiopipe").exists()
    assert not (root / "opt/audiopipe/.venv").exists()


def test_a_bare_machine_runs_its_partition_and_powers_off(root: Path, data: Path) -> None:
    has_driver(root, "580.65.06")
    (root / "seed").mkdir()
    (root / "seed/environment").write_text(SETTINGS.format(data=data))
    script(root / "usr/local/bin/aws", "cp -r /seed/. /etc/audiopipe/\n")
    node = put_user_data(root)
    first = in_root(root, node)
    assert "bootstrap: this node is ready as 'partition'" in first.stdout, first.stdout[-3000:] + first.stderr[-3000:]
    assert (root / "etc/audiopipe/environment").stat().st_mode & 0o077 == 0
    was = installed(root)
    again = in_root(root, "/opt/audiopipe/cluster/bootstrap.sh", "partition")
    assert again.returncode == 0, again.stderr
    assert installed(root) == was, "a second bootstrap changes nothing"

    catalog = corpus(data / "corpus", videos=6, missing=True)
    ended = boot(root, data)
    said = journal(root, "audiopipe-partition.service")
    assert ended.returncode == 0, said + ended.stdout[-2000:]
    assert (data / "out/dataset.json").exists(), said
    made = content(data / "out")
    shutil.rmtree(data / "out")
    make_output(config(catalog, data / "out", partition_count=1))
    assert made == content(data / "out"), "the bytes that this machine makes, with its other Python"
