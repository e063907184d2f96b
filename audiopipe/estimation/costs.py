"""Compute nodes, hours, bottleneck and cost of a workload on one machine.

The arithmetic assumes that nodes never wait and never fail; `simulate` models both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from audiopipe.errors import ConfigError
from audiopipe.estimation.prices import Instance, load_prices
from audiopipe.estimation.rates import Rates

__all__ = ["Costs", "InstanceEstimate", "Workload", "estimate_instance"]

# Requests that a run sends, as `bench scale --store s3` counts them (reports/benchmarks/requests-s3.md); a test
# compares them with a small run. Reads are GET and HEAD; writes are PUT, COPY, LIST and those of multipart uploads.
READS_PER_VIDEO = 2  # size and tag, then the object; more for objects above 8 MB
READS_PER_SHARD, WRITES_PER_SHARD = 2, 9  # commit and record; four parts, their copies, the commit
# At the end of the run, for each shard: its commit, its table of videos and its manifest; the one without duplicates.
FINAL_READS_PER_SHARD, FINAL_WRITES_PER_SHARD = 3, 1
UPLOAD_REQUESTS = 2  # start and end of a multipart upload, which each tar is
RANGE_BYTES = 8 << 20  # of one read of a video
PART_BYTES = 50e6  # size of a part of a multipart upload
DISK_WRITES_PER_BYTE = 2.0  # a result is written to disk twice: as a spooled segment and inside the tar

# Bit rate of the output in kbit/s. FLAC of 16 kHz mono speech takes about 0.6 of its PCM; for Opus and MP3 these are
# the bit rates that `media/encode.py` sets.
OUTPUT_KBPS = {"flac": 154.0, "wav": 256.0, "opus": 32.0, "mp3": 64.0}


@dataclass(frozen=True)
class Workload:
    """The audio to process, and assumptions about videos and nodes that nothing here measures.

    Args:
        videos: number of videos.
        minutes: mean duration of the audio of a video.
        deadline_h: hours that the run may take.
        audio_format: codec of the output.
        source_kbps: bit rate of the videos' audio.
        kept_ratio: share of the audio that reaches the output.
        shard_videos: videos in a shard.
        network_gbps: sustained rate between a node and the store; clouds publish only an upper limit.
        disk_mb_s: sustained write rate of a node's scratch disk.
        months: how long the output is stored.

    Raises:
        ConfigError: a number is not positive or the format is unknown.
    """

    videos: int = 500_000
    minutes: float = 17.0
    deadline_h: float = 24.0
    audio_format: str = "flac"
    source_kbps: float = 128.0
    kept_ratio: float = 1.0
    shard_videos: int = 64
    network_gbps: float = 5.0
    disk_mb_s: float = 250.0
    months: float = 1.0

    def __post_init__(self) -> None:
        for name in ("videos", "minutes", "deadline_h"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, not {getattr(self, name)}")
        if self.audio_format not in OUTPUT_KBPS:
            raise ConfigError(f"audio_format must be one of {', '.join(OUTPUT_KBPS)}, not '{self.audio_format}'")

    @property
    def audio_s(self) -> float:
        return self.videos * self.minutes * 60

    @property
    def bytes_in(self) -> float:
        return self.audio_s * self.source_kbps * 1000 / 8

    @property
    def bytes_out(self) -> float:
        return self.audio_s * self.kept_ratio * OUTPUT_KBPS[self.audio_format] * 1000 / 8

    @property
    def shards(self) -> int:
        return math.ceil(self.videos / self.shard_videos)


@dataclass(frozen=True)
class Costs:
    """The cost of a run in US dollars."""

    compute: float
    egress: float
    storage: float
    operations: float

    @property
    def total(self) -> float:
        return self.compute + self.egress + self.storage + self.operations


@dataclass(frozen=True)
class InstanceEstimate:
    """The forecast for one machine.

    `limits_x` maps each part of a node (CPU, GPU, network, disk) to the speed, as a multiple of real time, that it
    allows the whole node.
    """

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
        """Return the speed of one node as a multiple of real time."""
        return self.limits_x[self.bottleneck]


def estimate_instance(
    workload: Workload, rates: Rates, instance: Instance, nodes: int | None = None
) -> InstanceEstimate:
    """Estimate a workload on `nodes` nodes of a machine, or on as few as meet the deadline."""
    limits_x = _compute_limits(workload, rates, instance)
    node_hours = workload.audio_s / min(limits_x.values()) / 3600
    nodes = nodes or math.ceil(node_hours / workload.deadline_h)
    hours = node_hours / nodes
    return InstanceEstimate(instance, nodes, hours, limits_x, _compute_costs(workload, instance, nodes * hours))


def _compute_limits(workload: Workload, rates: Rates, instance: Instance) -> dict[str, float]:
    read_bytes_per_s, output_bytes_per_s = workload.bytes_in / workload.audio_s, workload.bytes_out / workload.audio_s
    core_x = rates.core_x_with_gpu if instance.gpu else rates.core_x_without_gpu
    limits = {
        "CPU": instance.cores * core_x,
        "network": workload.network_gbps * 1e9 / 8 / (read_bytes_per_s + output_bytes_per_s),
        "disk": workload.disk_mb_s * 1e6 / (read_bytes_per_s + DISK_WRITES_PER_BYTE * output_bytes_per_s),
    }
    if instance.gpu:
        limits["GPU"] = instance.gpus * rates.gpu_x_of(instance.gpu)
    return limits


def _compute_costs(workload: Workload, instance: Instance, node_hours: float) -> Costs:
    prices = load_prices()
    writes_per_shard = WRITES_PER_SHARD + FINAL_WRITES_PER_SHARD + UPLOAD_REQUESTS
    writes = workload.shards * writes_per_shard + workload.bytes_out / PART_BYTES
    ranges = math.ceil(workload.bytes_in / workload.videos / RANGE_BYTES)
    # An object of several ranges is checked again after its last one.
    reads_per_video = READS_PER_VIDEO if ranges <= 1 else READS_PER_VIDEO + ranges
    reads = workload.videos * reads_per_video + workload.shards * (READS_PER_SHARD + FINAL_READS_PER_SHARD)
    return Costs(
        compute=node_hours * instance.usd_hour,
        egress=workload.bytes_out / 1e9 * prices.providers[instance.provider].egress_usd_gb,
        storage=workload.bytes_out / 1e9 * prices.store.usd_gb_month * workload.months,
        operations=(
            writes / 1e6 * prices.store.usd_million_writes
            + reads / 1e6 * prices.store.usd_million_reads
            + prices.ledger.usd_month * workload.months
        ),
    )
