"""Describe what is wrong with an output, and the command that repairs it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

__all__ = ["Finding", "resume_command"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A mismatch: the object or shard, the problem, and the command that repairs it."""

    name: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.name}: {self.problem}; {self.remedy}"


def resume_command(url: str, *shards: str) -> str:
    """Return the command that processes what is missing, and these shards again."""
    options = "".join(f" --shard {shlex.quote(name)}" for name in shards)
    return f"audiopipe resume {shlex.quote(url)}{options}"
