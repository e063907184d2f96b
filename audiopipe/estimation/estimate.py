"""Compare the machines of the price table for a workload."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from audiopipe.estimation.costs import InstanceEstimate, Workload, estimate_instance
from audiopipe.estimation.prices import load_prices
from audiopipe.estimation.rates import Rates, load_rates

__all__ = ["Estimate", "estimate"]

# The provider whose machines a cluster profile rents; other profiles compare all machines.
PROVIDER_OF_PROFILE = {"ec2": "aws", "gcp": "gcp"}


@dataclass(frozen=True)
class Estimate:
    """The forecast of a run: one row for each machine of the price table, the cheapest total first."""

    workload: Workload
    rates: Rates
    rows: tuple[InstanceEstimate, ...]

    @property
    def cheapest(self) -> InstanceEstimate:
        return self.rows[0]


def estimate(
    videos: int = 500_000,
    minutes: float = 17.0,
    *,
    deadline_h: float = 24.0,
    nodes: int | None = None,
    profile: str = "auto",
    audio_format: str = "flac",
    rates_folder: str | Path = "reports/benchmarks",
    machine: str | None = None,
) -> Estimate:
    """Estimate nodes, hours, bottleneck and cost of a run on each machine of the price table.

    Args:
        videos: number of videos to process.
        minutes: mean duration of the audio of a video.
        deadline_h: hours that the run may take.
        nodes: number of nodes; default: as few as meet the deadline.
        profile: cluster profile; `ec2` and `gcp` compare the machines of their provider, others compare all.
        audio_format: codec of the output: `flac`, `wav`, `opus` or `mp3`.
        rates_folder: folder with the `rates-*.json` that `audiopipe bench pipeline --save` writes.
        machine: the benchmarked machine whose rates to use; default: the most recent benchmark.

    Raises:
        ConfigError: the price table or a rates file is invalid, or `machine` has no benchmark.

    >>> estimate(videos=500_000, minutes=17, profile="ec2").cheapest.instance.provider
    'aws'
    """
    workload = Workload(videos, minutes, deadline_h, audio_format)
    rates = load_rates(rates_folder, machine)
    instances = load_prices().instances_of(PROVIDER_OF_PROFILE.get(profile))
    rows = [estimate_instance(workload, rates, instance, nodes) for instance in instances]
    return Estimate(workload, rates, tuple(sorted(rows, key=lambda row: row.costs.total)))
