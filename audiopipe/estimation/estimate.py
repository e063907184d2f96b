"""Nodes, hours, bottleneck and cost of a choice. Plain arithmetic: waiting and losses are the simulation's matter."""

from __future__ import annotations

import math
from dataclasses import dataclass

from audiopipe.estimation.prices import Instance, instances, ledger_usd_month, providers, store
from audiopipe.estimation.rates import Rates

__all__ = ["Costs", "Estimate", "Workload", "choices", "estimate"]

OBJECTS_PER_SHARD = 4  # tar, two Parquets, manifest
PART_BYTES = 50e6  # of a multipart upload
SPOOLED = 2.0  # bytes of the results that touch the disk: spooled, then the tar

# Kilobits a second of the results. FLAC of 16 kHz mono speech is about 0.6 of its PCM; the lossy ones are what
# `encode.py` asks for.
RESULT_KBPS = {"flac": 154.0, "wav": 256.0, "opus": 32.0, "mp3": 64.0}


@dataclass(frozen=True)
class Workload:
    """What is to be done, and what is assumed of videos and nodes (none of it measured here).

    Args:
        source_kbps: of the videos' audio.
        kept: part of the audio that comes out.
        network_gbps: that a node really gets to the store; clouds state only an "up to".
        disk_mb_s: that a node's scratch disk really writes.
        months: that the results are stored.
    """

    videos: int = 500_000
    minutes: float = 17.0
    deadline_h: float = 24.0
    audio_format: str = "flac"
    source_kbps: float = 128.0
    kept: float = 1.0
    shard_videos: int = 64
    network_gbps: float = 5.0
    disk_mb_s: float = 250.0
    months: float = 1.0

    @property
    def audio_s(self) -> float:
        return self.videos * self.minutes * 60

    @property
    def bytes_in(self) -> float:
        return self.audio_s * self.source_kbps * 1000 / 8

    @property
    def bytes_out(self) -> float:
        return self.audio_s * self.kept * RESULT_KBPS[self.audio_format] * 1000 / 8

    @property
    def shards(self) -> int:
        return math.ceil(self.videos / self.shard_videos)


@dataclass(frozen=True)
class Costs:
    """In US dollars."""

    compute: float
    egress: float
    storage: float
    operations: float

    @property
    def total(self) -> float:
        return self.compute + self.egress + self.storage + self.operations


@dataclass(frozen=True)
class Estimate:
    """One choice: `limits_x` is how many times real time a node could go by each of its parts."""

    instance: Instance
    nodes: int
    hours: float
    limits_x: dict[str, float]
    costs: Costs

    @property
    def bottleneck(self) -> str:
        return min(self.limits_x, key=self.limits_x.__getitem__)

    @property
    def node_x(self) -> float:
        return self.limits_x[self.bottleneck]


def estimate(work: Workload, rates: Rates, instance: Instance, nodes: int | None = None) -> Estimate:
    """What a number of nodes takes; without one, as few as meet the deadline."""
    limits = _limits(work, rates, instance)
    one_h = work.audio_s / min(limits.values()) / 3600
    nodes = nodes or math.ceil(one_h / work.deadline_h)
    hours = one_h / nodes
    return Estimate(instance, nodes, hours, limits, _costs(work, instance, nodes * hours))


def choices(work: Workload, rates: Rates, provider: str | None = None, nodes: int | None = None) -> list[Estimate]:
    """Every machine of the price table, the cheapest in all first."""
    found = [estimate(work, rates, instance, nodes) for instance in instances(provider)]
    return sorted(found, key=lambda one: one.costs.total)


def _limits(work: Workload, rates: Rates, instance: Instance) -> dict[str, float]:
    in_s, out_s = work.bytes_in / work.audio_s, work.bytes_out / work.audio_s
    core_x = rates.core_x_with_gpu if instance.gpu else rates.core_x_without_gpu
    limits = {
        "CPU": instance.cores * core_x,
        "network": work.network_gbps * 1e9 / 8 / (in_s + out_s),
        "disk": work.disk_mb_s * 1e6 / (in_s + SPOOLED * out_s),
    }
    if instance.gpu:
        limits["GPU"] = instance.gpus * rates.gpu_x_of(instance.gpu)
    return limits


def _costs(work: Workload, instance: Instance, node_hours: float) -> Costs:
    prices = store()
    writes = work.shards * (2 * OBJECTS_PER_SHARD + 1) + work.bytes_out / PART_BYTES
    reads = 2 * work.videos + work.shards * OBJECTS_PER_SHARD
    return Costs(
        compute=node_hours * instance.usd_hour,
        egress=work.bytes_out / 1e9 * providers()[instance.provider].egress_usd_gb,
        storage=work.bytes_out / 1e9 * prices.usd_gb_month * work.months,
        operations=(
            writes / 1e6 * prices.usd_million_writes
            + reads / 1e6 * prices.usd_million_reads
            + ledger_usd_month() * work.months
        ),
    )
