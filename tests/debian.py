"""A bare Debian in a folder, as a cloud's image or a container's has it, and this working tree as a checkout in it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"


def bare_debian(root: Path, packages: str) -> None:
    """Debian 13 with these packages, and with the certificates by which this machine reaches the package mirrors."""
    told = ["debootstrap", "--variant=minbase", f"--include=ca-certificates,{packages}", "trixie", str(root)]
    done = subprocess.run(told, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    shutil.copy(f"/{CERTIFICATES}", root / CERTIFICATES)


def put_checkout(into: Path) -> None:
    """This working tree as a checkout, in the place of a clone of it."""
    told = ["git", "-C", str(REPOSITORY), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(told, capture_output=True, text=True, check=True).stdout.split("\0"):
        if name and (REPOSITORY / name).exists():
            (into / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, into / name, follow_symlinks=False)
