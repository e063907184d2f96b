"""Make small outputs for tests of storage: a corpus of short tones, outputs made from it without Dask, their bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from factories import wav_video

from audiopipe.config import RunConfig
from audiopipe.dataset.backup import backup
from audiopipe.dataset.describe import finalize
from audiopipe.dataset.run_record import open_run
from audiopipe.pipeline.shard import process_shard
from audiopipe.plan.plan import create_plan
from audiopipe.store.objects import Store

RUN_ID = "tests"
SEGMENTS = [{"start": 0.1, "end": 0.9, "text": "one"}, {"start": 1.0, "end": 1.8, "text": "two"}]
# Objects that have the same bytes in every run: design.md, "same bytes".
REPRODUCIBLE = (".tar", ".parquet", ".json", ".txt", ".md")


def corpus(folder: Path, videos: int = 5, missing: bool = True, seconds: float = 2.0) -> Path:
    """Make videos of `seconds` in two languages, two segments each; return the path of their catalog.

    Args:
        missing: add a video to the catalog that does not exist.
    """
    (folder / "videos").mkdir(parents=True)
    rows = []
    for number in range(videos):
        name, language = f"video{number:02d}", ("en", "de")[number % 2]
        sidecar = json.dumps({"segments": SEGMENTS}).encode()
        video = wav_video(folder / "videos", name, seconds + 0.1 * number, language=language, json=sidecar)
        rows.append((name, language, f"videos/{name}.tar", video.size_bytes))
    if missing:
        rows.append(("nowhere", "en", "videos/nowhere.tar", 1000))
    names = ("youtube_id", "language", "r2_tar_key", "size_bytes")
    table = pa.table(dict(zip(names, zip(*rows, strict=True), strict=True)))
    pq.write_table(table.append_column("status", pa.array(["COMPLETED"] * len(rows))), folder / "catalog.parquet")
    return folder / "catalog.parquet"


def config(catalog: Path | str, url: Path | str, **parameters: object) -> RunConfig:
    """Configure a run of the corpus: two videos a shard, no segment dropped for its sound, and a fixed run_id.

    Any share of the videos may fail, because the corpora are small and have defects on purpose.
    """
    fixed = {"shard_videos": 2, "min_snr_db": None, "max_silence_ratio": None, "run_id": RUN_ID, "device": "cpu"}
    fixed |= {"heartbeat_s": 1.0, "max_failed_share": 1.0}
    return RunConfig.of(catalog=str(catalog), output=str(url), **(fixed | parameters))


def make_output(config: RunConfig) -> Store:
    """Make a complete output in this process."""
    store = Store(config.output)
    run_id = open_run(store, config)
    shards = list(create_plan(config, store).shards())
    backup(store)
    for shard in shards:
        process_shard(shard, config, run_id)
    finalize(store)
    return store


def content(url: str | Path) -> dict[str, bytes]:
    """Read the objects that are the same in every run: tars, Parquets, manifests, plan and description."""
    store = Store(str(url))
    names = [
        name
        for name in store.list()
        if name.endswith(REPRODUCIBLE) and not name.startswith(("_commits/", "_run", "_finalized"))
    ]
    return {name: store.read(name) for name in names}
