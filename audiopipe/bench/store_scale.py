"""`audiopipe bench scale --store s3`: count the requests of a whole catalog to a real S3 server with latency.

Two runs: one of very small videos that are fetched, decoded, scored and encoded, and one of a whole catalog whose tasks
only upload and commit small objects. Each has a driver in its own process, and a second driver with nothing to do.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec

from audiopipe.bench.machine import Machine
from audiopipe.bench.markdown import format_markdown
from audiopipe.bench.scale import write_catalog
from audiopipe.bench.servers.request_proxy import OPERATIONS, RequestCounts, RequestProxy
from audiopipe.bench.servers.s3 import BUCKET, S3Server
from audiopipe.bench.store_driver import DriverTimes, run_driver
from audiopipe.bench.tiny_videos import SETTINGS, upload_videos
from audiopipe.estimation import load_prices
from audiopipe.store.objects import Store

__all__ = ["StoreResult", "StoreRun", "bench", "format_requests", "format_rows", "save"]

READS, FREE = ("GET", "HEAD"), ("DELETE",)  # of R2's price list; all others are writes
MAX_DRIVER_MB, COMMAND = 1000, "audiopipe bench scale --store s3"


@dataclass(frozen=True)
class StoreRun:
    """One run: its times, and its requests by phase; 'resume' is the second driver."""

    kind: str
    times: DriverTimes
    resumed: DriverTimes
    requests: dict[str, RequestCounts]

    @property
    def usd(self) -> float:
        """The price of its requests."""
        prices = load_prices().store
        counts = [(name, sum(part.count(name) for part in self.requests.values())) for name in OPERATIONS]
        reads = sum(number for name, number in counts if name in READS)
        writes = sum(number for name, number in counts if name not in (*READS, *FREE))
        return reads / 1e6 * prices.usd_million_reads + writes / 1e6 * prices.usd_million_writes

    def per_video(self, operation: str) -> float:
        """Return the requests for the objects of videos, for each video."""
        return self.requests["work"].count(operation, "videos") / self.times.videos

    def per_shard(self, operation: str, phase: str = "work") -> float:
        """Return the requests of a phase, but for the objects of videos, for each shard."""
        counts = self.requests[phase]
        return (counts.count(operation) - counts.count(operation, "videos")) / self.times.shards

    def to_dict(self) -> dict[str, Any]:
        """Return the run as JSON values."""
        shards = {phase: self._per_shard(phase) for phase in self.requests}
        return {
            "kind": self.kind,
            "times": _rounded(self.times),
            "resumed": _rounded(self.resumed),
            "usd": round(self.usd, 4),
            "per_video": {name: round(self.per_video(name), 3) for name in OPERATIONS if self.per_video(name)},
            "per_shard": shards,
            "requests": {phase: counts.to_dict() for phase, counts in self.requests.items()},
        }

    def _per_shard(self, phase: str) -> dict[str, float]:
        return {name: round(self.per_shard(name, phase), 3) for name in OPERATIONS if self.per_shard(name, phase)}


@dataclass(frozen=True)
class StoreResult:
    """All runs of the benchmark, and its settings."""

    latency_ms: float
    workers: int
    languages: int
    runs: tuple[StoreRun, ...]


def bench(
    videos: int,
    real_videos: int,
    languages: int = 12,
    workers: int = 2,
    latency_ms: float = 30.0,
    log: Callable[[str], None] = lambda line: None,
) -> StoreResult:
    """Start a server and a proxy, and run both catalogs.

    Args:
        videos: of the run with stub tasks; 0 leaves it out.
        real_videos: of the run with real tasks; 0 leaves it out.
        latency_ms: added to each request and each new connection.
        log: called with a line about what follows.

    Raises:
        ConfigError: the server is not installed.
        RuntimeError: a driver failed, or did not process all videos.
    """
    runs = []
    with tempfile.TemporaryDirectory(prefix="audiopipe-scale-") as name:
        folder = Path(name)
        server = S3Server(folder)
        try:
            server.start()
            with RequestProxy(server.ports["s3"], latency_ms / 1000) as proxy:
                if real_videos:
                    log(f"uploading {real_videos:,} videos")
                    with _environment(server.environment()):
                        catalog = upload_videos(Store(f"s3://{BUCKET}/videos"), real_videos, languages, folder)
                    with _environment(server.environment(proxy.endpoint)):
                        runs.append(_run(proxy, "real", catalog, workers, log, **SETTINGS))
                if videos:
                    catalog = write_catalog(folder, videos, languages)
                    with _environment(server.environment(proxy.endpoint)):
                        runs.append(_run(proxy, "stub", catalog, workers, log))
        finally:
            server.kill()
    return StoreResult(latency_ms, workers, languages, tuple(runs))


def _run(
    proxy: RequestProxy, kind: str, catalog: Path, workers: int, log: Callable[[str], None], **settings: object
) -> StoreRun:
    config: dict[str, object] = {
        "catalog": str(catalog),
        "output": f"s3://{BUCKET}/{kind}",
        "ledger": str(catalog.parent / f"{kind}.sqlite"),
        "cluster": "local-cpu",
        "device": "cpu",
        "workers": workers,
        **settings,
    }
    log(f"running the catalog with {kind} tasks")
    times = run_driver(config, kind)
    requests = dict(zip(times.wall_s, proxy.count(times.boundaries()), strict=True))
    if times.exit_code not in (0, 3):
        raise RuntimeError(f"the driver of the benchmark ended with exit code {times.exit_code}")
    log("running it again, with nothing to do")
    resumed = run_driver(config, "none")
    boundaries = resumed.boundaries()
    (requests["resume"],) = proxy.count([boundaries[0], boundaries[-1]])
    return StoreRun(kind, times, resumed, requests)


def format_rows(result: StoreResult) -> list[tuple[str, ...]]:
    """Return the rows of the table of times: quantity, and the value of each run."""
    runs = result.runs
    rows = [
        ("tasks", *(run.kind for run in runs)),
        ("videos", *(f"{run.times.videos:,}" for run in runs)),
        ("videos that failed", *(f"{run.times.videos_failed:,}" for run in runs)),
        ("shards", *(f"{run.times.shards:,}" for run in runs)),
    ]
    for phase in ("start", "work", "finalize"):
        rows.append(
            (f"{phase}: seconds (CPU of the driver)", *(_seconds(run.times, [phase]) for run in runs)),
        )
    rows += [
        ("second driver, nothing to do: seconds (CPU)", *(_seconds(run.resumed, run.resumed.wall_s) for run in runs)),
        ("peak memory of the driver, target < 1,000 MB", *(f"{run.times.peak_mb:,.0f} MB" for run in runs)),
        ("peak memory of the second driver", *(f"{run.resumed.peak_mb:,.0f} MB" for run in runs)),
        ("MB sent, MB received", *(_megabytes(run) for run in runs)),
        ("price of all requests", *(f"${run.usd:.4f}" for run in runs)),
    ]
    return [tuple(row) for row in rows]


def format_requests(run: StoreRun) -> list[tuple[str, ...]]:
    """Return the rows of a run's table of requests: what they are for, and the number of each operation."""
    rows = [("work, for each video", *(_number(run.per_video(name)) for name in OPERATIONS))]
    for phase in ("work", "finalize"):
        rows.append((f"{phase}, for each shard", *(_number(run.per_shard(name, phase)) for name in OPERATIONS)))
    rows += [(phase, *(f"{counts.count(name):,}" for name in OPERATIONS)) for phase, counts in run.requests.items()]
    return [tuple(row) for row in rows]


