"""The scorer `signal`: the metrics of the signal, as the kernels compute them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

from audiopipe.metrics import METRICS
from audiopipe.scorers.scorer import Column, Scorer, ScorerBatch, Values

__all__ = ["Signal"]


class Signal(Scorer):
    """Levels, loudness, noise and spectrum of a segment.

    In a run these are measured at the source's rate, in the pass that resamples; `score` measures what was emitted.
    """

    name = "signal"
    version = "1"

    @cached_property
    def columns(self) -> tuple[Column, ...]:  # type: ignore[override]  # never assigned
        """The metrics."""
        return tuple(
            Column(name, "float", metric.unit, metric.description, *_range(name, metric.unit))
            for name, metric in METRICS.items()
        )

    def score(self, batch: ScorerBatch) -> Mapping[str, Values]:
        """Measure the metrics of a batch."""
        import torch  # noqa: PLC0415

        from audiopipe import kernels  # noqa: PLC0415

        assert batch.samples is not None
        metrics = kernels.measure(batch.samples, batch.sample_rate, torch.tensor(batch.lengths))
        return {name: getattr(metrics, name).cpu().numpy() for name in METRICS}


def _range(name: str, unit: str) -> tuple[float | None, float | None]:
    return (0.0, 1.0) if unit == "1" and name != "dc_offset" else (None, None)
