"""The thresholds of a run, as the reports show and apply them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from audiopipe.pipeline.drop_rules import RULES
from audiopipe.report.metric_labels import metric_title

__all__ = ["Threshold", "active_thresholds"]


@dataclass(frozen=True)
class Threshold:
    """A limit for one metric. Segments outside the limit are dropped with `reason`."""

    reason: str
    metric: str
    parameter: str
    limit: float

    @property
    def is_minimum(self) -> bool:
        """Return True if values below the limit are dropped, False if those above it are."""
        return self.parameter.startswith("min_")

    def drops(self, value: float) -> bool:
        """Check whether a value is outside the limit. NaN is not."""
        return value < self.limit if self.is_minimum else value > self.limit

    def margin(self, values: pd.Series) -> pd.Series:
        """Return how far the values lie inside the limit, in the metric's unit. Values outside are negative."""
        return values - self.limit if self.is_minimum else self.limit - values

    def __str__(self) -> str:
        """Return `SNR (dB) below 5: min_snr_db`."""
        side = "below" if self.is_minimum else "above"
        return f"{metric_title(self.metric)} {side} {self.limit:g}: {self.parameter}".replace("-", "−")


def active_thresholds(config: Mapping[str, object]) -> list[Threshold]:
    """Return the thresholds that a run's parameters switch on, in the order in which the pipeline applies them."""
    limits = [(reason, metric, parameter, config.get(parameter)) for reason, metric, parameter, _ in RULES]
    return [
        Threshold(reason, metric, parameter, float(limit))
        for reason, metric, parameter, limit in limits
        if isinstance(limit, (int, float))
    ]
