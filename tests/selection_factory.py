"""Make outputs of many small samples without decoding, and selections from them without a cluster."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile as sf

from audiopipe.config import RunConfig
from audiopipe.dataset.annotations import list_annotations
from audiopipe.dataset.backup import backup
from audiopipe.dataset.commit import Commit, commit_shard, read_commits, upload
from audiopipe.dataset.describe import finalize
from audiopipe.dataset.run_record import open_run, read_config, read_run_record, read_schema
from audiopipe.dataset.schema import VIDEOS_SCHEMA, object_names, sample_key
from audiopipe.dataset.select_lists import write_plan
from audiopipe.dataset.select_rows import choose_rows, open_parent, resolve_options
from audiopipe.dataset.selection import Selection, SelectionOptions, new_record
from audiopipe.pipeline.copy import copy_shard
from audiopipe.plan.files import PLAN_SCHEMA, PlanMetadata, plan_path, serialize
from audiopipe.plan.plan import load_plan
from audiopipe.store.objects import Store
from audiopipe.types import Shard, ShardResult

RUN_ID = "made-up"

Samples = dict[str, tuple[bytes, bytes]]


def flac(seconds: float, seed: int = 0) -> bytes:
    """Encode noise."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).normal(0, 0.1, round(16_000 * seconds))
    sf.write(buffer, noise, 16_000, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def make_samples(
    url: str,
    languages: Iterable[str] = ("en", "de"),
    shards: int = 2,
    videos: int = 5,
    segments: int = 4,
    audio: Iterable[bytes] = (),
    duplicates: float | None = 0.15,
) -> Store:
    """Make a complete output whose samples are made-up audio.

    Every fifth segment is dropped as noisy. `snr_db` is known for all others and differs; two videos share a speaker.

    Args:
        videos: in each shard.
        segments: of each video.
        audio: files of a second, used in turn.
    """
    files = list(audio) or [flac(0.2, 1), flac(0.21, 2), flac(0.25, 3)]
    config = RunConfig.of(
        catalog="none", output=url, run_id=RUN_ID, device="cpu", max_failed_share=1.0, duplicate_similarity=duplicates
    )
    store = Store(url)
    open_run(store, config)
    schema = read_schema(read_run_record(store))
    for language in languages:
        plan: list[dict[str, Any]] = []
        for index in range(shards):
            ids = [f"{language}.{index:04d}.{number}" for number in range(videos)]
            rows = [
                {"shard": index, "position": number, "partition": 0, "video_id": name, "language": language}
                | {"uri": f"none/{name}.tar", "size_bytes": 1, "duration_s": 1.0}
                for number, name in enumerate(ids)
            ]
            plan += rows
        metadata = PlanMetadata.of(config, generation=0)
        table = pa.Table.from_pylist(plan, PLAN_SCHEMA)
        assert store.create(plan_path(language, 0), serialize(table, metadata))
    for shard in load_plan(store).shards():
        _commit_samples(store, shard, config, schema, segments, files)
    backup(store)
    finalize(store)
    return store


def _commit_samples(
    store: Store, shard: Shard, config: RunConfig, schema: pa.Schema, segments: int, files: list[bytes]
) -> None:
    folder = Path(store.root) / "_made"
    folder.mkdir(exist_ok=True)
    rows, manifest = [], []
    with tarfile.open(folder / "audio", "w", format=tarfile.USTAR_FORMAT) as tar:

        def add(name: str, data: bytes) -> int:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            offset = tar.offset + 512
            tar.addfile(member, io.BytesIO(data))
            return offset

        for position, video in enumerate(shard.videos):
            for index in range(segments):
                number = len(rows)
                key, data = sample_key(video.video_id, index), files[number % len(files)]
                seconds = sf.info(io.BytesIO(data)).duration if number < len(files) else rows[number % len(files)]["s"]
                kept = number % 5 != 4
                row: dict[str, Any] = {
                    "key": key, "video_id": video.video_id, "language": shard.language, "shard": shard.index,
                    "segment": index, "start_s": float(index), "end_s": index + seconds, "duration_s": seconds,
                    "text": f"text {number}" if number % 3 else None, "speaker": f"speaker {(position + 1) // 2}",
                    "kept": kept, "drop_reason": None if kept else "noisy", "source_uri": video.uri, "s": seconds,
                    "snr_db": float((number * 7919 + shard.index) % 1000) / 10 if kept else 1.0,
                    "config_digest": config.digest, "version": "made-up",
                }  # fmt: skip
                if kept:
                    row["tar_offset"], row["audio_bytes"] = add(key + ".flac", data), len(data)
                    sidecar = {"key": key, "start_s": row["start_s"], "shard": shard.index, "text": "ä" * (number % 7)}
                    add(key + ".json", json.dumps(sidecar, ensure_ascii=False).encode())
                    entry = {"audio_filepath": key + ".flac", "duration": seconds, "text": row["text"] or ""}
                    manifest.append(json.dumps(entry | {"lang": shard.language, "shard_id": shard.index}) + "\n")
                rows.append(row)
    videos = [
        {"video_id": video.video_id, "language": shard.language, "shard": shard.index, "uri": video.uri}
        | {"attempts": 1, "status": "done", "duration_s": 1.0, "segments": segments}
        | {"segments_kept": sum(row["kept"] for row in rows if row["video_id"] == video.video_id)}
        for video in shard.videos
    ]
    pq.write_table(pa.Table.from_pylist(rows, schema), folder / "segments", compression="zstd")
    pq.write_table(pa.Table.from_pylist(videos, VIDEOS_SCHEMA), folder / "videos", compression="zstd")
    (folder / "manifest").write_text("".join(manifest))
    roles = object_names(shard.language, shard.index)
    attempt = f"attempt-{shard.name}"
    objects = upload(
        store, shard.name, attempt, {name: folder / role for role, name in roles.items() if role != "dropped"}
    )
    kept = sum(row["kept"] for row in rows)
    seconds = sum(row["duration_s"] for row in rows if row["kept"])
    result = ShardResult(
        shard.name, shard.language, 0, attempt, RUN_ID, "tests", len(shard.videos), 0, len(rows), kept,
        {"noisy": len(rows) - kept} if len(rows) > kept else {}, 1.0, seconds, 1, 1, {}, 1.0, "",
        datetime.now(UTC).isoformat(),
    )  # fmt: skip
    commit_shard(store, Commit(result, objects, config.digest))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def plan_selection(parent: str, dest: str, folder: Path, **options: Any) -> Store:
    """Write the record and the plan of a selection."""
    source, store = Store(parent), Store(dest)
    commits, annotations = read_commits(source), list_annotations(source)
    record = read_run_record(source)
    folder.mkdir(parents=True)
    with open_parent(source, commits, annotations, folder) as connection:
        parsed = SelectionOptions.parse(**options)
        condition = resolve_options(connection, parsed)
        selection = Selection.of(source, record, commits, annotations, replace(parsed, where=condition.text))
        assert choose_rows(connection, source, selection.options, condition)
        assert store.create("_run.json", new_record(record, selection, annotations, RUN_ID).to_json())
        write_plan(connection, store, read_config(store), selection, commits)
    backup(store)
    return store


def select_here(parent: str, dest: str, folder: Path, **options: Any) -> Store:
    """Make a selection in this process."""
    store = plan_selection(parent, dest, folder, **options)
    config = read_config(store, scratch=str(folder))
    for shard in load_plan(store).shards():
        copy_shard(shard, config, RUN_ID)
    finalize(store)
    return store


def read_tar(path: Path) -> Samples:
    """Return audio and sidecar of each sample, in the order of the tar."""
    with tarfile.open(path) as tar:
        members = [(member.name, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    pairs = zip(members[::2], members[1::2], strict=True)
    return {name.removesuffix(".flac"): (audio, sidecar) for (name, audio), (_, sidecar) in pairs}


def read_tars(url: str) -> Samples:
    """Return audio and sidecar of each sample of an output in a folder, by key."""
    return {key: sample for path in sorted(Path(url).glob("*/audio_*.tar")) for key, sample in read_tar(path).items()}


def frame(url: str) -> pd.DataFrame:
    """Read the segments of an output in a folder."""
    return pd.concat(pd.read_parquet(path) for path in sorted(Path(url).glob("*/segments_*.parquet")))


def select(parent: str, folder: Path, name: str = "selection", **options: Any) -> str:
    """Select into a folder of its name, and return the address."""
    store = select_here(parent, str(folder / name), folder / f"scratch-{name}", **options)
    return store.url
