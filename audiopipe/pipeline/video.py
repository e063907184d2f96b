"""Read one video: fetch it, find the times of its segments, decode it and cut the clips.

The result is a stream of events. A video whose times are known gives its clips while it decodes, and then its record.
A video whose times are to be found in its audio gives blocks and an end; the voice stage turns these into clips.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from audiopipe.config import RunConfig
from audiopipe.dataset.fingerprints import pack_events
from audiopipe.dataset.writer import VideoRecord
from audiopipe.errors import BadSegments, PoisonVideo, TransientVideoError, VideoError
from audiopipe.kernels.fingerprint import Fingerprint
from audiopipe.media.channels import choose_channel, is_canceling
from audiopipe.media.decode import BLOCK_S, decode, decoded_channels, probe
from audiopipe.media.fetch import Source, fetch
from audiopipe.media.limits import refuse_truncated
from audiopipe.media.messages import ChannelCounts, DecodeReport
from audiopipe.media.places import SOURCE_ERRORS, SourcePlaces
from audiopipe.media.sidecars import SidecarRules
from audiopipe.pipeline.timing import StageTimer
from audiopipe.segment.catalog_spans import row_speaker
from audiopipe.segment.choose import choose_spans
from audiopipe.segment.cut import cut, cut_file, fixed_windows, refuse_excess
from audiopipe.segment.timestamp_map import MediaClock
from audiopipe.segment.voice import AudioBlock, EndOfStream
from audiopipe.types import CAPTION_FORMATS, Clip, DeadLetter, Media, Pcm, Seconds, SegmentSource, Span, Video

__all__ = ["Event", "VideoEvent", "event_bytes", "fetch_video", "fill_in_speakers", "read_video", "to_dead_letter"]

LONGEST_BLOCK_S = 10.0
SECOND_PASS = 1 << 24  # index of the first clip of a second pass over a file, above all of the first
NOT_CAPTIONS = frozenset(SegmentSource) - frozenset(CAPTION_FORMATS.values())

# From the voice stage on: clips, and at the end of a video its record, which holds the failure if there is one.
Event = Clip | VideoRecord
# Before the voice stage there are also the blocks and the end of a video whose times are to be found in its audio.
VideoEvent = Event | AudioBlock | EndOfStream[Event]
# What a dead letter can be made of.
VideoFailure = VideoError | TransientVideoError


def fetch_video(
    folder: Path,
    timer: StageTimer,
    excluded: Mapping[str, str],
    config: RunConfig,
    places: SourcePlaces,
    video: Video,
) -> Source:
    """Fetch a video into a scratch folder.

    Args:
        excluded: reasons by video id.

    Raises:
        PoisonVideo: the video is excluded.
        VideoError: as `fetch`, if the video's place is there and can be read.
        UnreadableSource, SourceUnavailable: as `SourcePlaces.explain`.
    """
    if video.video_id in excluded:
        raise PoisonVideo(excluded[video.video_id])
    with timer.measure("fetch"):
        try:
            return fetch(video, folder, SidecarRules(config.segments, config.caption_tags), config.max_source_mb)
        except SOURCE_ERRORS as error:
            explained = places.explain(video, error)
            if explained is error:
                raise
            raise explained from error


def read_video(
    video: Video, fetched: Future[Source], config: RunConfig, timer: StageTimer, last_attempt: bool = False
) -> Generator[VideoEvent, None, None]:
    """Yield the clips of one video while it decodes, then its record; without known times, blocks and an end.

    A `VideoError` becomes the record's failure, and in the last attempt also a `TransientVideoError`; other errors are
    raised.
    """
    failures = (VideoError, TransientVideoError) if last_attempt else (VideoError,)
    record, open_source = VideoRecord(video), ExitStack()
    decoder: _VideoDecoder | None = None
    try:
        with ExitStack() as stack:
            source = stack.enter_context(closing(fetched.result()))
            record.etag, record.bytes_in = source.etag, source.bytes_in
            record.info, record.notes = source.info, list(source.notes)
            with timer.measure("decode", items=0):
                record.media = probe(source, config, partial(timer.add_cpu, "decode"))
            record.notes += [record.media.track_note] if record.media.track_note else []
            decoder = _VideoDecoder(record, record.media, source, config, timer)
            clock = MediaClock(record.media.start_s, record.media.declared_s)
            times = choose_spans(config, source.document, source.captions, clock, video.segments)
            record.notes += [times.note] if times.note else []
            record.segment_source = times.source
            if source.captions is not None and times.source not in NOT_CAPTIONS:
                record.captions = source.captions.name
            if times.spans is not None:
                yield from decoder.clips(times.spans)
            else:
                yield from decoder.audio_blocks()
                if decoder.use_substitute():
                    yield EndOfStream(video.video_id, partial(_count_clips, record))
                    yield from decoder.audio_blocks()
                open_source = stack.pop_all()
    except failures as error:
        record.failure = to_dead_letter(video, error)
    if decoder is not None and record.segment_source is SegmentSource.VOICE:
        yield EndOfStream(video.video_id, partial(_end_voice_video, decoder, open_source, failures))
    else:
        yield record


def _count_clips(record: VideoRecord, clips: int) -> Iterator[Event]:
    """Count the clips that the voice stage has cut from the mean of channels that cancel; they are not written."""
    record.clips += clips
    return iter(())


def _end_voice_video(
    decoder: _VideoDecoder, open_source: ExitStack, failures: tuple[type[VideoFailure], ...], clips: int
) -> Iterator[Event]:
    """Yield the record of a video that the voice stage has cut; if no voice was found, fixed windows before it.

    Args:
        failures: the errors that become the record's failure.
        clips: how many the voice stage has cut.
    """
    record, config = decoder.record, decoder.config
    record.clips += clips
    with open_source:
        try:
            if clips == 0 and record.failure is None:
                if config.segments == "voice":
                    raise BadSegments(f"{record.video.uri}: no voice found; segments='auto' would use fixed windows")
                record.segment_source = SegmentSource.FIXED
                yield from decoder.clips(fixed_windows(config.window_s))
        except failures as error:
            record.failure = to_dead_letter(record.video, error)
    yield record


@dataclass
class _VideoDecoder:
    """Decodes a fetched video and keeps its record up to date."""

    record: VideoRecord
    media: Media
    source: Source
    config: RunConfig
    timer: StageTimer
    counts: ChannelCounts | None = None
    is_compared: bool = False

    def clips(self, times: Iterable[Span]) -> Iterator[Clip]:
        """Decode and cut at known times, and count the clips; twice if the channels cancel in their mean.

        Raises:
            VideoError: as `blocks`; also, before it decodes or after, `BadSegments` as of `refuse_excess`.
        """
        if self.media.declared_s is not None:
            refuse_excess(times, self.media.declared_s, self.config)
        first, second = (times, times) if isinstance(times, Sequence) else itertools.tee(times)
        yield from self._cut(first)
        if self.use_substitute():
            yield from self._cut(second)
        refuse_excess(times, self.record.decoded_s, self.config)

    def _cut(self, times: Iterable[Span]) -> Iterator[Clip]:
        first_index = self.record.first_index
        video_id, rate, blocks = self.record.video.video_id, self.media.sample_rate_hz, self.blocks()
        if self.record.segment_source is SegmentSource.FILE:
            clips: Iterable[Clip] = (cut_file(video_id, blocks, span, rate, self.config) for span in times)
        else:
            clips = cut(video_id, blocks, times, rate, self.config)
        for clip in clips:
            self.record.clips += 1
            yield replace(clip, index=first_index + clip.index) if first_index else clip

    def use_substitute(self) -> bool:
        """Switch to one channel for another pass over the file if the channels cancel in their mean."""
        record, counts = self.record, self.counts
        if counts is None or self.is_compared or not is_canceling(counts):
            return False
        self.is_compared = True
        channel = choose_channel(counts)
        share = counts.canceling / counts.sounding
        used = "no channel has the sound of all, so the mean stays" if channel is None else f"channel {channel} is used"
        record.notes.append(
            f"the mean of the {self.media.channels} channels cancels in {share:.0%} of the sound: {used}"
        )
        if channel is not None:
            record.channel, record.first_index = channel, SECOND_PASS
        return channel is not None

    def audio_blocks(self) -> Iterator[AudioBlock]:
        """Yield `blocks` for the voice stage."""
        for block in self.blocks():
            yield AudioBlock(self.record.video.video_id, self.media.sample_rate_hz, block, self.record.first_index)

    def blocks(self) -> Iterator[Pcm]:
        """Decode to blocks [C, T]; measure duration and fingerprint on the way.

        Raises:
            VideoError: as `decode`; also, at the end, `TruncatedMedia`.
        """
        add_cpu = partial(self.timer.add_cpu, "decode")
        channel = self.record.channel
        channels = None if channel is None else self.media.channels
        decoded = decode(self.source, self.media, self.config, self._block_s(), add_cpu, self._record_report, channels)
        if channel is not None:
            decoded = (np.ascontiguousarray(block[channel : channel + 1]) for block in decoded)
        blocks = self._measure_duration(self.timer.iterate("decode", decoded))
        if self.config.duplicate_similarity is not None:
            blocks = self._fingerprint(blocks)
        yield from blocks
        refuse_truncated(self.source, self.media, self.record.decoded_s, self.config)

    def _record_report(self, report: DecodeReport) -> None:
        self.record.gap_s = report.gap_s
        self.counts = report.channels

    def _block_s(self) -> Seconds:
        """Return the length of a block: whole windows for fixed times, as a clip that is a block is not copied."""
        window_s = self.config.window_s
        if self.record.segment_source is not SegmentSource.FIXED or window_s > LONGEST_BLOCK_S:
            return BLOCK_S
        return window_s * max(1, BLOCK_S // window_s)

    def _measure_duration(self, blocks: Iterator[Pcm]) -> Iterator[Pcm]:
        frames = 0
        for block in blocks:
            frames += block.shape[-1]
            self.record.decoded_s = frames / self.media.sample_rate_hz
            yield block

    def _fingerprint(self, blocks: Iterator[Pcm]) -> Iterator[Pcm]:
        channels = decoded_channels(self.media, self.config) if self.record.channel is None else 1
        fingerprint = Fingerprint(self.media.sample_rate_hz, channels)
        for block in blocks:
            with self.timer.measure("fingerprint"):
                fingerprint.add(torch.from_numpy(block))
            yield block
        with self.timer.measure("fingerprint"):
            self.record.fingerprint = pack_events(fingerprint.finish())


def fill_in_speakers(events: Iterable[Event], videos: Iterable[Video]) -> Iterator[Event]:
    """Give clips without a speaker the one that the catalog has for the whole file."""
    speakers = {video.video_id: speaker for video in videos if (speaker := row_speaker(video.segments))}
    for event in events:
        if isinstance(event, Clip) and event.span.speaker is None and event.video_id in speakers:
            yield replace(event, span=replace(event.span, speaker=speakers[event.video_id]))
        else:
            yield event


def to_dead_letter(video: Video, error: VideoFailure) -> DeadLetter:
    """Describe why a video failed."""
    error_type, message = type(error).__name__, str(error)
    return DeadLetter(video.video_id, video.language, error.stage, error_type, message, error.retriable, video.attempts)


def event_bytes(event: VideoEvent) -> int:
    """Return the size of an event's samples."""
    return event.pcm.nbytes if isinstance(event, Clip | AudioBlock) else 0
