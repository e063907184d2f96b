"""The `audiopipe` command: a thin layer over the functions that notebooks and scripts call."""

from audiopipe.cli import annotations, bench, outputs, prepare, reports, runs, select
from audiopipe.cli.main import main

__all__ = ["annotations", "bench", "main", "outputs", "prepare", "reports", "runs", "select"]
