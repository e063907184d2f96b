"""Turn a list of videos into a committed shard: the stages in order. Read this file first.

    fetch -> decode -> segment by known times, or by voice -> batch -> score and resample -> learned scorers -> encode
    -> tar -> commit

Each stage runs ahead of the next, within bounds and in order: downloads and decoders in their own threads (the decoders
are processes; a thread only receives what they write), scoring in one thread, learned scorers in another, encoders in a
pool. The task's own thread passes segments on and writes. The order is the plan's and never that of arrival, so that
the same shard gives the same bytes. `video.py` reads one video and cuts its clips; `assemble.py` encodes scored clips
and writes the shard's files.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType

import torch

from audiopipe.config import RunConfig
from audiopipe.dataset.commit import Commit, commit_shard, publish, read_commit, upload
from audiopipe.dataset.run_record import find_run_record
from audiopipe.dataset.schema import object_names
from audiopipe.dataset.writer import ShardFiles
from audiopipe.kernels.precompile import load_compiled
from audiopipe.media.decoder_process import decoders_have_network
from audiopipe.media.places import SourcePlaces
from audiopipe.pipeline.assemble import ShardAssembler
from audiopipe.pipeline.batch import MEGABYTE, Batch, batch_clips
from audiopipe.pipeline.device import DeviceBatch, transfer
from audiopipe.pipeline.malloc import raise_malloc_thresholds
from audiopipe.pipeline.memory import get_worker_budget
from audiopipe.pipeline.prefetch import Prefetcher, interleave, submit_ahead
from audiopipe.pipeline.score import ScoredClip, resolve_device, score
from audiopipe.pipeline.scorer_stage import ScorerStage, emitted_bytes
from audiopipe.pipeline.scorers import require_installed, require_versions
from audiopipe.pipeline.scratch import scratch_folder
from audiopipe.pipeline.timing import StageTimer
from audiopipe.pipeline.video import Event, event_bytes, fetch_video, fill_in_speakers, read_video
from audiopipe.pipeline.worker_errors import raise_worker_failures
from audiopipe.scorers.registry import stored_columns
from audiopipe.scorers.scorer import Column
from audiopipe.segment.voice import cut_speech
from audiopipe.store.objects import Store
from audiopipe.types import Shard, ShardResult

__all__ = ["process_shard"]

# Videos that take turns, and clips in a turn. With one video after the other a long one would leave all other decoders
# without work. Both numbers determine which clips share a batch, so they are the same everywhere.
VIDEOS_PER_CYCLE, CLIPS_PER_TURN = 4, 16
DECODED_AHEAD_BYTES = 24 << 20  # for each video: a turn and a half of 5 s at 48 kHz
BATCHES_AHEAD = 2
BATCHES_HELD = 2  # a batch's clips, and the padded tensor of them that the device is given


def process_shard(
    shard: Shard,
    config: RunConfig,
    run_id: str,
    worker: str = "local",
    excluded: Mapping[str, str] = MappingProxyType({}),
    last_attempt: bool = False,
    confirm: Callable[[], None] | None = None,
) -> ShardResult:
    """Process and commit one shard; if it is committed already, only publish the commit again.

    The last publication may have been interrupted.

    Args:
        excluded: reasons by video id; these videos are not fetched and become dead letters.
        last_attempt: no attempt follows, so a transient error that belongs to one video makes it a dead letter.
        confirm: called before videos that could be fetched are committed as dead letters; it raises if this worker
            cannot process a known-good video either.

    Raises:
        SourceUnavailable: the place of the sources cannot be used; nothing is committed.
        WorkerFailure: the machine cannot work: its GPU, its memory, its disk or a library, or it has other scorers than
            the run; nothing is committed.
        ScorerError: a scorer raises, or returns wrong values; nothing is committed.
        TransientError, OSError: something outside failed; nothing is committed, and the shard may be tried again.
    """
    store = Store(config.output)
    if commit := read_commit(store, shard.name):
        publish(store, commit)
        return commit.result
    raise_malloc_thresholds()
    _use_batch_scheduler()
    started_at = datetime.now(UTC)
    timer = StageTimer()
    with ExitStack() as stack:
        stack.enter_context(raise_worker_failures())
        folder = stack.enter_context(scratch_folder(shard.name, config.scratch))
        columns = _read_columns(store, config)
        files = stack.enter_context(closing(ShardFiles(shard, config, folder, columns)))
        device = resolve_device(config)
        bytes_in = _run_stages(shard, config, files, timer, device, excluded, last_attempt)
        if confirm is not None and any(letter.stage != "fetch" for letter in files.dead_letters):
            confirm()
        with timer.measure("write", items=0):
            paths = files.finish()
        names = object_names(shard.language, shard.index)
        attempt = uuid.uuid4().hex
        with timer.measure("upload"):
            objects = upload(store, shard.name, attempt, {names[role]: path for role, path in paths.items()})
        result = ShardResult(
            shard=shard.name,
            language=shard.language,
            partition=shard.partition,
            attempt=attempt,
            run_id=run_id,
            worker=worker,
            videos=len(shard.videos),
            videos_failed=len(files.dead_letters),
            segments=files.segments,
            segments_kept=files.kept,
            drops=dict(sorted(files.drops.items())),
            audio_s=round(files.audio_s, 3),
            kept_s=round(files.kept_s, 3),
            bytes_in=bytes_in,
            bytes_out=sum(item.size for item in objects),
            stage_s=timer.seconds(),
            stage_cpu_s=timer.cpu_seconds(),
            stage_items=timer.items(),
            queue_depths=timer.depths(),
            wall_s=round(timer.wall_s, 3),
            started_at=started_at.isoformat(),
            finished_at=datetime.now(UTC).isoformat(),
            dead_letters=tuple(files.dead_letters),
            device=str(device),
            decoder_network=decoders_have_network(),
        )
        return commit_shard(store, Commit(result, objects, files.digest))


def _use_batch_scheduler() -> None:
    """Set SCHED_BATCH for this thread and the threads and processes it starts.

    They then do not preempt each other whenever a block is ready, and what each works on stays in its core's caches.
    """
    if os.sched_getscheduler(0) == os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _read_columns(store: Store, config: RunConfig) -> tuple[Column, ...]:
    """Return the columns of the run's scorers, which must be those that its output has recorded, and of the catalog.

    Raises:
        BrokenWorker: this worker lacks one, or has another version of it.
    """
    with require_installed():
        scorers = config.create_scorers()
    columns = stored_columns(scorers)
    record = find_run_record(store)
    if record is None:  # the output of a trial has no record
        return columns
    require_versions(scorers, record.scorers)
    return (*columns, *record.catalog_columns)


def _run_stages(
    shard: Shard,
    config: RunConfig,
    files: ShardFiles,
    timer: StageTimer,
    device: torch.device,
    excluded: Mapping[str, str],
    last_attempt: bool,
) -> int:
    """Run all stages from the sources to the shard's files and return the number of bytes fetched."""
    # A worker's cores are divided among shards, decoders and encoders, and sums over a varying number of threads would
    # differ in their last bit. With a GPU this concerns the fingerprints, which are computed on the CPU.
    torch.set_num_threads(1)
    # Else all threads of the stage that first needs the functions would wait for them, and the stage would look slow.
    load_compiled(device)
    with ExitStack() as stack:
        fetchers = stack.enter_context(ThreadPoolExecutor(config.prefetch_videos, "fetch"))
        encoders = stack.enter_context(ThreadPoolExecutor(config.encoders, "encode"))
        fetching = submit_ahead(
            fetchers,
            partial(fetch_video, files.folder, timer, excluded, config, SourcePlaces(shard.videos, config)),
            shard.videos,
            config.prefetch_videos,
            config.prefetch_mb * MEGABYTE,
            lambda video: video.size_bytes or 0,
        )
        fetched = stack.enter_context(closing(fetching))
        streams = (read_video(video, source, config, timer, last_attempt) for video, source in fetched)
        budget = get_worker_budget(config.memory_mb)
        stack.enter_context(budget.reserve((config.batch_queue_mb + BATCHES_HELD * config.batch_mb) * MEGABYTE))
        on_take = partial(timer.record_depth, "decoded")
        interleaved = interleave(
            streams,
            VIDEOS_PER_CYCLE,
            CLIPS_PER_TURN,
            config.decoders,
            DECODED_AHEAD_BYTES,
            event_bytes,
            on_take,
            budget,
        )
        decoded = stack.enter_context(closing(interleaved))
        cut_clips: Iterator[Event] = cut_speech(decoded, config, device, partial(timer.measure, "voice"))
        clips = fill_in_speakers(cut_clips, shard.videos)
        batched: Iterable[DeviceBatch | Event] = (
            _transfer(event, timer, device) for event in batch_clips(clips, config)
        )
        if device.type != "cpu":
            batched = stack.enter_context(closing(Prefetcher(batched, 1, name="transfer")))
        scored: Iterable[list[ScoredClip] | Event] = (_score(event, config, timer, device) for event in batched)
        scorers = ScorerStage(shard, config, device, timer)
        if not scorers.is_empty:
            limit, on_take = BATCHES_AHEAD * config.batch_mb * MEGABYTE, partial(timer.record_depth, "resampled")
            emitted = Prefetcher(scored, limit, emitted_bytes, "resample", on_take, budget)
            stack.enter_context(closing(emitted))
            scored = (scorers.score(event) if isinstance(event, list) else event for event in emitted)
        on_take = partial(timer.record_depth, "scored")
        scoring = Prefetcher(scored, BATCHES_AHEAD, name="score", on_take=on_take)
        assembler = ShardAssembler(shard, config, files, timer, encoders, scorers)
        for event in stack.enter_context(closing(scoring)):
            assembler.add(event)
        return assembler.finish()


def _transfer(event: Batch | Event, timer: StageTimer, device: torch.device) -> DeviceBatch | Event:
    if not isinstance(event, Batch):
        return event
    with timer.measure("score", items=0):
        return transfer(event, device)


def _score(
    event: DeviceBatch | Event, config: RunConfig, timer: StageTimer, device: torch.device
) -> list[ScoredClip] | Event:
    if not isinstance(event, DeviceBatch):
        return event
    with timer.measure("score", len(event.clips)):
        return score(event, config, device)
