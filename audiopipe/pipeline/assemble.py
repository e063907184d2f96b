"""Encode scored clips and bring the segments of each video together again, in the plan's order."""

from __future__ import annotations

import math
from collections import deque
from concurrent.futures import Executor, Future

from audiopipe.config import RunConfig
from audiopipe.dataset.schema import METRIC_NAMES
from audiopipe.dataset.writer import SegmentRecord, ShardFiles, VideoRecord
from audiopipe.errors import SilentAudio, UndecodableMedia, VideoError
from audiopipe.media.encode import encode
from audiopipe.pipeline.score import ScoredClip
from audiopipe.pipeline.scorer_stage import KeepFilter, ScorerStage
from audiopipe.pipeline.timing import StageTimer
from audiopipe.pipeline.video import Event, to_dead_letter
from audiopipe.types import Clip, Shard

__all__ = ["ShardAssembler"]

BATCHES_ENCODED_AHEAD = 2
CLIPS_PER_JOB = 8  # so that an encoder thread does not wake up for each clip
SAMPLE_PEAK = METRIC_NAMES.index("sample_peak_dbfs")

# The encoders' jobs for one batch: clips, and for each of them its encoded audio, or None where it was dropped.
EncodingBatch = list[tuple[list[ScoredClip], Future[list[bytes | None]]]]


class ShardAssembler:
    """Encodes the clips of a shard, which are scored out of order, and writes its videos in the plan's order."""

    def __init__(
        self,
        shard: Shard,
        config: RunConfig,
        files: ShardFiles,
        timer: StageTimer,
        encoders: Executor,
        scorers: ScorerStage,
    ) -> None:
        self.bytes_in = 0
        self._config, self._files, self._timer, self._encoders = config, files, timer, encoders
        self._scorers, self._filter = scorers, KeepFilter.of(config, shard.language)
        self._unwritten = deque(video.video_id for video in shard.videos)
        self._segments: dict[str, list[SegmentRecord]] = {video_id: [] for video_id in self._unwritten}
        self._records: dict[str, VideoRecord] = {}
        self._encoding: deque[EncodingBatch] = deque()

    def add(self, event: list[ScoredClip] | Event) -> None:
        """Take a scored batch, a clip that was dropped before scoring or a video's record; write complete videos."""
        if isinstance(event, VideoRecord):
            self._records[event.video.video_id] = event
        elif isinstance(event, Clip):
            dropped = SegmentRecord(event.index, event.span, event.span.duration_s, event.drop_reason, None)
            self._segments[event.video_id].append(dropped)
        else:
            self._encoding.append(self._start_encoding(event))
            while len(self._encoding) > BATCHES_ENCODED_AHEAD:
                self._collect(self._encoding.popleft())
        self._write_complete()

    def finish(self) -> int:
        """Wait for the encoders, write the remaining videos and return the number of bytes fetched."""
        while self._encoding:
            self._collect(self._encoding.popleft())
        self._write_complete()
        assert not self._unwritten, f"videos without a record or without all their segments: {list(self._unwritten)}"
        return self.bytes_in

    def _start_encoding(self, batch: list[ScoredClip]) -> EncodingBatch:
        jobs = [batch[start : start + CLIPS_PER_JOB] for start in range(0, len(batch), CLIPS_PER_JOB)]
        return [(clips, self._encoders.submit(self._encode, clips)) for clips in jobs]

    def _encode(self, clips: list[ScoredClip]) -> list[bytes | None]:
        """Encode the samples of each clip that is kept."""
        with self._timer.measure("encode", sum(clip.samples is not None for clip in clips)):
            rate, audio_format = self._config.sample_rate, self._config.audio_format
            return [None if clip.samples is None else encode(clip.samples, rate, audio_format) for clip in clips]

    def _collect(self, batch: EncodingBatch) -> None:
        for clips, encoded in batch:
            for clip, data in zip(clips, encoded.result(), strict=True):
                record = SegmentRecord(
                    clip.index, clip.span, clip.duration_s, clip.drop_reason, clip.metrics, scores=clip.scores
                )
                if data is not None and clip.samples is not None:
                    record.duration_s = len(clip.samples) / self._config.sample_rate
                    record.gain_db = clip.gain_db
                    record.data = self._files.spool.append(data)
                self._segments[clip.video_id].append(record)

    def _write_complete(self) -> None:
        """Write the first videos in the plan's order, as long as each has its record and all its segments."""
        while self._unwritten and (record := self._records.get(self._unwritten[0])):
            if len(self._segments[self._unwritten[0]]) < record.clips:
                return
            self._write(self._unwritten.popleft(), record)

    def _write(self, video_id: str, record: VideoRecord) -> None:
        segments = [segment for segment in self._segments.pop(video_id) if segment.index >= record.first_index]
        record.segments = sorted(segments, key=lambda segment: segment.index)
        for segment in record.segments:
            segment.index -= record.first_index
        del self._records[video_id]
        self.bytes_in += record.bytes_in
        try:
            _refuse_unusable(record, self._config)
        except VideoError as error:
            record.failure = to_dead_letter(record.video, error)
        if record.failure is None:
            self._scorers.finish_video(record.segments)
            if self._filter is not None:
                self._filter.apply(video_id, record.segments)
        with self._timer.measure("write"):
            self._files.add(record)


def _refuse_unusable(record: VideoRecord, config: RunConfig) -> None:
    """Raise if the segments of a video are all silent, or have no sample that is a number."""
    measured = [segment.metrics[SAMPLE_PEAK] for segment in record.segments if segment.metrics is not None]
    if record.failure is not None or not measured:
        return
    peaks = [peak for peak in measured if not math.isnan(peak)]
    if not peaks:
        raise UndecodableMedia(f"{record.video.uri}: none of its samples is a number in the range of audio")
    if max(peaks) < config.silence_dbfs:
        raise SilentAudio(
            f"{record.video.uri}: none of its {len(peaks)} segments peaks above silence_dbfs ({config.silence_dbfs:g})"
        )
