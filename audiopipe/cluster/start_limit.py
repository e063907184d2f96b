"""A cluster elsewhere that does not come up in time is closed again, so that nothing of it goes on being billed.

Dask's clusters on virtual machines and on Kubernetes wait for their scheduler for ever.
"""

from __future__ import annotations

import asyncio
from typing import Any

from distributed.core import Status

from audiopipe.errors import ClusterError

__all__ = ["with_startup_timeout"]


def with_startup_timeout(start: Any, profile: str, wait_s: float) -> Any:
    """A cluster class whose start ends after `wait_s`, with what it had begun taken away.

    Making one raises:
        ClusterError: its scheduler did not come in time.
    """

    async def begin(self: Any) -> None:
        try:
            async with asyncio.timeout(wait_s) as clock:
                await start._start(self)
        except TimeoutError:
            if not clock.expired():
                raise
            self.status = Status.failed  # one that is only starting would leave its machines there
            await self._close()
            raise ClusterError(
                f"profile '{profile}': its scheduler did not come within {wait_s:.0f} s and is taken down again; look "
                "at its own log, see that this machine reaches its network, or give it more time (wait_s)"
            ) from None

    return type(start.__name__, (start,), {"_start": begin})
