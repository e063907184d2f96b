"""Make up the ledger of a large run, and the tables of a dataset in many languages. No audio is processed."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from langcodes.data_dicts import LIKELY_SUBTAGS

from audiopipe.dataset.totals import Totals
from audiopipe.ledger import (
    ErrorRow,
    LanguageTotal,
    Role,
    RunRow,
    RunStatus,
    ShardRow,
    ShardStatus,
    WorkerRow,
    WorkerStatus,
)
from audiopipe.ledger.queries import build_insert
from audiopipe.ledger.sqlite import SqliteLedger
from audiopipe.report.dataset_tables import DatasetTables

RUN_ID = "large-2026-11-28"
STAGES = ("fetch", "decode", "fingerprint", "voice", "score", "encode", "write", "upload")
ERRORS = ("TruncatedMedia", "BadTar", "MissingSource", "NoAudio", "UndecodableMedia", "EmptySource", "SilentAudio")
NOW = datetime(2026, 11, 28, 2, 0, tzinfo=UTC)


def language_names(count: int) -> list[str]:
    """Return codes of languages, the first ones those of the plan document."""
    known = ["en", "es", "fr", "de", "ru", "pt", "it", "ja", "ko", "hi", "ar", "zh"]
    rest = [tag for tag in sorted(LIKELY_SUBTAGS) if tag.isalpha() and len(tag) in (2, 3) and tag != "und"]
    return list(dict.fromkeys([*known, *rest]))[:count]


def make_ledger(
    path: Path, languages: int = 100, workers: int = 64, shards: int = 10_000, done: float = 0.97
) -> SqliteLedger:
    """Write the ledger of a run of eleven hours, in which some workers are silent and some videos fail."""
    rng = np.random.default_rng(0)
    names = language_names(languages)
    weights = 1 / np.arange(1, languages + 1) ** 0.8
    of_shard = rng.choice(names, shards, p=weights / weights.sum())
    start = NOW - timedelta(hours=11)
    ledger = SqliteLedger(path)
    counts = pd.Series(of_shard).value_counts()
    totals = [LanguageTotal(name, int(50 * counts.get(name, 0)), int(counts.get(name, 0))) for name in names]
    run = RunRow(RUN_ID, "all", 50 * shards, output="s3://bucket/out", started_at=start.isoformat(), heartbeat_s=10)
    ledger.start_run(run, totals)
    ids = [f"node-{n // 8:02d}/p{n // 8}/gpu-{n % 8}" for n in range(workers)]
    free = np.zeros(workers)
    rows, errors = [], []
    numbers: dict[str, int] = {}
    for number in range(int(done * shards)):
        worker, language = int(free.argmin()), str(of_shard[number])
        wall_s = float(rng.gamma(20, 250 * workers / 64 / 20 * 39_000 / 250 / (shards / workers)))
        began, free[worker] = free[worker], free[worker] + wall_s
        index = numbers[language] = numbers.get(language, -1) + 1
        failed = int(rng.random() < 0.3)
        segments = int(rng.normal(6000, 500))
        stages = dict(zip(STAGES, (wall_s * rng.dirichlet([1, 9, 2, 3, 5, 2, 1, 1])).tolist(), strict=True))
        row = ShardRow(
            f"{language}-{index:06d}", language, ShardStatus.DONE, attempts=1, worker_id=ids[worker], videos=50,
            videos_failed=failed, segments=segments, segments_kept=int(0.9 * segments), audio_s=51_000.0,
            kept_s=44_000.0, bytes_in=9 * 10**8, bytes_out=10**9, stage_s=stages, wall_s=wall_s,
            started_at=(start + timedelta(seconds=began)).isoformat(),
            finished_at=(start + timedelta(seconds=float(free[worker]))).isoformat(),
        )  # fmt: skip
        rows.append(row)
        if failed:
            errors.append(
                ErrorRow(
                    f"e{number}",
                    str(rng.choice(ERRORS)),
                    "ends after 22.6 of 37.2 s",
                    ids[worker],
                    f"video{number}",
                    created_at=row.finished_at,
                    language=language,
                    shard=row.shard,
                    stage="decode",
                )
            )
    with ledger._transaction() as connection:
        for table, items in (("shards", rows), ("processing_errors", errors)):
            for item in items:
                connection.execute(*build_insert(table, {"run_id": RUN_ID, **item.as_row()}, keep_null=True))
    beat = (NOW - timedelta(seconds=4)).isoformat()
    machines = [
        WorkerRow(
            worker, status=WorkerStatus.RUNNING, videos_processed=7500, segments_processed=900_000,
            videos_per_minute=11.2, segments_per_second=23.4, gpu_utilization=61.0,
            cpu_utilization=93.0, memory_bytes=11 * 10**9,
            gpu_memory_bytes=8 * 10**9,
            last_heartbeat=(NOW - timedelta(seconds=90)).isoformat() if number % 31 == 5 else beat,
        )
        for number, worker in enumerate(ids)
    ]  # fmt: skip
    nodes = sorted({worker.rpartition("/")[0] for worker in ids})
    drivers = [WorkerRow(node, Role.DRIVER, status=WorkerStatus.RUNNING, last_heartbeat=beat) for node in nodes]
    drivers = [replace(driver, partition_index=index) for index, driver in enumerate(drivers)]
    ledger.heartbeat(RUN_ID, [*drivers, *machines])
    if done >= 1:
        ledger.finish_run(RUN_ID, RunStatus.DONE)
    return ledger


def enlarge(tables: DatasetTables, languages: int = 100, segments: int = 60_000) -> DatasetTables:
    """Return tables with made-up segments in many languages, drawn from those of a small dataset with some noise."""
    rng = np.random.default_rng(0)
    names = language_names(languages)
    weights = 1 / np.arange(1, languages + 1) ** 0.8
    rows = tables.segments.iloc[rng.integers(0, len(tables.segments), segments)].reset_index(drop=True)
    for name in tables.metrics:
        values = rows[name].astype(float)
        rows[name] = values + rng.normal(0, 0.15 * (values.std() or 0.0) + 1e-9, segments)
    rows["language"] = rng.choice(names, segments, p=weights / weights.sum())
    rows["video_id"] = [f"video{n:07d}" for n in rng.integers(0, segments // 40 + 1, segments)]
    rows["speaker"] = [f"speaker {n}" for n in rng.zipf(1.6, segments) % 2000]
    rows["duration_s"] = rng.gamma(2.5, 2.2, segments) + 0.4
    rows = rows.assign(channel=[f"Channel {n}" for n in rng.zipf(1.5, segments) % 300], title="A title of a video")
    rows = rows.sort_values(["language", "video_id"], kind="stable").reset_index(drop=True)
    totals = {str(name): _sum_up(group) for name, group in rows.groupby("language")}
    dataset = copy.copy(tables.dataset)
    vars(dataset)["totals"] = totals
    large = replace(tables, dataset=dataset, segments=rows)
    vars(large)["total"] = _sum_up(rows)
    return large


def _sum_up(rows: pd.DataFrame) -> Totals:
    kept = rows[rows["kept"]]
    videos = rows["video_id"].nunique()
    totals = Totals(1, videos, videos // 50, len(rows), len(kept), float(rows["duration_s"].sum() * 1.2))
    totals.kept_s, totals.bytes_out = float(kept["duration_s"].sum()), 10**9
    totals.drops.update(rows["drop_reason"].dropna())
    return totals
