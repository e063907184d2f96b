"""The `audiopipe` command: a thin layer over the functions that notebooks and scripts call."""

from audiopipe.cli import bench as benches
from audiopipe.cli import outputs, prepare, runs
from audiopipe.cli.main import main

__all__ = ["benches", "main", "outputs", "prepare", "runs"]
