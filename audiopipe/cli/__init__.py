"""The `audiopipe` command: a thin front of the functions that notebooks call."""

from audiopipe.cli import benches, outputs, prepare, runs
from audiopipe.cli.group import main

__all__ = ["benches", "main", "outputs", "prepare", "runs"]
