"""Set up a node on a bare Debian as cloud-init does, and boot it under systemd.

The tests need root, Debian's `debootstrap` and `systemd-container`, and the package mirrors. Only the cloud and its GPU
are replaced: a stub of `aws` copies the secrets, and a stub of `nvidia-smi` reports a driver.
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

# Runs in a new mount and process namespace, so that no mount outlives the test.
CHROOT = """
set -e
root=$1; shift
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
exec chroot "$root" env -i HOME=/root PATH="$IN_CHROOT" SYSTEMD_OFFLINE=1 UV_COMPILE_BYTECODE=0 "$@"
"""
# systemd needs control groups version 2; this machine may have version 1.
BOOT = """
set -e
mount --make-rprivate /
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
exec systemd-nspawn --quiet --boot --register=no --keep-unit --private-network --directory "$1" --bind "$2" \
  --console=pipe
"""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OPTIONS = "--shard-videos 2 --min-snr-db none --max-silence-ratio none --run-id tests --device cpu --max-failed-share 1"
SETTINGS = f"""AUDIOPIPE_CATALOG={{data}}/corpus/catalog.parquet
AUDIOPIPE_OUTPUT={{data}}/out
AUDIOPIPE_OPTIONS={OPTIONS}
"""


def script(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)


def in_root(root: Path, *command: str, path: str = PATH) -> "subprocess.CompletedProcess[str]":
    """Run a command in the new machine as root, with the network of this machine."""
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "bash", "-c", CHROOT, "chroot", str(root), *command],
        env={**os.environ, "IN_CHROOT": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def boot(root: Path, data: Path) -> "subprocess.CompletedProcess[str]":
    """Boot the machine, and wait until it powers itself off."""
    return subprocess.run(
        ["unshare", "--mount", "bash", "-c", BOOT, "boot", str(root), str(data)],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )


def journal(root: Path, unit: str) -> str:
    command = [
        "journalctl",
        "--no-pager",
        "--directory",
        str(root / "var/log/journal"),
        "--unit",
        unit,
        "--lines",
        "40",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Install a bare Debian 13 as in a cloud's image: with systemd, without further packages."""
    folder = tmp_path_factory.mktemp("node") / "root"
    install_debian(folder, "systemd-sysv,dbus")
    for name in ("resolv.conf", "hosts"):
        shutil.copy(f"/etc/{name}", folder / "etc" / name)
    (folder / "var/log/journal").mkdir(parents=True, exist_ok=True)
    copy_checkout(folder / "opt/audiopipe")
    link_download_cache(folder)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


def link_download_cache(root: Path) -> None:
    """Hard-link uv's cache of this machine, so that gigabytes of CUDA are neither downloaded nor copied."""
    cache = Path.home() / ".cache/uv"
    if cache.exists() and cache.stat().st_dev == root.stat().st_dev:
        (root / "root/.cache").mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-al", str(cache), str(root / "root/.cache/uv")], check=True)


def install_driver(root: Path, version: str) -> None:
    script(root / "usr/local/bin/nvidia-smi", f"echo {version}\n")


def put_user_data(root: Path) -> str:
    """Write the program that cloud-init would write and start; return its path."""
    text = (REPOSITORY / "cluster/cloud-init.yaml").read_text()
    for name, value in {"SECRETS": "s3://private/x", "INDEX": "0", "COUNT": "1", "MAX_MINUTES": "60"}.items():
        text = text.replace(f"@{name}@", value)
    (node,) = yaml.safe_load(text)["write_files"]
    program = root / str(node["path"]).lstrip("/")
    program.write_text(node["content"])
    program.chmod(int(node["permissions"], 8))
    return str(node["path"])


def installed_files(root: Path) -> dict[str, bytes]:
    """Read the files that the bootstrap has installed, without compiled Python."""
    folders = (root / "opt/audiopipe/cluster", root / "etc/audiopipe", root / "etc/systemd/system")
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    files += (root / "opt/audiopipe/.venv").glob("lib/python*/site-packages/*/METADATA")
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_a_bad_gpu_driver_is_refused_before_anything_is_installed(root: Path) -> None:
    bootstrap = "/opt/audiopipe/cluster/bootstrap.sh"
    before = in_root(root, bootstrap, "partition")
    assert (before.returncode, "no NVIDIA driver" in before.stderr, "ALLOW_CPU=1" in before.stderr) == (1, True, True)
    install_driver(root, "570.86.10")
    assert (
        "driver 570.86.10 is too old for CUDA 13: install 580 or newer" in in_root(root, bootstrap, "partition").stderr
    )
    script(root / "usr/local/bin/nvidia-smi", "echo NVIDIA-SMI has failed; exit 9\n")
    assert "nvidia-smi finds no GPU: NVIDIA-SMI has failed" in in_root(root, bootstrap, "partition").stderr
    assert not (root / "etc/audiopipe").exists()
    assert not (root / "opt/audiopipe/.venv").exists()


def test_a_bare_machine_runs_its_partition_and_powers_off(root: Path, data: Path) -> None:
    install_driver(root, "580.65.06")
    (root / "seed").mkdir()
    (root / "seed/environment").write_text(SETTINGS.format(data=data))
    script(root / "usr/local/bin/aws", "cp -r /seed/. /etc/audiopipe/\n")
    node = put_user_data(root)
    first = in_root(root, node)
    assert "bootstrap: this node is ready as 'partition'" in first.stdout, first.stdout[-3000:] + first.stderr[-3000:]
    assert (root / "etc/audiopipe/environment").stat().st_mode & 0o077 == 0
    before = installed_files(root)
    second = in_root(root, "/opt/audiopipe/cluster/bootstrap.sh", "partition")
    assert second.returncode == 0, second.stderr
    assert installed_files(root) == before, "a second bootstrap changes nothing"

    catalog = corpus(data / "corpus", videos=6, missing=True)
    machine = boot(root, data)
    log = journal(root, "audiopipe-partition.service")
    assert machine.returncode == 0, log + machine.stdout[-2000:]
    assert (data / "out/dataset.json").exists(), log
    on_node = content(data / "out")
    shutil.rmtree(data / "out")
    make_output(config(catalog, data / "out", partition_count=1))
    assert on_node == content(data / "out"), "same bytes as on this machine, with another Python"
