"""`audiopipe bench scale`: plan, schedule and record a whole catalog with a stub task.

Real parts: the catalog, the plan, Dask's scheduler and worker processes, the driver's session, a commit for each shard
in a folder, the listing of commits, heartbeats, the ledger. The stub task invents a shard's counts (and a dead letter)
and writes its commit, which names no objects; nothing is fetched, decoded or encoded.
"""

from __future__ import annotations

import json
import resource
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.bench.machine import Machine
from audiopipe.bench.markdown import format_markdown
from audiopipe.config import RunConfig
from audiopipe.dataset.commit import Commit, commit_shard
from audiopipe.driver.run import run
from audiopipe.ledger import default_path, open_ledger
from audiopipe.ledger.address import SUPABASE
from audiopipe.ledger.snapshot import take_snapshot
from audiopipe.ledger.supabase_client import SupabaseClient
from audiopipe.store.objects import Store
from audiopipe.types import DeadLetter, Shard, ShardResult

__all__ = ["ScaleResult", "bench", "format_rows", "save", "stub_result", "stub_shard", "write_catalog"]

VIDEO_SEGMENTS, SEGMENT_S = 207, 5.0  # of each video, as in the plan document
DAY_MINUTES = 24 * 60
QUERIES = 20


@dataclass(frozen=True)
class ScaleResult:
    """Time and memory of a run with stub tasks.

    Attributes:
        minutes: from the catalog to the last commit.
        resume_s: time of a second run, which has nothing to do.
        driver_mb: peak memory of the driver's process, which a local cluster's scheduler shares.
        monitor_ms: best time of a ledger snapshot, as on a machine with no other load.
    """

    ledger: str
    videos: int
    languages: int
    shards: int
    minutes: float
    resume_s: float
    driver_mb: float
    database_mb: float
    monitor_ms: float
    monitor_median_ms: float

    @property
    def share_of_a_day(self) -> float:
        return self.minutes / DAY_MINUTES


def bench(
    videos: int,
    languages: int,
    ledger: str | None = None,
    workers: int = 2,
) -> ScaleResult:
    """Run a synthetic catalog in a temporary folder, once.

    Args:
        ledger: as in `RunConfig`; by default the SQLite file of the output. A Supabase database should be empty,
            because the size of its tables includes all runs.

    Raises:
        RuntimeError: at the end the ledger does not count all videos.
        AudiopipeError: as `run`.
    """
    with tempfile.TemporaryDirectory(prefix="audiopipe-scale-") as folder:
        config = RunConfig.of(
            catalog=str(write_catalog(Path(folder), videos, languages)),
            output=f"{folder}/out",
            ledger=ledger,
            cluster="local-cpu",
            workers=workers,
        )
        started = time.monotonic()
        summary = run(config, task=stub_shard)
        ended = time.monotonic()
        run(config)
        resumed = time.monotonic()
        snapshots_ms = _time_snapshots(config, videos)
        return ScaleResult(
            ledger="Supabase" if ledger == SUPABASE else "SQLite",
            videos=videos,
            languages=languages,
            shards=summary.total.shards,
            minutes=(ended - started) / 60,
            resume_s=resumed - ended,
            driver_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            database_mb=_database_bytes(config) / 1e6,
            monitor_ms=min(snapshots_ms),
            monitor_median_ms=statistics.median(snapshots_ms),
        )


def format_rows(result: ScaleResult) -> list[tuple[str, str, str]]:
    """Return the rows of the table: quantity, measured value, target."""
    return [
        ("ledger", result.ledger, ""),
        ("videos", f"{result.videos:,} in {result.languages} languages", ""),
        ("shards", f"{result.shards:,}", ""),
        ("plan, schedule, record", f"{result.minutes:.2f} min ({result.share_of_a_day:.2%} of 24 h)", "< 1 %"),
        ("second run, nothing to do", f"{result.resume_s:.1f} s", ""),
        ("peak memory, driver and scheduler (one process)", f"{result.driver_mb:.0f} MB", "< 2 GB"),
        ("database", f"{result.database_mb:.1f} MB", ""),
        (
            "snapshot for the monitor, best and median",
            f"{result.monitor_ms:.0f} ms, {result.monitor_median_ms:.0f} ms",
            "< 100 ms",
        ),
    ]


