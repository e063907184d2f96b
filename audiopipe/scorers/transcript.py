"""The scorer `transcript`: does a segment's text look like a transcript of its sound? It reads no audio."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from audiopipe.scorers.scorer import Column, Scorer, ScorerBatch, SegmentInfo, Values
from audiopipe.scorers.words import count_letters, is_unspaced, normalize, split_words

if TYPE_CHECKING:
    import torch

    from audiopipe.scorers.text_language import TextLanguageIdentifier

__all__ = ["Transcript"]

# Longer texts are examined up to here, so that the time for a segment has a limit; rates count all of it.
MAX_CHARACTERS = 10_000
WORD_NGRAM, CHARACTER_NGRAM = 3, 6
MAX_MEAN_WORD = 20  # letters; above that, words are not separated by spaces, or are one sound repeated

TAG = re.compile(r"<[^<>]{0,200}>|\{\\[^{}]{0,200}\}")
SQUARE = re.compile(r"[\[【［][^\[\]【】［］]{0,80}[\]】］]")
# Round brackets and stars may hold words that are spoken: they are marks if the text lacks them.
BRACKETED = re.compile(r"[(（][^()（）]{1,80}[)）]|\*[^*\n]{1,40}\*")
NOTE = re.compile("[\u2669-\u266c\U0001f3b5\U0001f3b6]")
MARK = re.compile("[\\[(*\u2669-\u266c\U0001f3b5\U0001f3b6【［（]")

COLUMNS = (
    Column("characters_per_s", "float", "1/s", "letters and digits of the text for each second of sound", 0.0),
    Column(
        *("words_per_s", "float", "1/s"),
        "words of the text for each second of sound; null for writing without spaces between words, as in Chinese, "
        "Japanese and Thai",
        0.0,
    ),
    Column(
        *("repeated_ngram_ratio", "float", "1"),
        f"share of the text's sequences of {WORD_NGRAM} words that occurred before, or of {CHARACTER_NGRAM} characters "
        "where no spaces separate words; high where speech recognition was caught in a loop",
        *(0.0, 1.0),
    ),
    Column("stock_phrase", "string", "", "the longest stock phrase of subtitles in the text, as “thanks for watching”"),
    Column("stock_phrase_ratio", "float", "1", "share of the text's letters that stock phrases make up", 0.0, 1.0),
    Column("text_language", "string", "", "language of the text; null for texts that are too short to identify it"),
    Column("text_language_probability", "float", "1", "probability of that language", 0.0, 1.0),
    Column(
        *("text_language_matches", "bool", ""),
        "whether the text is in the catalog's language, in any script or region; null where it is not clear",
    ),
    Column(
        *("mark_ratio", "float", "1"),
        "share of the raw text's letters that are in marks of sounds such as [Music]; a note ♪ counts as a letter",
        *(0.0, 1.0),
    ),
)


class TextValues(NamedTuple):
    """The values of one segment, in the order of the columns."""

    characters_per_s: float | None = None
    words_per_s: float | None = None
    repeated_ngram_ratio: float | None = None
    stock_phrase: str | None = None
    stock_phrase_ratio: float | None = None
    text_language: str | None = None
    text_language_probability: float | None = None
    text_language_matches: bool | None = None
    mark_ratio: float | None = None


class Transcript(Scorer):
    """Rates, repetitions, stock phrases, language and marks of sounds of the texts. All are null without a text."""

    name = "transcript"
    version = "1"
    columns = COLUMNS
    needs_audio = False

    def __init__(self) -> None:
        self._identifier: TextLanguageIdentifier | None = None

    def load(self, device: torch.device) -> None:
        """Read the model of languages: one to two seconds, and 100 MB of memory in each process.

        Raises:
            MissingExtra: py3langid is not installed.
        """
        from audiopipe.scorers.text_language import TextLanguageIdentifier  # noqa: PLC0415 - needs langcodes

        self._identifier = TextLanguageIdentifier()

    def score(self, batch: ScorerBatch) -> Mapping[str, Values]:
        """Examine the texts of a batch."""
        rows = [examine(segment, self._identifier) for segment in batch.segments]
        names = [column.name for column in COLUMNS]
        columns = zip(*rows, strict=True) if rows else [()] * len(names)
        return {name: list(values) for name, values in zip(names, columns, strict=True)}


def examine(segment: SegmentInfo, identifier: TextLanguageIdentifier | None) -> TextValues:
    """Examine the text of one segment.

    Args:
        identifier: None leaves out the language.
    """
    # The phrases are read only where a text is scored: `audiopipe explain` needs the columns alone.
    from audiopipe.scorers.stock_phrases import find_stock_phrase  # noqa: PLC0415

    mark_ratio = measure_marks(segment.text, segment.raw_text)
    if not segment.text:
        return TextValues(mark_ratio=mark_ratio)
    letters = count_letters(segment.text)
    text = normalize(segment.text[:MAX_CHARACTERS])
    words = split_words(text)
    has_no_spaces = is_unspaced(text, count_letters(text))
    all_words = words if len(segment.text) <= MAX_CHARACTERS else split_words(normalize(segment.text))
    stock = find_stock_phrase(text, words)
    language = identifier.identify(segment.text, segment.language) if identifier else None
    return TextValues(
        _per_second(letters, segment.duration_s),
        None if has_no_spaces else _per_second(len(all_words), segment.duration_s),
        measure_repetition(words, has_no_spaces),
        stock.phrase if stock else None,
        stock.ratio if stock else 0.0,
        language.language if language else None,
        language.probability if language else None,
        language.matches if language else None,
        mark_ratio,
    )


def _per_second(count: int, duration_s: float) -> float | None:
    return count / duration_s if duration_s > 0 else None


def measure_repetition(words: Sequence[str], has_no_spaces: bool = False) -> float:
    """Return the share of n-grams that occurred before in the same text; 0 for a text that is shorter than two."""
    size, items = WORD_NGRAM, words
    if has_no_spaces or sum(map(len, words)) > MAX_MEAN_WORD * len(words):
        size, items = CHARACTER_NGRAM, list("".join(words))
    total = len(items) - size + 1
    if total < 2:
        return 0.0
    return 1 - len(set(zip(*(items[start:] for start in range(size)), strict=False))) / total


def measure_marks(text: str | None, raw_text: str | None) -> float | None:
    """Return the share of a raw text's letters that are in marks of sounds; None without a text.

    Args:
        text: the words alone, which lack the marks.
        raw_text: None takes `text`, in which only square brackets and notes are certain to be marks.
    """
    raw = (raw_text or text or "")[:MAX_CHARACTERS]
    if not raw:
        return None
    if MARK.search(raw) is None:
        return 0.0
    if "<" in raw or "{" in raw:
        raw = TAG.sub(" ", raw)
    plain = raw if raw_text is None else text or ""
    rest = SQUARE.sub(" ", raw)
    rest = BRACKETED.sub(lambda match: match[0] if match[0] in plain else " ", rest)
    notes = len(NOTE.findall(raw))
    total = count_letters(raw) + notes
    return (total - count_letters(rest)) / total if total else None
