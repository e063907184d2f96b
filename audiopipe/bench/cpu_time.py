"""Measure the CPU time of this process and of those that it has started."""

from __future__ import annotations

import math
import resource

import psutil

__all__ = ["used_cpu_s"]


def used_cpu_s() -> float:
    """Return the CPU seconds of this process and its children, running or ended."""
    usages = (resource.getrusage(target) for target in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    ended = math.fsum(usage.ru_utime + usage.ru_stime for usage in usages)
    return ended + math.fsum(math.fsum(child.cpu_times()[:4]) for child in psutil.Process().children())
