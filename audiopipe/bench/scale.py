"""`audiopipe bench scale`: plan, schedule and record a whole catalogue, with the work on the audio left out.

Real: the catalogue's reading, the plan, Dask's scheduler and worker processes, the driver's session, a commit for each
shard in a folder, their listing at the end, heartbeats, the ledger. Stubbed: `process_shard`. In its place a worker
makes up the shard's counts (and a dead letter) and writes the commit, which names no objects; nothing is fetched,
decoded or encoded.
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
from audiopipe.config import RunConfig
from audiopipe.dataset.commit import Commit, commit_shard
from audiopipe.driver.run import run
from audiopipe.ledger import default_path, open_ledger
from audiopipe.ledger.address import SUPABASE
from audiopipe.ledger.snapshot import take_snapshot
from audiopipe.ledger.supabase_client import SupabaseClient
from audiopipe.store.objects import Store
from audiopipe.types import DeadLetter, Shard, ShardResult

__all__ = ["ScaleReading", "bench", "rows", "save"]

VIDEO_SEGMENTS, SEGMENT_S = 207, 5.0  # of a video, as the plan counts them
DAY_MINUTES = 24 * 60
QUERIES = 20


@dataclass(frozen=True)
class ScaleReading:
    """What a run of stubbed work took. Memory is of the driver, in whose process a local cluster has its scheduler.

    `monitor_ms` is the best of some looks, which is what one takes when no other program has the machine.
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
) -> ScaleReading:
    """Run a made-up catalogue in a temporary folder, once.

    Args:
        ledger: as in `RunConfig`; by default the SQLite file of the output. Supabase's should be empty: the size of
            its tables is that of all runs.

    Raises: as `run`; `RuntimeError` if the ledger's count is not the catalogue's at the end.
    """
    with tempfile.TemporaryDirectory(prefix="audiopipe-scale-") as folder:
        config = RunConfig.of(
            catalog=str(_catalogue(Path(folder), videos, languages)),
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
        looks = _looks_ms(config, videos)
        return ScaleReading(
            ledger="Supabase" if ledger == SUPABASE else "SQLite",
            videos=videos,
            languages=languages,
            shards=summary.total.shards,
            minutes=(ended - started) / 60,
            resume_s=resumed - ended,
            driver_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            database_mb=_database_bytes(config) / 1e6,
            monitor_ms=min(looks),
            monitor_median_ms=statistics.median(looks),
        )


def rows(reading: ScaleReading) -> list[tuple[str, str, str]]:
    """What was measured, the number, and the bar that it has to meet."""
    return [
        ("ledger", reading.ledger, ""),
        ("videos", f"{reading.videos:,} in {reading.languages} languages", ""),
        ("shards", f"{reading.shards:,}", ""),
        ("plan, schedule, record", f"{reading.minutes:.2f} min ({reading.share_of_a_day:.2%} of 24 h)", "< 1 %"),
        ("start again, nothing to do", f"{reading.resume_s:.1f} s", ""),
        ("peak memory, driver and scheduler (one process)", f"{reading.driver_mb:.0f} MB", "< 2 GB"),
        ("database", f"{reading.database_mb:.1f} MB", ""),
        (
            "a look of the monitor, best and median",
            f"{reading.monitor_ms:.0f} ms, {reading.monitor_median_ms:.0f} ms",
            "< 100 ms",
        ),
    ]


def save(reading: ScaleReading, folder: Path) -> list[Path]:
    """Write the table and the numbers to `scale-<ledger>.md` and `.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = {name: value for name, value in Machine.detect().as_text().items() if name in ("cpu", "cores", "load")}
    markdown, data = (folder / f"scale-{reading.ledger.lower()}{suffix}" for suffix in (".md", ".json"))
    lines = [
        "# A whole catalogue with stubbed work",
        "",
        "Made by `audiopipe bench scale --save`; no number is typed by hand. Real are catalogue, plan, Dask's",
        "scheduler and workers, driver, commits in a folder, ledger; `process_shard` is a stub that makes up a",
        "shard's counts and writes its commit. Nothing is fetched, decoded or encoded.",
        "",
        ", ".join(f"{name}: {value}" for name, value in machine.items()),
        "",
        "| what | measured | bar |",
        "| --- | --- | --- |",
        *(f"| {what} | {number} | {bar} |" for what, number, bar in rows(reading)),
    ]
    markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    data.write_text(json.dumps({"machine": machine, **asdict(reading)}, indent=1) + "\n", encoding="utf-8")
    return [markdown, data]


def _catalogue(folder: Path, videos: int, languages: int) -> Path:
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
    """`process_shard` without the processing: counts as of real speech, one dead letter, a commit."""
    now = datetime.now(UTC).isoformat()
    count = len(shard.videos)
    segments = (count - 1) * VIDEO_SEGMENTS
    letter = DeadLetter(shard.videos[0].video_id, shard.language, "decode", "NoAudio", "made up")
    result = ShardResult(
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
    return commit_shard(Store(config.output), Commit(result, (), config.digest))


def _database_bytes(config: RunConfig) -> int:
    """What the ledger takes, indexes included, by PostgreSQL's own count or as files of SQLite."""
    if config.ledger == SUPABASE:
        with SupabaseClient() as supabase:
            return int(supabase.rpc("ledger_bytes"))
    file = Path(config.ledger) if config.ledger else default_path(config.output)
    return sum(path.stat().st_size for path in file.parent.glob(f"{file.name}*"))


def _looks_ms(config: RunConfig, videos: int) -> list[float]:
    """Some looks, with the connection open as `audiopipe monitor` keeps it."""
    times = []
    with open_ledger(config.ledger, config.output, create=False) as ledger:
        for _ in range(QUERIES):
            begun = time.monotonic()
            snapshot = take_snapshot(ledger)
            times.append(1000 * (time.monotonic() - begun))
    processed = snapshot.totals.processed if snapshot else 0
    if processed != videos:
        raise RuntimeError(f"the ledger counts {processed} of {videos} videos")
    return times
