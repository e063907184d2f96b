"""From a list of videos to a committed shard: the stages in order.

    fetch -> decode -> segment, or listen and segment -> batch -> score and resample -> encode -> tar -> commit

Each stage runs ahead of the next, within bounds and in order: downloads and decoders in threads of their own (the
decoders are processes, a thread only takes what they write), scoring in one, encoders in a pool. The task's own thread
does nothing but hand segments over and write. Because the order is the plan's and never that of arrival, the same
shard gives the same bytes.
"""

from __future__ import annotations

import os
import uuid
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch

from audiopipe.config import RunConfig
from audiopipe.dataset.commit import Commit, decide, publish, read_commit, upload
from audiopipe.dataset.schema import METRIC_NAMES, object_names
from audiopipe.dataset.similarity import packed
from audiopipe.dataset.writer import SegmentRecord, ShardFiles, VideoRecord
from audiopipe.errors import BadSegments, PoisonVideo, SilentAudio, VideoError
from audiopipe.kernels.fingerprint import Fingerprint
from audiopipe.media import decode as media
from audiopipe.media.encode import encode
from audiopipe.media.fetch import Source, fetch
from audiopipe.pipeline.batch import MEGABYTE, Batch, batches
from audiopipe.pipeline.device import DeviceBatch, transfer
from audiopipe.pipeline.malloc import raise_malloc_thresholds
from audiopipe.pipeline.memory import worker_budget
from audiopipe.pipeline.prefetch import Prefetch, interleave, submit_ahead
from audiopipe.pipeline.score import ScoredClip, score, score_device
from audiopipe.pipeline.scratch import scratch_folder
from audiopipe.pipeline.timing import StageTimer
from audiopipe.segment import cut as segment
from audiopipe.segment import voice
from audiopipe.store.objects import Store
from audiopipe.types import Clip, DeadLetter, Pcm, Seconds, SegmentSource, Shard, ShardResult, Span, Video

__all__ = ["process_shard"]

# Videos that take turns, and clips in a turn. Part of what a batch is made of, so the same everywhere: with one video
# after the other a long one would leave all decoders but its own without work.
LANES, TURN_CLIPS = 4, 16
DECODED_AHEAD_BYTES = 24 << 20  # for each lane: a turn and a half of 5 s at 48 kHz
LONGEST_BLOCK_S = 10.0
BATCHES_AHEAD = 2
ENCODED_TOGETHER = 8  # clips, so that no thread wakes up for each of them
BATCHES_HELD = 2  # the clips of one and, side by side, what the device is given
PEAK = METRIC_NAMES.index("sample_peak_dbfs")

# What flows on: clips, and at the end of a video its record, which holds the failure if there is one. From the decoders
# also the blocks and the end of a video whose clips are yet to be found in its audio.
Event = Clip | VideoRecord
Decoded = Event | voice.AudioBlock | voice.EndOfStream[Event]
Encoding = list[tuple[list[ScoredClip], Future[list[bytes | None]]]]


def process_shard(
    shard: Shard,
    config: RunConfig,
    run_id: str,
    worker: str = "local",
    excluded: Mapping[str, str] = MappingProxyType({}),
) -> ShardResult:
    """Make and commit one shard; a shard that has a commit is only published again, if that was not finished.

    Args:
        condemned: videos that are not to be touched, and why: they become dead letters.

    Raises:
        TransientError, OSError: something outside failed; nothing is committed, and the shard may be tried again.
    """
    store = Store(config.output)
    if done := read_commit(store, shard.name):
        publish(store, done)
        return done.result
    raise_malloc_thresholds()
    _use_batch_scheduler()
    started_at = datetime.now(UTC).isoformat()
    stages = StageTimer()
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder(shard.name, config.scratch))
        files = stack.enter_context(closing(ShardFiles(shard, config, folder)))
        device = score_device(config)
        bytes_in = _process(shard, config, files, stages, device, excluded)
        with stages.measure("write", items=0):
            paths = files.finish()
        names = object_names(shard.language, shard.index)
        attempt = uuid.uuid4().hex
        with stages.measure("upload"):
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
            stage_s=stages.seconds(),
            stage_cpu_s=stages.cpu_seconds(),
            stage_items=stages.items(),
            queue_depths=stages.depths(),
            wall_s=round(stages.wall_s, 3),
            started_at=started_at,
            finished_at=datetime.now(UTC).isoformat(),
            dead_letters=tuple(files.dead_letters),
            device=str(device),
        )
        return decide(store, Commit(result, objects, config.digest))


