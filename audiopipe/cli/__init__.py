"""The `audiopipe` command: a thin layer over the functions that notebooks and scripts call."""

from audiopipe.cli import annotations, bench, inspect, outputs, prepare, reports, runs, select
from audiopipe.cli.main import main

__all__ = ["annotations", "bench", "inspect", "main", "outputs", "prepare", "reports", "runs", "select"]
