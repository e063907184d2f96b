"""TLS for Dask's `KubeCluster`, which takes no `security` and talks to the scheduler without one.

The manifest has scheduler and workers encrypt (cluster/kubernetes/dask-cluster.yaml); this is the driver's side.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from distributed import Security, rpc

__all__ = ["encrypted"]

# Which make connections by a name of their own for `rpc`.
MODULES = ("dask_kubernetes.operator.kubecluster.kubecluster", "dask_kubernetes.operator.networking")


def encrypted(start: Any) -> Any:
    """`KubeCluster` with a parameter `security`: where that is given, the scheduler is spoken to by TLS alone."""
    for module in map(import_module, MODULES):
        module.rpc = _rpc  # type: ignore[attr-defined]

    def begin(self: Any, *, security: Security | None = None, **arguments: Any) -> None:
        self.security = security
        start.__init__(self, **arguments)

    async def address(self: Any) -> str:
        plain: str = await start._get_scheduler_address(self)
        return plain.replace("tcp://", "tls://", 1) if self.security else plain

    return type(start.__name__, (start,), {"__init__": begin, "_get_scheduler_address": address})


def _rpc(address: str, **more: Any) -> Any:
    """With the certificates that Dask's settings name."""
    return rpc(address, connection_args=Security().get_connection_args("client"), **more)
