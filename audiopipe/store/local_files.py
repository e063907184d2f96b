"""Tell local addresses from others, and regular files from entries that would block a reader."""

from __future__ import annotations

import stat

__all__ = ["describe_irregular", "is_local"]

KINDS = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a disk"}


def is_local(url: str) -> bool:
    """Check whether an address is one of this machine's file system."""
    return "://" not in url or url.startswith("file://")


def describe_irregular(mode: int) -> str | None:
    """Name the kind of a file that is neither regular nor a folder, by the mode of its status; None for these two."""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return None
    return KINDS.get(stat.S_IFMT(mode), "something else")
