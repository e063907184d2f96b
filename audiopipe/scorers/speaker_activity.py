"""Decide which speaker is active in each frame of a segment from windows whose speakers are numbered independently."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import numpy.typing as npt

from audiopipe.models.pyannote_segmentation import CLASSES, FRAME_STEP, SPEAKERS, WINDOW

__all__ = ["Activity", "join_windows", "to_activity", "window_starts"]

Activity = npt.NDArray[np.bool_]  # [frames, speakers]

HOP_FRAMES = 296  # between windows: half a window
# Speakers of two windows are the same if they share this part of the activity of the less active one.
SHARED_ACTIVITY = 0.5


def window_starts(samples: int) -> list[int]:
    """Return the first frame of each window of a segment; the last window ends with the segment.

    Starts are whole frames, so that frames of all windows are those of the segment.
    """
    last = max(0, -(-(samples - WINDOW) // FRAME_STEP))
    return [*range(0, last, HOP_FRAMES), last]


def to_activity(classes: npt.NDArray[np.integer]) -> Activity:
    """Turn indices of `CLASSES` [frames] into the activity of each speaker [frames, SPEAKERS]."""
    table = np.zeros((len(CLASSES), SPEAKERS), dtype=bool)
    for index, speakers in enumerate(CLASSES):
        table[index, list(speakers)] = True
    activity: Activity = table[classes]
    return activity


def join_windows(starts: list[int], windows: list[Activity]) -> Activity:
    """Join the windows of a segment: [frames, streams]

    In the overlap of two windows, speakers that are active together are one stream. A speaker of the later window that
    matches no stream begins a new one, so a voice can have several. Each window is used up to the middle of the
    overlap.
    """
    joined = np.zeros((starts[-1] + len(windows[-1]), SPEAKERS), dtype=bool)
    joined[: len(windows[0])] = windows[0]
    streams = list(range(SPEAKERS))  # the stream of each speaker of the previous window
    for index in range(1, len(windows)):
        start, end = starts[index], starts[index - 1] + len(windows[index - 1])
        middle = (start + end) // 2
        shared = end - start
        mapping = _match(windows[index - 1][-shared:], windows[index][:shared])
        current = [streams[match] if match is not None else -1 for match in mapping]
        for speaker, stream in enumerate(current):
            if stream < 0:
                joined = np.pad(joined, ((0, 0), (0, 1)))
                current[speaker] = joined.shape[1] - 1
        streams = current
        joined[middle:] = False
        joined[middle : start + len(windows[index]), streams] = windows[index][middle - start :]
    return joined[:, joined.any(axis=0)]


def _match(previous: Activity, current: Activity) -> list[int | None]:
    """Return the speaker of the previous window that each speaker of the current one is, in their common frames."""
    together = (previous[:, :, None] & current[:, None, :]).sum(axis=0)
    smaller = np.minimum(previous.sum(axis=0)[:, None], current.sum(axis=0)[None, :])
    order = max(permutations(range(SPEAKERS)), key=lambda order: sum(together[i, j] for j, i in enumerate(order)))
    return [
        i if together[i, j] > 0 and together[i, j] >= SHARED_ACTIVITY * smaller[i, j] else None
        for j, i in enumerate(order)
    ]
