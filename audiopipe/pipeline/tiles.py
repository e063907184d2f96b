"""Compute a batch on a device in one pass, or in as many smaller ones as its memory needs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

from audiopipe.errors import WorkerFailure
from audiopipe.pipeline.device import get_device_lock

__all__ = ["run_in_tiles"]

T = TypeVar("T")


def run_in_tiles(count: int, run: Callable[[slice], list[T]], device: torch.device) -> list[T]:
    """Return what `run` returns for the items of a batch, in their order.

    A batch that does not fit next to other passes is repeated while no other pass uses the device, and then divided
    into halves until its tiles fit.

    Args:
        count: number of items.
        run: called with the items to compute.

    Raises:
        WorkerFailure: the device does not have the memory for one item.
    """
    with suppress(torch.OutOfMemoryError), get_device_lock(device).shared():
        return run(slice(0, count))
    with get_device_lock(device).exclusive():
        rows = count
        while True:
            # Not in the handler: its exception keeps the tensors of the failed pass alive.
            torch.cuda.empty_cache()
            try:
                tiles = [slice(start, min(start + rows, count)) for start in range(0, count, rows)]
                return [item for tile in tiles for item in run(tile)]
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise WorkerFailure(
                        f"{device} does not have the memory for one clip; end other programs that use it"
                    ) from None
            rows = -(-rows // 2)