def _use_batch_scheduler() -> None:
    """Threads of this shard and its decoders do not preempt one another whenever a block is ready: what each works on
    stays in the caches of its core."""
    if os.sched_getscheduler(0) == os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _process(
    shard: Shard,
    config: RunConfig,
    files: ShardFiles,
    stages: StageTimer,
    device: torch.device,
    excluded: Mapping[str, str],
) -> int:
    """Everything up to the shard's files; the number of bytes fetched."""
    # A worker's cores are shared out among shards, decoders and encoders, and sums over threads of a varying number
    # would differ in their last bit. With a GPU it is the fingerprints that are made here.
    torch.set_num_threads(1)
    with ExitStack() as stack:
        fetchers = stack.enter_context(ThreadPoolExecutor(config.prefetch_videos, "fetch"))
        encoders = stack.enter_context(ThreadPoolExecutor(config.encoders, "encode"))
        fetching = submit_ahead(
            fetchers,
            partial(_fetch, files.folder, stages, excluded),
            shard.videos,
            config.prefetch_videos,
            config.prefetch_mb * MEGABYTE,
            lambda video: video.size_bytes or 0,
        )
        fetched = stack.enter_context(closing(fetching))
        streams = (_events(video, source, config, stages) for video, source in fetched)
        waits = partial(stages.record_depth, "decoded")
        budget = worker_budget(config.memory_mb)
        stack.enter_context(budget.reserve((config.batch_queue_mb + BATCHES_HELD * config.batch_mb) * MEGABYTE))
        lanes = interleave(streams, LANES, TURN_CLIPS, config.decoders, DECODED_AHEAD_BYTES, _weight, waits, budget)
        decoded = stack.enter_context(closing(lanes))
        clips: Iterator[Event] = voice.listen(decoded, config, device, partial(stages.measure, "voice"))
        fed: Iterable[DeviceBatch | Event] = (_feed(event, stages, device) for event in batches(clips, config))
        if device.type != "cpu":
            fed = stack.enter_context(closing(Prefetch(fed, 1, name="feed")))
        scored = (_score(event, config, stages, device) for event in fed)
        desk = ShardAssembler(shard, config, files, stages, encoders)
        scoring = Prefetch(scored, BATCHES_AHEAD, name="score", on_take=partial(stages.record_depth, "scored"))
        for event in stack.enter_context(closing(scoring)):
            desk.take(event)
        return desk.finish()


def _fetch(scratch: Path, stages: StageTimer, excluded: Mapping[str, str], video: Video) -> Source:
    if video.video_id in excluded:
        raise PoisonVideo(excluded[video.video_id])
    with stages.measure("fetch"):
        return fetch(video, scratch)


def _events(
    video: Video, fetched: Future[Source], config: RunConfig, stages: StageTimer
) -> Generator[Decoded, None, None]:
    """The clips of one video while it decodes, then its record. Without times beside the audio, blocks and an end."""
    record, kept = VideoRecord(video), ExitStack()
    try:
        with ExitStack() as stack:
            source = stack.enter_context(closing(fetched.result()))
            record.etag, record.bytes_in = source.etag, source.bytes_in
            with stages.measure("decode", items=0):
                record.media = media.probe(source, config, partial(stages.add_cpu, "decode"))
            times, spans = segment.spans(config.segments, source.document, source.captions, config.window_s)
            record.times = times.value
            if spans is not None:
                yield from _clips(record, source, spans, config, stages)
            else:
                for block in _blocks(record, source, config, stages):
                    yield voice.AudioBlock(video.video_id, record.media.sample_rate_hz, block)
                kept = stack.pop_all()
    except VideoError as error:
        record.failure = _dead_letter(video, error)
    if record.times == SegmentSource.VOICE:
        yield voice.EndOfStream(video.video_id, partial(_heard, record, source, kept, config, stages))
    else:
        yield record


