"""Split a text into words, or into characters where its writing has no spaces between words."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["UNSPACED_RANGES", "count_letters", "is_unspaced", "normalize", "split_words"]

# Letters with their combining marks, and digits: all but white space, ASCII's and other punctuation. An apostrophe or a
# hyphen within a word belongs to it.
_IN_WORD = (
    r"[^\s!-/:-@\[-`{-~\x80-©«-±´¶-¸»¿×÷˂-˅˒-˟؉-؍؛-؟٪-٭۔।॥‐-⁞₠-⏿①-⯿⸀-⹿、-〿꓿︐-﹯！-／：-＠｛-･￼�\U0001f000-\U0001faff]"
)
WORD = re.compile(rf"{_IN_WORD}+(?:['’-]{_IN_WORD}+)*")
VOWEL_SIGNS = re.compile("[\u0591-\u05c7\u0640\u064b-\u0652]+")  # of Hebrew and Arabic, which most texts leave out
# Thai, Lao, Tibetan, Burmese, Khmer, kana and Chinese characters; Korean writes spaces.
UNSPACED_RANGES = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
UNSPACED_LETTER = re.compile(f"[{UNSPACED_RANGES}]")


def normalize(text: str) -> str:
    """Bring a text into a form in which equal words are equal: NFKC, lower case, no optional signs, plain apostrophes.

    >>> normalize("Ｄon’t")
    "don't"
    """
    if not text.isascii():
        text = VOWEL_SIGNS.sub("", unicodedata.normalize("NFKC", text).replace("’", "'"))
    return text.casefold()


def split_words(text: str) -> list[str]:
    """Return the words of a normalized text. Without spaces between words, these are phrases between punctuation."""
    words = WORD.findall(text)
    return words if text.isascii() else [word for word in words if word[0].isalnum() or any(map(str.isalnum, word))]


def count_letters(text: str) -> int:
    """Count letters and digits; not spaces, punctuation, combining marks and symbols."""
    return sum(map(str.isalnum, text))


def is_unspaced(text: str, letters: int) -> bool:
    """Check whether a quarter of a text's letters or more are of a writing that has no spaces between words."""
    return not text.isascii() and 4 * len(UNSPACED_LETTER.findall(text)) >= letters > 0
