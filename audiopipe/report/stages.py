"""What the stages of a shard's way are, for people: what they do, and what to do about one that takes the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["STAGES", "Stage", "bottleneck", "ordered"]


class Stage(NamedTuple):
    what: str
    advice: str


# In the order of the data's way.
STAGES: dict[str, Stage] = {
    "fetch": Stage(
        "reading tars from the store",
        "the network or the store is the limit: run closer to the bucket, or raise <code>prefetch_videos</code>",
    ),
    "decode": Stage(
        "decoding the media to samples",
        "the CPU's cores are the limit, as designed: more cores, or more <code>decoders</code> while cores are idle",
    ),
    "fingerprint": Stage(
        "fingerprints, by which re-uploads are found",
        "the CPU's cores are the limit: <code>duplicate_similarity=None</code> does without",
    ),
    "voice": Stage(
        "listening for speech where no times came with the audio",
        "the network that finds speech is the limit: a GPU takes it away (<code>device</code>), and so do times beside "
        "the audio",
    ),
    "score": Stage(
        "metrics, thresholds and resampling",
        "the kernels are the limit: this is the stage that a GPU takes away (<code>device</code>)",
    ),
    "encode": Stage(
        "encoding the kept segments",
        "the encoder is the limit: FLAC is the cheapest <code>audio_format</code>; raise <code>encoders</code> too",
    ),
    "write": Stage(
        "writing tar and tables on local scratch",
        "the local disk is the limit: point <code>scratch</code> at a faster one",
    ),
    "upload": Stage(
        "uploading finished shards",
        "the store's write side is the limit: raise <code>shards_in_flight</code>, so that work goes on meanwhile",
    ),
}


def ordered(seconds: Mapping[str, float]) -> dict[str, float]:
    """Stages in the order of the data's way; unknown ones at the end."""
    names = [name for name in STAGES if name in seconds]
    return {name: float(seconds[name]) for name in [*names, *sorted(set(seconds) - set(names))]}


def bottleneck(seconds: Mapping[str, float]) -> str | None:
    """The stage that took most of the work's seconds; None if nothing was measured."""
    busy = {name: spent for name, spent in seconds.items() if spent > 0}
    return max(busy, key=lambda name: busy[name]) if busy else None
