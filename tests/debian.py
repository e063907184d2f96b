"""Make a bare Debian in a folder, like the image of a cloud or a container, and copy this working tree into it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"


def install_debian(root: Path, packages: str) -> None:
    """Install Debian 13 with these packages and with the certificates of this machine for the package mirrors."""
    command = ["debootstrap", "--variant=minbase", f"--include=ca-certificates,{packages}", "trixie", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    shutil.copy(f"/{CERTIFICATES}", root / CERTIFICATES)


def copy_checkout(folder: Path) -> None:
    """Copy this working tree to a folder, without files that git ignores."""
    command = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (REPOSITORY / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name, follow_symlinks=False)