def save(result: ScaleResult, folder: Path) -> list[Path]:
    """Write the table and the numbers to `scale-<ledger>.md` and `.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = {name: value for name, value in Machine.detect().as_text().items() if name in ("cpu", "cores", "load")}
    markdown, data = (folder / f"scale-{result.ledger.lower()}{suffix}" for suffix in (".md", ".json"))
    lines = [
        "# A whole catalog with stub tasks",
        "",
        "Generated by `audiopipe bench scale --save`; no number is typed by hand. The catalog, the plan, Dask's",
        "scheduler and workers, the driver, the commits and the ledger are real. The stub task invents a shard's",
        "counts and writes its commit; nothing is fetched, decoded or encoded.",
        "",
        ", ".join(f"{name}: {value}" for name, value in machine.items()),
        "",
        format_markdown(("quantity", "measured", "target"), format_rows(result)),
    ]
    markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    data.write_text(json.dumps({"machine": machine, **asdict(result)}, indent=1) + "\n", encoding="utf-8")
    return [markdown, data]


def write_catalog(folder: Path, videos: int, languages: int) -> Path:
    """Write the table of a synthetic catalog; return its path."""
    numbers = range(videos)
    columns = {
        "youtube_id": [f"v{number:010d}" for number in numbers],
        "language": [f"l{number % languages:02d}" for number in numbers],
        "status": ["COMPLETED"] * videos,
        "r2_tar_key": [f"{number}.tar" for number in numbers],
        "size_bytes": [10_000_000] * videos,
        "duration_s": [VIDEO_SEGMENTS * SEGMENT_S] * videos,
    }
    pq.write_table(pa.table(columns), folder / "catalog.parquet")
    return folder / "catalog.parquet"


def stub_shard(shard: Shard, config: RunConfig, run_id: str, worker: str) -> ShardResult:
    """Commit a shard without processing it: counts as of real speech, one dead letter, no objects."""
    return commit_shard(Store(config.output), Commit(stub_result(shard, run_id, worker), (), config.digest))


def stub_result(shard: Shard, run_id: str, worker: str) -> ShardResult:
    """Invent the result of a shard: counts as of real speech, and one dead letter."""
    now = datetime.now(UTC).isoformat()
    count = len(shard.videos)
    segments = (count - 1) * VIDEO_SEGMENTS
    letter = DeadLetter(shard.videos[0].video_id, shard.language, "decode", "NoAudio", "stub")
    return ShardResult(
        shard=shard.name,
        language=shard.language,
        partition=shard.partition,
        attempt=f"bench-{shard.name}",
        run_id=run_id,
        worker=worker,
        videos=count,
        videos_failed=1,
        segments=segments,
        segments_kept=segments - segments // 10,
        drops={"noisy": segments // 10},
        audio_s=segments * SEGMENT_S,
        kept_s=(segments - segments // 10) * SEGMENT_S,
        bytes_in=sum(video.size_bytes or 0 for video in shard.videos),
        bytes_out=segments * 80_000,
        stage_s={"fetch": 1.0, "decode": 2.0, "score": 1.0, "encode": 1.0},
        wall_s=0.0,
        started_at=now,
        finished_at=now,
        dead_letters=(letter,),
    )


def _database_bytes(config: RunConfig) -> int:
    """Return the size of the ledger with its indexes: PostgreSQL's count, or SQLite's files."""
    if config.ledger == SUPABASE:
        with SupabaseClient() as supabase:
            return int(supabase.rpc("ledger_bytes"))
    file = Path(config.ledger) if config.ledger else default_path(config.output)
    return sum(path.stat().st_size for path in file.parent.glob(f"{file.name}*"))


def _time_snapshots(config: RunConfig, videos: int) -> list[float]:
    """Return the milliseconds of each snapshot, over one open connection as in `audiopipe monitor`."""
    times = []
    with open_ledger(config.ledger, config.output, create=False) as ledger:
        for _ in range(QUERIES):
            started = time.monotonic()
            snapshot = take_snapshot(ledger)
            times.append(1000 * (time.monotonic() - started))
    processed = snapshot.totals.processed if snapshot else 0
    if processed != videos:
        raise RuntimeError(f"the ledger counts {processed} of {videos} videos")
    return times