def _clips(
    record: VideoRecord, source: Source, spans: Iterable[Span], config: RunConfig, stages: StageTimer
) -> Iterator[Clip]:
    assert record.media is not None
    blocks = _blocks(record, source, config, stages)
    for clip in segment.cut(record.video.video_id, blocks, spans, record.media.sample_rate_hz, config):
        record.clips += 1
        yield clip


def _heard(
    record: VideoRecord, source: Source, opened: ExitStack, config: RunConfig, stages: StageTimer, clips: int
) -> Iterator[Event]:
    """The record of a video that was listened to. Where there was no voice at all, fixed windows before it."""
    record.clips = clips
    with opened:
        try:
            if clips == 0 and record.failure is None:
                if config.segments == "voice":
                    raise BadSegments(f"{record.video.uri}: no voice in it; segments='auto' would take fixed windows")
                record.times = SegmentSource.FIXED.value
                yield from _clips(record, source, segment.windows(config.window_s), config, stages)
        except VideoError as error:
            record.failure = _dead_letter(record.video, error)
    yield record


def _blocks(record: VideoRecord, source: Source, config: RunConfig, stages: StageTimer) -> Iterator[Pcm]:
    """The decoded blocks of a video that turns out to be whole."""
    assert record.media is not None
    decoded = media.decode(source, record.media, config, _block_s(record, config), partial(stages.add_cpu, "decode"))
    blocks = _counted(record, stages.iterate("decode", decoded))
    if config.duplicate_similarity is not None:
        channels = media.decoded_channels(record.media, config)
        blocks = _recognised(record, blocks, Fingerprint(record.media.sample_rate_hz, channels), stages)
    yield from blocks
    media.refuse_truncated(source, record.media, record.decoded_s, config)


