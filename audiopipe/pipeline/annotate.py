"""Compute the columns of scorers for a committed shard, from the audio in its tar: the task of `audiopipe annotate`.

    read tar -> decode -> batch -> scorers -> table -> commit

Scorers are given what a run gives them: the emitted samples as 16 bits, in batches of about one length. So the values
are those of a run, up to the rounding that other batches cause, and up to what a lossy codec changed.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import numpy as np
import numpy.typing as npt
import soundfile as sf
import torch

from audiopipe.config import RunConfig
from audiopipe.dataset.annotation_shards import annotation_result, commit_annotation, publish_annotation
from audiopipe.dataset.annotations import AnnotationRecord
from audiopipe.dataset.commit import Commit, read_commit
from audiopipe.dataset.shard_samples import Sample, SegmentRow, ShardSamples
from audiopipe.errors import VerifyError
from audiopipe.kernels import INT16_FULL_SCALE
from audiopipe.pipeline.annotation_scores import AnnotationScores
from audiopipe.pipeline.batch import MEGABYTE, Batch, batch_clips
from audiopipe.pipeline.malloc import raise_malloc_thresholds
from audiopipe.pipeline.memory import get_worker_budget
from audiopipe.pipeline.prefetch import Prefetcher, submit_ahead
from audiopipe.pipeline.score import resolve_device
from audiopipe.pipeline.scorers import EmittedBatch, ScorerSet, load_scorers, require_versions
from audiopipe.pipeline.timing import StageTimer
from audiopipe.pipeline.worker_errors import raise_worker_failures
from audiopipe.scorers.scorer import SegmentInfo
from audiopipe.store.objects import Store
from audiopipe.types import Clip, Shard, ShardResult, Span

__all__ = ["AnnotationJob"]

SAMPLES_AHEAD = 64  # that are decoded ahead of their batch
ENCODED_AHEAD_BYTES = 16 * MEGABYTE
BATCHES_HELD = 3  # one that waits, one that is scored, and its padded tensor


@dataclass(frozen=True)
class AnnotationJob:
    """The annotations to make, each of one scorer, and the options of scorers. A driver's task for each shard.

    Attributes:
        records: of the annotations.
        entries: the scorer of each, as `scorers` lists it.
    """

    records: tuple[AnnotationRecord, ...]
    entries: tuple[str, ...]
    speaker_labels: bool = False
    speaker_embeddings: bool = False

    def __call__(self, shard: Shard, config: RunConfig, run_id: str, worker: str) -> ShardResult:
        """Annotate and commit one shard; what is committed already is only published again.

        Raises:
            VerifyError: an object of the shard is damaged or missing; nothing is committed.
            ScorerError: a scorer raises, or returns wrong values; nothing is committed.
            WorkerFailure: the machine cannot work, or has another version of a scorer; nothing is committed.
            TransientError, OSError: something outside failed, and the shard may be tried again.
        """
        store = Store(config.output)
        source = read_commit(store, shard.name)
        if source is None:
            raise VerifyError(f"shard {shard.name} of {store.url} is no longer committed: resume the run first")
        commits = {record.id: publish_annotation(store, record, source) for record in self.records}
        items = zip(self.records, self.entries, strict=True)
        missing = [(record, entry) for record, entry in items if commits[record.id] is None]
        for commit in commits.values():
            if commit is not None and not missing:
                return commit.result
        records, entries = zip(*missing, strict=True)
        return replace(self, records=records, entries=entries).annotate(store, source, config, run_id, worker)

    def annotate(self, store: Store, commit: Commit, config: RunConfig, run_id: str, worker: str) -> ShardResult:
        """Compute and commit all annotations of a shard."""
        raise_malloc_thresholds()
        torch.set_num_threads(1)  # as in a run: the worker's cores are divided among its shards
        started_at, timer = datetime.now(UTC).isoformat(), StageTimer()
        with raise_worker_failures():
            device = resolve_device(config)
            scorers = self._load(device)
            with timer.measure("read", items=0):
                samples = ShardSamples(store, commit)
            scores = AnnotationScores(samples.rows, scorers.scorers, self.records, timer)
            _score(samples, scorers, scores, config, timer)
            seconds = [row.duration_s for row in samples.rows if row.has_audio]
            result = replace(
                annotation_result(commit.result, len(samples.rows), len(seconds), started_at),
                run_id=run_id,
                worker=worker,
                bytes_in=samples.tar_bytes,
                audio_s=round(sum(seconds), 3),
                kept_s=round(sum(seconds), 3),
                stage_s=timer.seconds(),
                stage_cpu_s=timer.cpu_seconds(),
                stage_items=timer.items(),
                queue_depths=timer.depths(),
                device=str(device),
            )
            for record in self.records:
                result = commit_annotation(store, record, commit, result, scores.table(record))
            return result

    def _load(self, device: torch.device) -> ScorerSet:
        """Load the scorers.

        Raises:
            BrokenWorker: this worker has another version of one, or lacks it.
        """
        has_speakers = any(record.name == "speakers" for record in self.records)
        scorers = load_scorers(
            ",".join(self.entries),
            device,
            speaker_labels=self.speaker_labels and has_speakers,
            speaker_embeddings=self.speaker_embeddings and has_speakers,
        )
        require_versions(scorers.scorers, self.records)
        return scorers


def _score(
    samples: ShardSamples, scorers: ScorerSet, scores: AnnotationScores, config: RunConfig, timer: StageTimer
) -> None:
    """Give the segments that have audio to scorers, in batches of about one length, in the order of the tars."""
    needs_audio = any(scorer.needs_audio for scorer in scorers.scorers)
    decode = partial(_to_clip, samples, config.sample_rate, needs_audio, timer)
    with ExitStack() as stack:
        budget = get_worker_budget(config.memory_mb)
        stack.enter_context(budget.reserve((config.batch_queue_mb + BATCHES_HELD * config.batch_mb) * MEGABYTE))
        pool = stack.enter_context(ThreadPoolExecutor(config.encoders, "decode"))
        encoded = timer.iterate("read", samples.samples())
        decoding = submit_ahead(
            pool, decode, encoded, SAMPLES_AHEAD, ENCODED_AHEAD_BYTES, lambda sample: len(sample.audio)
        )
        clips = (future.result() for _, future in stack.enter_context(closing(decoding)))
        on_take = partial(timer.record_depth, "decoded")
        batches = Prefetcher(batch_clips(clips, config), 1, name="batch", on_take=on_take)
        for batch in stack.enter_context(closing(batches)):
            assert isinstance(batch, Batch)
            segments = [_describe(samples.rows[clip.index], clip) for clip in batch.clips]
            emitted = EmittedBatch([clip.pcm[0] for clip in batch.clips], segments, config.sample_rate)
            scores.add([clip.index for clip in batch.clips], scorers.score(emitted, timer.measure))


def _to_clip(samples: ShardSamples, rate: int, needs_audio: bool, timer: StageTimer, sample: Sample) -> Clip:
    """Decode a segment for a batch; the index of the clip is the number of its row."""
    row = samples.rows[sample.row]
    if needs_audio:
        with timer.measure("decode"):
            try:
                pcm = _decode(sample.audio, rate)
            except (sf.LibsndfileError, ValueError) as error:
                samples.refuse_sample(sample.row, error)
        # A lossy codec may append silence. A scorer is given at least one sample.
        pcm = np.resize(pcm, 1) if not len(pcm) else pcm[: max(1, round(row.duration_s * rate))]
    else:
        pcm = np.zeros(1, np.int16)
    return Clip(row.video_id, sample.row, Span(0.0, row.duration_s, raw_text=sample.raw_text), rate, pcm[None])


def _decode(audio: bytes, rate: int) -> npt.NDArray[np.int16]:
    """Decode mono audio to 16 bits, as the run emitted it.

    Raises:
        LibsndfileError, ValueError: it is not what a run writes.
    """
    with sf.SoundFile(io.BytesIO(audio)) as file:
        if (file.samplerate, file.channels) != (rate, 1):
            raise ValueError(f"it has {file.samplerate} Hz and {file.channels} channels")
        if file.subtype == "PCM_16":
            exact: npt.NDArray[np.int16] = file.read(dtype="int16")
            return exact
        scaled = file.read(dtype="float32") * np.float32(INT16_FULL_SCALE)
        rounded: npt.NDArray[np.int16] = scaled.round().clip(-INT16_FULL_SCALE, INT16_FULL_SCALE - 1).astype(np.int16)
        return rounded


def _describe(row: SegmentRow, clip: Clip) -> SegmentInfo:
    return SegmentInfo(row.video_id, row.language, row.duration_s, row.text, row.speaker, clip.span.raw_text)
