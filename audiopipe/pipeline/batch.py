"""Gather the clips of a shard into batches of one sample rate and about one length.

Which clips share a batch depends on the order of the clips and on the config alone, never on timing, so that a
rerun gives the device the same tensors and the output the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from audiopipe.config import RunConfig
from audiopipe.types import Clip, Pcm

__all__ = ["MEGABYTE", "Batch", "batch_clips"]

Other = TypeVar("Other")

# Lengths in one batch differ by a factor below 2^(1/4), so that padding is at most 16 % of it.
CLASSES_PER_OCTAVE = 4
MEGABYTE = 1 << 20

BatchKey = tuple[int, int, str, int]  # sample rate, channels, sample type, class of length


@dataclass(frozen=True)
class Batch:
    """Clips of one sample rate, number of channels and sample type."""

    clips: tuple[Clip, ...]

    @property
    def sample_rate_hz(self) -> int:
        """The sample rate of all clips."""
        return self.clips[0].sample_rate_hz

    def __repr__(self) -> str:
        return f"Batch({len(self.clips)} clips at {self.sample_rate_hz} Hz)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """[B, C, T] of the padded batch; T is the length of the longest clip."""
        return len(self.clips), self.clips[0].pcm.shape[0], max(clip.frames for clip in self.clips)

    def collate(self, samples: Pcm) -> list[int]:
        """Fill [B, C, T] with the samples, zero after each clip's end; return the lengths [B] in samples."""
        for row, clip in zip(samples, self.clips, strict=True):
            row[:, : clip.frames] = clip.pcm
            row[:, clip.frames :] = 0
        return [clip.frames for clip in self.clips]


def batch_clips(events: Iterable[Clip | Other], config: RunConfig) -> Iterator[Batch | Clip | Other]:
    """Replace the clips of a stream by batches of them.

    A batch is yielded when it is full, when more than `batch_queue_mb` wait, or at the end. Clips that were dropped
    before scoring, and events that are not clips, pass through at once.
    """
    waiting: dict[BatchKey, list[Clip]] = {}
    waiting_bytes = 0
    for event in events:
        if not isinstance(event, Clip) or event.drop_reason is not None:
            yield event
            continue
        key = _batch_key(event)
        # The padded size counts, since the device has to hold it.
        clips = waiting.setdefault(key, [])
        if clips and _padded_bytes(clips, event) > config.batch_mb * MEGABYTE:
            waiting_bytes -= _bytes(clips)
            yield Batch(tuple(waiting.pop(key)))
            clips = waiting.setdefault(key, [])
        clips.append(event)
        waiting_bytes += event.pcm.nbytes
        if len(clips) == config.batch_segments:
            waiting_bytes -= _bytes(clips)
            yield Batch(tuple(waiting.pop(key)))
        elif waiting_bytes > config.batch_queue_mb * MEGABYTE:
            key = max(waiting, key=lambda k: (_bytes(waiting[k]), k))
            waiting_bytes -= _bytes(waiting[key])
            yield Batch(tuple(waiting.pop(key)))
    for key in sorted(waiting):
        yield Batch(tuple(waiting[key]))


def _batch_key(clip: Clip) -> BatchKey:
    length_class = math.floor(CLASSES_PER_OCTAVE * math.log2(clip.frames))
    return clip.sample_rate_hz, clip.pcm.shape[0], clip.pcm.dtype.str, length_class


def _bytes(clips: list[Clip]) -> int:
    return sum(clip.pcm.nbytes for clip in clips)


def _padded_bytes(clips: list[Clip], extra: Clip) -> int:
    return (len(clips) + 1) * max(clip.pcm.nbytes for clip in (*clips, extra))