def save(result: StoreResult, folder: Path) -> list[Path]:
    """Write the tables and the numbers to `requests-s3.md` and `.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = {name: value for name, value in Machine.detect().as_text().items() if name in ("cpu", "cores", "load")}
    sizes = {run.kind: run.times.videos for run in result.runs}
    command = f"{COMMAND} --real-videos {sizes.get('real', 0)} --videos {sizes.get('stub', 0)}"
    command += f" --latency-ms {result.latency_ms:g} --workers {result.workers} --save"
    lines = [
        "# Requests of a whole catalog to an object store",
        "",
        f"Generated by `{command}`; no number is typed by hand. The server is SeaweedFS on this machine,",
        f"behind a proxy that adds {result.latency_ms:g} ms to each request and each new connection, and counts. With",
        "`real` tasks very small videos are fetched, decoded, scored and encoded; `stub` tasks upload four small",
        "objects for each shard and commit them. The driver's process has Dask's scheduler too. DELETE is one request",
        "for many keys. HEAD and GET are reads in the price list, DELETE is free, all others are writes.",
        "",
        ", ".join(f"{name}: {value}" for name, value in machine.items()) + f", workers: {result.workers}",
        "",
        format_markdown(
            ("quantity", *(f"{run.times.videos:,} videos" for run in result.runs)), format_rows(result)[1:]
        ),
    ]
    for run in result.runs:
        lines += ["", f"## Requests with {run.kind} tasks", ""]
        lines += [format_markdown(("requests", *OPERATIONS), format_requests(run))]
    markdown, data = (folder / f"requests-s3{suffix}" for suffix in (".md", ".json"))
    markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    body = {
        "machine": machine,
        "command": command,
        "latency_ms": result.latency_ms,
        "runs": [run.to_dict() for run in result.runs],
    }
    data.write_text(json.dumps(body, indent=1) + "\n", encoding="utf-8")
    return [markdown, data]


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables in the block, and forget the file systems that were opened with others."""
    filesystem = fsspec.get_filesystem_class("s3")
    filesystem.clear_instance_cache()
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        filesystem.clear_instance_cache()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _rounded(times: DriverTimes) -> dict[str, object]:
    return {
        "wall_s": {phase: round(seconds, 2) for phase, seconds in times.wall_s.items()},
        "cpu_s": {phase: round(seconds, 2) for phase, seconds in times.cpu_s.items()},
        "peak_mb": round(times.peak_mb),
        "shards": times.shards,
        "videos": times.videos,
        "videos_failed": times.videos_failed,
    }


def _seconds(times: DriverTimes, phases: Mapping[str, float] | list[str]) -> str:
    wall, cpu = (sum(values.get(phase, 0.0) for phase in phases) for values in (times.wall_s, times.cpu_s))
    return f"{wall:.1f} ({cpu:.1f})"


def _megabytes(run: StoreRun) -> str:
    up, down = (sum(getattr(part, name) for part in run.requests.values()) / 1e6 for name in ("bytes_up", "bytes_down"))
    return f"{up:,.1f}, {down:,.1f}"


def _number(value: float) -> str:
    return f"{value:.2f}" if value else "0"
