"""Judge a soak: its pace in each quarter, the growth of every process, and what was found in the output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from audiopipe.bench.soak.checks import Check
from audiopipe.bench.soak.faults import FaultEvent
from audiopipe.bench.soak.sampler import MemorySeries, Sample

__all__ = ["MIN_PACE", "Growth", "SoakResult", "measure_growth"]

MIN_PACE = 0.95  # of the last quarter, relative to the first
MIN_JUDGED_S = 1200.0  # a shorter soak has too few videos in a quarter to judge pace and memory
# A process may grow by this share of its memory from the beginning of the soak to its end, or by so many megabytes:
# an allocator's fragments vary by more than the growth of a small process.
MAX_GROWTH, MAX_GROWTH_MB = 0.05, 12.0
WARM_UP = 0.25  # share of the soak in which caches and the allocator's pools fill
LONG_LIVED = 0.8  # share of the soak after which a process is judged
SERVERS = ("S3 server", "PostgreSQL", "Supabase")  # drawn, not judged: others' programs, and restarted in each cycle

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Growth:
    """The memory of a long-lived process: its median, and its trend over the soak (Theil and Sen's, robust)."""

    name: str
    median_mb: float
    mb_per_hour: float
    growth_mb: float

    @property
    def limit_mb(self) -> float:
        """The largest growth that counts as flat."""
        return max(MAX_GROWTH * self.median_mb, MAX_GROWTH_MB)

    @property
    def is_flat(self) -> bool:
        return self.growth_mb <= self.limit_mb


@dataclass(frozen=True)
class SoakResult:
    """All numbers of a soak.

    Attributes:
        videos, shards: numbers of those that are committed.
        is_complete: all that was planned is committed; else the run was stopped when its time was over.
        window: seconds from the first commit to the time when the last shards were handed out.
        reference_rate: videos per minute of the undisturbed run before.
        s3_faults: requests that the proxy failed, by kind.
        omitted: faults that this machine cannot have, with the reason.
    """

    machine: dict[str, str]
    minutes: float
    cycle_s: float
    videos: int
    shards: int
    is_complete: bool
    window: tuple[float, float]
    reference_rate: float
    samples: list[Sample]
    memory: dict[str, MemorySeries]
    events: list[FaultEvent]
    s3_requests: int
    s3_faults: dict[str, int]
    retired: dict[str, str]
    omitted: list[str]
    checks: list[Check]

    @property
    def is_judged(self) -> bool:
        """Return True if the soak was long enough to judge its pace and its memory."""
        return self.window[1] - self.window[0] >= MIN_JUDGED_S

    def quarters(self) -> list[dict[str, float]]:
        """Return for each quarter the videos per minute and per CPU second of workers, and others' share of the CPU."""
        edges = np.linspace(*self.window, 5)
        at_s = [sample.at_s for sample in self.samples]

        def differences(name: str) -> Numbers:
            return np.diff(np.interp(edges, at_s, [getattr(sample, name) for sample in self.samples]))

        videos, cpu_s = differences("videos"), differences("worker_cpu_s")
        busy, used = differences("busy_cpu_s"), differences("soak_cpu_s")
        return [
            {
                "from_s": float(start),
                "to_s": float(end),
                "videos": float(count),
                "videos_per_minute": float(60 * count / (end - start)),
                "videos_per_cpu_s": float(count / max(cpu, 1e-9)),
                "soak_cores": float(soak_s / (end - start)),
                "other_cores": float(max(0.0, busy_s - soak_s) / (end - start)),
            }
            for start, end, count, cpu, busy_s, soak_s in zip(
                edges[:-1], edges[1:], videos, cpu_s, busy, used, strict=True
            )
        ]

    def pace(self, quantity: str) -> float:
        """Return the ratio of the last quarter to the first of a quantity of `quarters`."""
        quarters = self.quarters()
        return quarters[-1][quantity] / max(quarters[0][quantity], 1e-9)

    def growths(self) -> list[Growth]:
        """Return the growth of the processes that lived for most of the window, except servers."""
        return [
            growth
            for name, series in self.memory.items()
            if name.partition(" #")[0] not in SERVERS
            and (growth := measure_growth(name, series, self.window)) is not None
        ]

    def verdicts(self) -> list[Check]:
        """Return all checks: those of the output, and those of pace and memory if the soak was long enough."""
        verdicts = list(self.checks)
        if self.is_judged:
            pace, by_clock = self.pace("videos_per_cpu_s"), self.pace("videos_per_minute")
            name = f"pace of the last quarter at least {MIN_PACE} of the first, by the workers' CPU time"
            verdicts.append(Check(name, pace >= MIN_PACE, f"{pace:.3f}; by the clock {by_clock:.3f}"))
            growing = [f"{item.name} +{item.growth_mb:.1f} MB" for item in self.growths() if not item.is_flat]
            name = f"memory of every process flat: growth at most {MAX_GROWTH:.0%} or {MAX_GROWTH_MB:.0f} MB"
            verdicts.append(Check(name, not growing, ", ".join(growing) or f"{len(self.growths())} processes"))
        return verdicts

    @property
    def is_passed(self) -> bool:
        return all(check.is_met for check in self.verdicts())

    def to_dict(self) -> dict[str, object]:
        """Return everything as JSON values."""
        return {
            **asdict(self),
            "quarters": self.quarters(),
            "growths": [asdict(item) | {"limit_mb": item.limit_mb} for item in self.growths()],
            "verdicts": [asdict(check) for check in self.verdicts()],
            "is_judged": self.is_judged,
            "is_passed": self.is_passed,
        }

    @classmethod
    def from_dict(cls, body: Mapping[str, object]) -> SoakResult:
        """Return the result that `to_dict` described."""
        kinds = {"samples": Sample, "events": FaultEvent, "checks": Check}
        values = {name: body[name] for name in cls.__dataclass_fields__}
        for name, kind in kinds.items():
            items = values[name]
            assert isinstance(items, list)
            values[name] = [kind(**item) for item in items]
        memory = values["memory"]
        assert isinstance(memory, dict)
        values["memory"] = {name: MemorySeries(**series) for name, series in memory.items()}
        window = values["window"]
        assert isinstance(window, list)
        return cls(**values | {"window": tuple(window)})  # type: ignore[arg-type]


def measure_growth(name: str, series: MemorySeries, window: Sequence[float]) -> Growth | None:
    """Return the growth of a process over the window, without its warm-up; None if it lived for less of it."""
    at_s, rss_mb = np.array(series.at_s), np.array(series.rss_mb)
    length = window[1] - window[0]
    start = window[0] + WARM_UP * length
    inside = (at_s >= start) & (at_s <= window[1])
    at_s, rss_mb = at_s[inside], rss_mb[inside]
    if len(at_s) < 3 or at_s[-1] - at_s[0] < LONG_LIVED * (window[1] - start):
        return None
    step = -(-len(at_s) // 500)  # 125,000 pairs are enough
    slope = _trend(at_s[::step], rss_mb[::step])
    return Growth(name, float(np.median(rss_mb)), 3600 * slope, slope * float(at_s[-1] - at_s[0]))


def _trend(x: Numbers, y: Numbers) -> float:
    """Return the median of the slopes between all pairs of points."""
    first, second = np.triu_indices(len(x), 1)
    return float(np.median((y[second] - y[first]) / (x[second] - x[first])))
