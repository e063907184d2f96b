"""Names of local workers that a person understands: `cpu-0`, `gpu-0`; on the dashboard, in the ledger and in reports.

Dask's own are bare numbers, and a cluster finds its workers by them: so they are given where it makes them, by a class
on top of its own. Workers that other engines start are named by those: by host, pod or job.
"""

from __future__ import annotations

from typing import Any

__all__ = ["with_names"]


def with_names(engine: str, start: Any) -> Any:
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
        """Dask-CUDA takes the first device that no worker is named after: while it looks, they are."""
        named = self.worker_spec
        self.worker_spec = {device: None for device in self.cuda_visible_devices if f"gpu-{device}" in named}
        try:
            ((device, spec),) = start.new_worker_spec(self).items()
        finally:
            self.worker_spec = named
        return {f"gpu-{device}": spec}

    return type(start.__name__, (start,), {"new_worker_spec": spec_of})