def _block_s(record: VideoRecord, config: RunConfig) -> Seconds:
    """Whole windows, where those are cut out: a clip that is a block is not copied."""
    if record.times != SegmentSource.FIXED or config.window_s > LONGEST_BLOCK_S:
        return media.BLOCK_S
    return config.window_s * max(1, media.BLOCK_S // config.window_s)


def _counted(record: VideoRecord, blocks: Iterator[Pcm]) -> Iterator[Pcm]:
    assert record.media is not None
    frames = 0
    for block in blocks:
        frames += block.shape[-1]
        record.decoded_s = frames / record.media.sample_rate_hz
        yield block


def _recognised(
    record: VideoRecord, blocks: Iterator[Pcm], fingerprint: Fingerprint, stages: StageTimer
) -> Iterator[Pcm]:
    for block in blocks:
        with stages.measure("fingerprint"):
            fingerprint.add(torch.from_numpy(block))
        yield block
    with stages.measure("fingerprint"):
        record.fingerprint = packed(fingerprint.finish())


def _dead_letter(video: Video, error: VideoError) -> DeadLetter:
    kind, message = type(error).__name__, str(error)
    return DeadLetter(video.video_id, video.language, error.stage, kind, message, error.retriable, video.attempts)


def _weight(event: Decoded) -> int:
    return event.pcm.nbytes if isinstance(event, Clip | voice.AudioBlock) else 0


def _feed(event: Batch | Event, stages: StageTimer, device: torch.device) -> DeviceBatch | Event:
    if not isinstance(event, Batch):
        return event
    with stages.measure("score", items=0):
        return transfer(event, device)


def _score(
    event: DeviceBatch | Event, config: RunConfig, stages: StageTimer, device: torch.device
) -> list[ScoredClip] | Event:
    if not isinstance(event, DeviceBatch):
        return event
    with stages.measure("score", len(event.clips)):
        return score(event, config, device)


class ShardAssembler:
    """Where a video's segments come together again: scored out of order, written in the plan's."""

    def __init__(
        self, shard: Shard, config: RunConfig, files: ShardFiles, stages: StageTimer, encoders: ThreadPoolExecutor
    ) -> None:
        self.config, self.files, self.stages, self.encoders = config, files, stages, encoders
        self.waiting = deque(video.video_id for video in shard.videos)
        self.settled: dict[str, list[SegmentRecord]] = {video_id: [] for video_id in self.waiting}
        self.ended: dict[str, VideoRecord] = {}
        self.encoding: deque[Encoding] = deque()
        self.bytes_in = 0

    def take(self, event: list[ScoredClip] | Event) -> None:
        """Hand scored clips to the encoders, and write the videos that are complete."""
        if isinstance(event, VideoRecord):
            self.ended[event.video.video_id] = event
        elif isinstance(event, Clip):
            dropped = SegmentRecord(event.index, event.span, event.span.duration_s, event.drop_reason, None)
            self.settled[event.video_id].append(dropped)
        else:
            some = [event[start : start + ENCODED_TOGETHER] for start in range(0, len(event), ENCODED_TOGETHER)]
            self.encoding.append([(clips, self.encoders.submit(self._encode, clips)) for clips in some])
            while len(self.encoding) > BATCHES_AHEAD:
                self._settle(self.encoding.popleft())
        self._write_complete()

    def finish(self) -> int:
        """Settle and write what is left; the number of bytes fetched."""
        while self.encoding:
            self._settle(self.encoding.popleft())
        self._write_complete()
        assert not self.waiting, f"videos without an end: {list(self.waiting)}"
        return self.bytes_in

    def _encode(self, clips: list[ScoredClip]) -> list[bytes | None]:
        """The encoded samples of each clip that is kept."""
        emitted = [scored.samples for scored in clips]
        with self.stages.measure("encode", sum(samples is not None for samples in emitted)):
            rate, audio_format = self.config.sample_rate, self.config.audio_format
            return [None if samples is None else encode(samples, rate, audio_format) for samples in emitted]

    def _settle(self, batch: Encoding) -> None:
        for clips, encoded in batch:
            for scored, data in zip(clips, encoded.result(), strict=True):
                record = SegmentRecord(scored.index, scored.span, scored.duration_s, scored.drop_reason, scored.metrics)
                if data is not None and scored.samples is not None:
                    record.duration_s = len(scored.samples) / self.config.sample_rate
                    record.gain_db = scored.gain_db
                    record.data = self.files.spool.append(data)
                self.settled[scored.video_id].append(record)

    def _write_complete(self) -> None:
        """Write the videos at the head of the plan's order that have all their segments."""
        while self.waiting and (record := self.ended.get(self.waiting[0])):
            if len(self.settled[self.waiting[0]]) < record.clips:
                return
            self._write(self.waiting.popleft(), record)

    def _write(self, video_id: str, record: VideoRecord) -> None:
        record.segments = sorted(self.settled.pop(video_id), key=lambda segment: segment.index)
        del self.ended[video_id]
        self.bytes_in += record.bytes_in
        try:
            _refuse_silence(record, self.config)
        except VideoError as error:
            record.failure = _dead_letter(record.video, error)
        with self.stages.measure("write"):
            self.files.add(record)


def _refuse_silence(record: VideoRecord, config: RunConfig) -> None:
    peaks = [segment.metrics[PEAK] for segment in record.segments if segment.metrics is not None]
    if record.failure is None and peaks and max(peaks) < config.silence_dbfs:
        raise SilentAudio(
            f"{record.video.uri}: none of its {len(peaks)} segments peaks above silence_dbfs ({config.silence_dbfs:g})"
        )
