"""Describe the stages of a shard: what each does, and what to do if it is the bottleneck."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["STAGES", "Stage", "describe_stage", "find_bottleneck", "sort_stages"]


class Stage(NamedTuple):
    """A stage: its activity, and the advice if it takes most of the time. The advice is HTML."""

    activity: str
    advice: str


# In processing order.
STAGES: dict[str, Stage] = {
    "fetch": Stage(
        "reading tars from the store",
        "the network or the store is the limit: run closer to the bucket, or raise <code>prefetch_videos</code>",
    ),
    "copy": Stage(
        "reading the samples of a selection from its parent, a request at a time",
        "the network or the disk of the parent is the limit: run closer to it, or add workers",
    ),
    "decode": Stage(
        "decoding the media to samples",
        "the CPU is the limit, as designed: add cores, or raise <code>decoders</code> if cores are idle",
    ),
    "fingerprint": Stage(
        "computing fingerprints, which find re-uploads",
        "the CPU is the limit: <code>duplicate_similarity=None</code> turns fingerprints off",
    ),
    "voice": Stage(
        "detecting speech in audio that came without segment times",
        "voice activity detection is the limit: run it on a GPU (<code>device</code>), or provide segment times with "
        "the audio",
    ),
    "score": Stage(
        "computing metrics, applying thresholds and resampling",
        "the kernels are the limit: run this stage on a GPU (<code>device</code>)",
    ),
    "encode": Stage(
        "encoding the kept segments",
        "the encoder is the limit: FLAC is the cheapest <code>audio_format</code>; raise <code>encoders</code> too",
    ),
    "write": Stage(
        "writing tar and tables to local scratch",
        "the local disk is the limit: set <code>scratch</code> to a faster one",
    ),
    "upload": Stage(
        "uploading finished shards",
        "the upload to the store is the limit: raise <code>shards_in_flight</code>, so that other shards continue",
    ),
}


SCORER = Stage(
    "computing the columns of this scorer",
    "the scorer is the limit: run it on a GPU (<code>device</code>), or leave it out of <code>scorers</code> "
    "and add its columns later with <code>audiopipe annotate</code>",
)


def describe_stage(name: str) -> Stage:
    """Return the description of a stage. A stage that is not in `STAGES` has the name of a scorer."""
    return STAGES.get(name, SCORER)


def sort_stages(seconds: Mapping[str, float]) -> dict[str, float]:
    """Sort stages by processing order; scorers come after `score`."""
    position = {name: number for number, name in enumerate(STAGES)}
    names = sorted(seconds, key=lambda name: (position.get(name, position["score"] + 0.5), name))
    return {name: float(seconds[name]) for name in names}


def find_bottleneck(seconds: Mapping[str, float]) -> str | None:
    """Return the stage with the most working time; None if no time was recorded."""
    busy = {name: spent_s for name, spent_s in seconds.items() if spent_s > 0}
    return max(busy, key=lambda name: busy[name]) if busy else None
