"""Group videos that have a speaker in common, so that a split can keep them together."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["group_videos"]


def group_videos(pairs: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Return for each video the lowest id of its group: the videos that are connected by speakers (union-find).

    Args:
        pairs: videos and a speaker of each; a missing speaker connects nothing.
    """
    parent: dict[str, str] = {}
    first_video: dict[str, str] = {}

    def root(video: str) -> str:
        while (above := parent[video]) != video:
            parent[video] = parent[above]
            video = above
        return video

    for video, speaker in pairs:
        parent.setdefault(video, video)
        if speaker is not None:
            low, high = sorted((root(video), root(first_video.setdefault(speaker, video))))
            parent[high] = low
    return {video: root(video) for video in parent}
