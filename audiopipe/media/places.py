"""Tell the fault of one source from the fault of its place, with the other sources of its shard as witnesses.

An error of one object is the video's: its place (folder, prefix, host) holds another object that can be read. If none
can, the mount, the prefix or the host is at fault, and no video. A single video that is alone in such a place is tried
again, and becomes a dead letter in the last attempt, because a wrong row must not hold up its neighbors.
"""

from __future__ import annotations

import errno
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice

from audiopipe.config import RunConfig
from audiopipe.errors import (
    AudiopipeError,
    ForbiddenSource,
    InvalidSource,
    MissingSource,
    PermanentStoreError,
    SourceUnavailable,
    StoreError,
    UnreadableSource,
)
from audiopipe.media.access import MAX_NEIGHBORS, describe_place, is_http, is_readable, list_neighbors, place_of
from audiopipe.store.retry import is_forbidden
from audiopipe.types import Video

__all__ = ["SOURCE_ERRORS", "SourcePlaces"]

# The errors of `fetch` for which the place of the video may be the cause.
SourceError = MissingSource | ForbiddenSource | InvalidSource | PermanentStoreError | StoreError
SOURCE_ERRORS = (MissingSource, ForbiddenSource, InvalidSource, PermanentStoreError, StoreError)

MIN_FAILURES = 2  # one video of a shard is not a majority, whatever the share
CONDITIONS = {
    MissingSource: "missing",
    ForbiddenSource: "forbidden",
    InvalidSource: "not files that can be read",
    UnreadableSource: "unreadable",
}


class SourcePlaces:
    """The places of a shard's sources, and how many of its videos failed for which reason.

    Its methods may be called by several threads.
    """

    def __init__(self, videos: Sequence[Video], config: RunConfig) -> None:
        self._videos = videos
        self._share = config.max_missing_share
        self._failures: Counter[type[AudiopipeError]] = Counter()
        self._unusable: set[str] = set()
        self._lock = threading.Lock()

    def explain(self, video: Video, error: SourceError) -> AudiopipeError:
        """Return the error to raise for a video: the given one, or another if the place of the video is at fault.

        Returns:
            `SourceUnavailable` if the place of the video cannot be used, or if too many videos of the shard fail for
            one reason; `UnreadableSource` if only this video fails in a way that may pass.
        """
        with self._lock:
            result = self._explain(video, error)
            return self._count(video, result)

    def _explain(self, video: Video, error: SourceError) -> AudiopipeError:
        is_refused = isinstance(error, PermanentStoreError)
        if is_refused and not is_forbidden(error.__cause__):
            return error
        if self._share == 1 and not isinstance(error, StoreError):
            return ForbiddenSource(str(error)) if is_refused else error
        if self._has_answered(video, error) or self._check_place(video):
            return _blame_object(video, error)
        place, reason = place_of(video), describe_place(place_of(video))
        if not isinstance(error, MissingSource):
            reason = f"{reason} ({error})"
        others = [other for other in self._videos if place_of(other) != place]
        is_alone = not any(other is not video and place_of(other) == place for other in self._videos)
        if is_alone and (video.attempts > 1 or _any_readable(other.uri for other in others)):
            return UnreadableSource(f"{video.uri} cannot be read: {reason}")
        if is_refused and not others:
            return error
        return SourceUnavailable(
            f"{video.uri} cannot be read: {reason}; mount it, start it or correct source_prefix, or set "
            "max_missing_share to 1 if its videos are to become dead letters"
        )

    @staticmethod
    def _has_answered(video: Video, error: SourceError) -> bool:
        """Check whether the error itself shows that the place is there: an HTTP server's 404, or an invalid name."""
        return isinstance(error, InvalidSource) or (isinstance(error, MissingSource) and is_http(video.uri))

    def _check_place(self, video: Video) -> bool:
        """Check whether any object of the video's place can be read, maybe the video's own."""
        place = place_of(video)
        if place in self._unusable:  # to look again could cost minutes for each video
            return False
        same_place = (other.uri for other in self._videos if other is not video and place_of(other) == place)
        if _any_readable([*list_neighbors(video), *islice(same_place, MAX_NEIGHBORS), video.uri]):
            return True
        self._unusable.add(place)
        return False

    def _count(self, video: Video, error: AudiopipeError) -> AudiopipeError:
        """Count a failure; replace the error if too many videos of the shard failed for its reason.

        A video that is retried has failed before, so it says nothing about the place.
        """
        kind = type(error)
        if kind not in CONDITIONS or video.attempts > 1:
            return error
        self._failures[kind] += 1
        count, total = self._failures[kind], len(self._videos)
        if count < MIN_FAILURES or count <= self._share * total:
            return error
        return SourceUnavailable(
            f"{count} of {total} videos of a shard are {CONDITIONS[kind]}, which is more than max_missing_share "
            f"({self._share:g}); the last one: {error}"
        )


def _blame_object(video: Video, error: SourceError) -> AudiopipeError:
    """Return the error of a video whose place can be used."""
    if isinstance(error, PermanentStoreError):
        return ForbiddenSource(f"not permitted to read {video.uri}, although its neighbors can be read")
    if not isinstance(error, StoreError):
        return error
    if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EIO:
        return InvalidSource(f"{video.uri} cannot be read ({error.__cause__.strerror}), although its neighbors can")
    return UnreadableSource(f"{video.uri} cannot be read, although its neighbors can: {error}")


def _any_readable(uris: Iterable[str]) -> bool:
    return any(is_readable(uri) for uri in islice(uris, 2 * MAX_NEIGHBORS + 1))
