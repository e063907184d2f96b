"""Name the environment variables by which the launchers of workers speak to them."""

from __future__ import annotations

__all__ = ["WORKERS_PER_GPU"]

# How many workers share a GPU, each with an equal part of its memory.
WORKERS_PER_GPU = "AUDIOPIPE_WORKERS_PER_GPU"
