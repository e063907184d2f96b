"""List and copy the notebooks that come with the package; this needs no extra."""

from __future__ import annotations

from importlib.abc import Traversable
from importlib.resources import files
from pathlib import Path

from audiopipe.errors import ConfigError

__all__ = ["copy_notebooks", "packaged_notebooks"]


def packaged_notebooks() -> dict[str, Traversable]:
    """Return the notebooks of the package by name; they are files of the wheel."""
    items = sorted(files("audiopipe").joinpath("notebooks").iterdir(), key=lambda item: item.name)
    return {item.name.removesuffix(".ipynb"): item for item in items if item.name.endswith(".ipynb")}


def copy_notebooks(directory: Path, overwrite: bool) -> list[Path]:
    """Copy the notebooks into a directory and return their paths.

    Raises:
        ConfigError: a file exists, and `overwrite` is False.
    """
    targets = {item: directory / item.name for item in packaged_notebooks().values()}
    existing = [str(target) for target in targets.values() if target.exists()]
    if existing and not overwrite:
        raise ConfigError(f"{existing[0]} exists: choose another directory, or add --overwrite to replace it")
    directory.mkdir(parents=True, exist_ok=True)
    for item, target in targets.items():
        target.write_bytes(item.read_bytes())
    return list(targets.values())
