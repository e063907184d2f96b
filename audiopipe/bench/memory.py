"""Measure the CPU memory of a call from the allocations that PyTorch's profiler records."""

from __future__ import annotations

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile

__all__ = ["measure_peak_bytes"]


def measure_peak_bytes(call: Callable[[], object]) -> int:
    """Return the peak size in bytes of all tensors that exist at one time during a call, its result included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        result = call()
    del result
    assert profiled.profiler is not None
    events = profiled.profiler.kineto_results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    allocated = peak = 0
    for _, change in changes:
        allocated += change
        peak = max(peak, allocated)
    return peak
