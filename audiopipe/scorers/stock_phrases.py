"""Find the stock phrases of subtitles: credits, thanks for watching, requests to subscribe.

Speech recognition writes them into silence and music, because its training data had them there. People also say some
of them: whether one was spoken only its sound can show.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

import yaml

from audiopipe.scorers.words import normalize, split_words

__all__ = ["PHRASES", "StockPhrase", "find_stock_phrase"]

FILE = files("audiopipe.scorers").joinpath("stock_phrases.yaml")
PHRASES: dict[str, list[str]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
# In these, spaces do not matter: a phrase is looked for in the text without any.
JOINED = ("zh", "ja", "ko", "th")
MAX_OPEN_WORDS = 6
OPEN = "..."
JOINED_LETTERS = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


class StockPhrase(NamedTuple):
    """A stock phrase in a text: its normal form, and the share of the text's letters that stock phrases make up."""

    phrase: str
    ratio: float


class _Pattern(NamedTuple):
    phrase: str
    words: tuple[str, ...]
    open_before: int
    open_after: int


def _by_first_word() -> dict[str, list[_Pattern]]:
    """Return the patterns by their first word, the longest first."""
    patterns: dict[str, dict[tuple[str, ...], _Pattern]] = {}
    for language, phrases in PHRASES.items():
        for phrase in phrases if language not in JOINED else ():
            words = tuple(split_words(normalize(phrase.strip(f"{OPEN} "))))
            before, after = (MAX_OPEN_WORDS * is_open for is_open in (phrase.startswith(OPEN), phrase.endswith(OPEN)))
            patterns.setdefault(words[0], {}).setdefault(words, _Pattern(" ".join(words), words, before, after))
    return {first: sorted(group.values(), key=lambda item: -len(item.words)) for first, group in patterns.items()}


def _joined_phrases() -> list[str]:
    joined = {_join(normalize(phrase)) for language in JOINED for phrase in PHRASES[language]}
    return sorted(joined, key=lambda phrase: (-len(phrase), phrase))


def find_stock_phrase(text: str, words: Sequence[str]) -> StockPhrase | None:
    """Return the longest stock phrase of a text, with the share of the letters of all; None if there is none.

    Args:
        text: as from `normalize`.
        words: its words.
    """
    matches = [] if FIRST_WORDS.isdisjoint(words) else _match_words(words)
    if not text.isascii() and JOINED_LETTERS.search(text):
        matches += _match_joined(_join(text))
    if not matches:
        return None
    letters = sum(map(len, words))
    covered = sum(size for _, size in matches)
    return StockPhrase(max(matches, key=lambda match: len(match[0]))[0], min(1.0, covered / max(1, letters)))


def _match_words(words: Sequence[str]) -> list[tuple[str, int]]:
    """Return each phrase and the number of letters that it covers; phrases do not overlap."""
    matches = []
    position = 0
    while position < len(words):
        for pattern in BY_FIRST_WORD.get(words[position], ()):
            end = position + len(pattern.words)
            if tuple(words[position:end]) != pattern.words:
                continue
            if pattern.open_after:
                # A credit is all of a text: in a longer one "subtitles by" is ordinary speech.
                if position <= pattern.open_before and len(words) - end <= pattern.open_after:
                    return [(pattern.phrase, sum(map(len, words)))]
                continue
            matches.append((pattern.phrase, sum(map(len, words[position:end]))))
            position = end - 1
            break
        position += 1
    return matches


def _match_joined(text: str) -> list[tuple[str, int]]:
    matches = []
    for phrase in JOINED_PHRASES:
        if count := text.count(phrase):
            matches.append((phrase, count * len(phrase)))
            text = text.replace(phrase, " ")
    return matches


def _join(text: str) -> str:
    """Remove everything but letters, their marks and digits."""
    return "".join(split_words(text))


BY_FIRST_WORD = _by_first_word()
FIRST_WORDS = BY_FIRST_WORD.keys()
JOINED_PHRASES = _joined_phrases()
