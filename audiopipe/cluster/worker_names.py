"""Names of local workers that a person understands, on the dashboard, in the ledger and in reports.

They are `cpu-0` and so on; `gpu-0` and `gpu-0.1` share the first GPU.

Dask's own are bare numbers, and a cluster finds its workers by them: so they are given where it makes them, by a class
on top of its own. Workers that other engines start are named by those: by host, pod or job.
"""

from __future__ import annotations

import itertools
from typing import Any

__all__ = ["with_named_workers"]


def with_named_workers(engine: str, start: Any) -> Any:
    """The cluster class of an engine, with names for its workers where that engine only counts them."""
    make = {"dask.distributed.LocalCluster": _cpus, "dask_cuda.LocalCUDACluster": _gpus}.get(engine)
    return make(start) if make else start


def _cpus(start: Any) -> Any:
    async def begin(self: Any) -> None:
        self.worker_spec = {
            f"cpu-{name}" if isinstance(name, int) else name: spec for name, spec in self.worker_spec.items()
        }
        await start._start(self)

    def name_of(self: Any, number: int) -> str:
        return f"cpu-{number}"

    return type(start.__name__, (start,), {"_start": begin, "_new_worker_name": name_of})


def _gpus(start: Any) -> Any:
    def spec_of(self: Any) -> dict[str, Any]:
        """Of one more worker, on a device that has the fewest. Dask-CUDA itself knows of one a device, and takes the
        first that no worker is named after: while it looks, all others are."""
        named, devices = self.worker_spec, self.cuda_visible_devices
        free = (
            (device, name)
            for number in itertools.count()
            for device in devices
            if (name := f"gpu-{device}.{number}" if number else f"gpu-{device}") not in named
        )
        chosen, name = next(free)
        self.worker_spec = {device: None for device in devices if device != chosen}
        try:
            (spec,) = start.new_worker_spec(self).values()
        finally:
            self.worker_spec = named
        return {name: spec}

    return type(start.__name__, (start,), {"new_worker_spec": spec_of})
