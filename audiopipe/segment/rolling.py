"""Give each word of rolling captions once.

Automatic and live captions roll: a cue repeats the last lines of the cue before and adds a new one, cues of 10 ms show
a line alone, and after a conversion lines appear two or three times. Other captions grow a word at a time. Ordinary
captions repeat a line because it is said again ("No. No.", a chorus), so a repeat is removed only in files that roll:
they have word times, or most of their cues that touch share lines in one of the ways above.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from audiopipe.segment.cues import Cue, Line
from audiopipe.types import Seconds

__all__ = ["Caption", "unroll"]

TOUCH_S = 0.1  # cues with a longer pause between them do not roll
FLASH_S = 0.05  # a cue as short as this shows no new words
MAX_ROWS = 4  # on the screen at once
MAX_WORDS = 40  # on the screen at once, where all rows are written as one line
GROWTH_S = 2.0  # a row that grows by words is longer on the screen only when it is complete
MAX_GROWTH = 3  # words at a time
MIN_ROLLS = 2  # fewer repeats may be chance
SHARE = 0.5


class Caption(NamedTuple):
    """Lines that are said once, and when. `ends_on_screen` is false where word times give the end."""

    start_s: Seconds
    end_s: Seconds
    lines: tuple[str, ...]
    ends_on_screen: bool = True


def unroll(cues: Sequence[Cue]) -> tuple[list[Caption], bool]:
    """Return the captions of a file, each word once, and whether speech recognition made them.

    Captions that roll do not overlap and are in order of start. They start and end at the times of their words where
    the file has these. Ordinary captions are returned as they are.
    """
    ordered = _in_order(cues)
    pairs = [(a, b) for a, b in itertools.pairwise(ordered) if a.rows and b.rows and _touch(a, b)]
    if _roll(pairs, _rolls_by_line):
        return _end_at_next(_remove_repeated_lines(ordered)), True
    if any(line.has_word_times for cue in cues for line in cue.lines):
        return _end_at_next(_remove_repeated_lines(cues, keep_empty=True)), True
    if _roll(pairs, _rolls_by_word):
        return _end_at_next(_remove_repeated_words(ordered)), True
    captions = [Caption(cue.start_s, cue.end_s, tuple(line.raw for line in cue.lines)) for cue in cues]
    return (_end_at_next(sorted(captions, key=_start)), True) if _overlaps(ordered) else (captions, False)


def _roll(pairs: Sequence[tuple[Cue, Cue]], test: Callable[[Cue, Cue], bool]) -> bool:
    """Check whether most cues that touch the one before repeat a part of it and add to it or show it alone.

    Args:
        pairs: the cues that touch the one before, with that.
    """
    needed = max(MIN_ROLLS, SHARE * len(pairs)) if len(pairs) > 1 else 1
    return bool(pairs) and sum(itertools.starmap(test, pairs)) >= needed


def _overlaps(cues: Sequence[Cue]) -> bool:
    """Check whether most cues end within the one after them, as rows that stay while the next one is spoken."""
    pairs = list(itertools.pairwise(cue for cue in cues if cue.rows))
    chained = sum(a.start_s < b.start_s < a.end_s - TOUCH_S and a.end_s < b.end_s for a, b in pairs)
    return len(pairs) > 1 and chained > SHARE * len(pairs)


def _rolls_by_line(before: Cue, cue: Cue) -> bool:
    """Check whether a cue starts with the last lines of the one before, and adds lines or shows them for a flash."""
    old, new = before.rows, cue.rows
    count = _shared(old, new)
    if not count:
        return False
    is_flash = min(_duration(before), _duration(cue)) <= FLASH_S
    adds = count < len(new) and (len(old) > 1 or len(new[0].split()) > 1)
    return adds or is_flash or (count == len(new) < len(old))


def _rolls_by_word(before: Cue, cue: Cue) -> bool:
    """Check the same where all rows are written as one line, or a row grows by words."""
    old, new = _tokens(before), _tokens(cue)
    count = _shared(old, new, MAX_WORDS)
    if count == len(new):
        return count > 0 and (count < len(old) or min(_duration(before), _duration(cue)) <= FLASH_S)
    return (count >= 2 and len(set(new)) > 1) or (count == len(old) == 1 and _grows(before, old, new))


def _grows(before: Cue, old: list[str], new: list[str]) -> bool:
    """Check whether a row that is shown for a short time is followed by itself with more words."""
    return new[: len(old)] == old and 0 < len(new) - len(old) <= MAX_GROWTH and _duration(before) < GROWTH_S


def _remove_repeated_lines(cues: Sequence[Cue], keep_empty: bool = False) -> list[Caption]:
    captions: list[Caption] = []
    before = Cue(-math.inf, -math.inf)
    for cue in cues:
        lines = [line for line in cue.lines if line.text is not None]
        old = before.rows if _touch(before, cue) else []
        new = lines[_repeated(old, lines, cue) :]
        if new:
            captions.append(_caption(cue, new))
        elif not lines and keep_empty and not _duration(cue) <= FLASH_S:  # NaN is kept
            captions.append(Caption(cue.start_s, cue.end_s, ()))
        elif captions and captions[-1].end_s - captions[-1].start_s <= FLASH_S and lines:
            captions[-1] = captions[-1]._replace(end_s=max(captions[-1].end_s, cue.end_s))
        if lines or _duration(cue) > FLASH_S:
            before = cue
    return captions


def _repeated(old: Sequence[str], lines: list[Line], cue: Cue) -> int:
    """Return how many first lines of a cue are those of the cue before."""
    new = [line.text or "" for line in lines]
    timed = next((number for number, line in enumerate(lines) if line.has_word_times), None)
    if timed is not None:  # a line with word times is new, and so are those after it
        return next((count for count in range(min(timed, MAX_ROWS), 0, -1) if _are_shown(old, new[:count])), 0)
    count = _shared(old, new)
    if count == len(new) == len(old) > 1 and _duration(cue) > FLASH_S and old[1 - count :] == new[: count - 1]:
        count -= 1  # the same line again: "no" below "no"
    return count


def _are_shown(old: Sequence[str], new: list[str]) -> bool:
    """Check whether lines stand in the cue before, in their order and without others between them."""
    return any(old[first : first + len(new)] == new for first in range(len(old) - len(new) + 1))


def _caption(cue: Cue, lines: Sequence[Line]) -> Caption:
    """Return the new lines of a cue with the times of their words, where these lie within the cue."""
    start, end = cue.start_s, cue.end_s
    first, last = lines[0].start_s, lines[-1].end_s
    if first is not None and start <= first < end:
        start = first
    ends_by_word = last is not None and start < last <= end
    if ends_by_word and last is not None:
        end = last
    return Caption(start, end, tuple(line.raw for line in lines), not ends_by_word)


def _remove_repeated_words(cues: Sequence[Cue]) -> list[Caption]:
    captions: list[Caption] = []
    before = Cue(-math.inf, -math.inf)
    for cue in cues:
        new = _tokens(cue)
        old = _tokens(before) if _touch(before, cue) else []
        count = _shared(old, new, MAX_WORDS)
        text = " ".join(new[count:])
        if text and count and count == len(old) and captions and _grows(before, old, new):
            last = captions[-1]  # the same row has grown
            captions[-1] = Caption(last.start_s, cue.end_s, (f"{last.lines[0]} {text}",))
        elif text:
            captions.append(Caption(cue.start_s, cue.end_s, (text,)))
        if new:
            before = cue
    return captions


def _end_at_next(captions: list[Caption]) -> list[Caption]:
    """End each caption where the next one starts."""
    ended = list(captions)
    for number, (caption, following) in enumerate(itertools.pairwise(captions)):
        if caption.start_s < following.start_s < caption.end_s:
            ended[number] = caption._replace(end_s=following.start_s)
    return ended


def _shared(old: Sequence[str], new: Sequence[str], limit: int = MAX_ROWS) -> int:
    """Return the largest number of last items of one list that are the first items of the other."""
    if not new or new[0] not in old[-limit:]:
        return 0
    for count in range(min(len(old), len(new), limit), 0, -1):
        if old[-count:] == new[:count]:
            return count
    return 0


def _tokens(cue: Cue) -> list[str]:
    return " ".join(cue.rows).split()


def _touch(before: Cue, cue: Cue) -> bool:
    return before.start_s <= cue.start_s <= before.end_s + TOUCH_S


def _duration(cue: Cue) -> Seconds:
    return cue.end_s - cue.start_s


def _start(item: Cue | Caption) -> Seconds:
    """Return the start, with NaN last."""
    return math.inf if math.isnan(item.start_s) else item.start_s


def _in_order(cues: Sequence[Cue]) -> list[Cue]:
    return sorted(cues, key=_start)
