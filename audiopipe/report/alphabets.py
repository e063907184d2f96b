"""Find the letters of a language: the exemplar sets of Unicode CLDR, else its most frequent script.

The sets are those that `gflanguages` ships: CLDR's, completed by Google Fonts, for about 1,000 languages. The auxiliary
letters, of loan words and names, belong to the alphabet here.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

from langcodes import Language

from audiopipe.languages import parse_language

__all__ = ["find_alphabet", "letters_outside", "script_of"]

# Writing with thousands of characters, of which CLDR lists the frequent ones: every character of these scripts belongs.
LARGE = {
    "Hans": ("CJK",),
    "Hant": ("CJK", "BOPOMOFO"),
    "Jpan": ("CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH"),
    "Kore": ("HANGUL", "CJK"),
}


@lru_cache(maxsize=1024)
def find_alphabet(language: str) -> tuple[frozenset[str], tuple[str, ...]] | None:
    """Return the letters of a language in lower case, and scripts of which every letter belongs; None if unknown."""
    parsed = parse_language(language)
    if parsed is None:
        return None
    full: Language = parsed.maximize()
    texts = _read_exemplars(f"{full.language}_{full.script}")
    if texts is None:
        return None
    letters = {letter for text in texts for letter in unicodedata.normalize("NFC", text).casefold()}
    return frozenset(letters - set(" {}◌")), LARGE.get(str(full.script), ())


def _read_exemplars(name: str) -> tuple[str, str] | None:
    """Read the main and auxiliary letters of a file of gflanguages; None if it or the package is missing."""
    try:
        from gfmetadata import LanguageProto, text_format  # noqa: PLC0415 - reports without texts do not need it

        file = files("gflanguages") / "data" / "languages" / f"{name}.textproto"
    except ImportError:
        return None
    if not file.is_file():
        return None
    exemplars = text_format.Parse(file.read_text(encoding="utf-8"), LanguageProto()).exemplar_chars
    return (exemplars.base, exemplars.auxiliary) if exemplars.base else None


@lru_cache(maxsize=65536)
def script_of(letter: str) -> str:
    """Return the first word of a letter's name, which is its script: LATIN, CYRILLIC, CJK."""
    return unicodedata.name(letter, "UNKNOWN").partition(" ")[0]


def letters_outside(characters: Mapping[str, int], language: str) -> Counter[str]:
    """Count the letters that do not belong to the alphabet of a language.

    Args:
        characters: the counts of all characters, in NFC. Only letters count: no digits, marks and punctuation.
    """
    letters = {letter: count for letter, count in characters.items() if unicodedata.category(letter)[0] == "L"}
    alphabet, scripts = find_alphabet(language) or (frozenset(), _main_scripts(letters))
    return Counter(
        {
            letter: count
            for letter, count in letters.items()
            if not alphabet.issuperset(letter.casefold()) and script_of(letter) not in scripts
        }
    )


def _main_scripts(letters: Mapping[str, int]) -> tuple[str, ...]:
    """Return the script of most letters."""
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        scripts[script_of(letter)] += count
    return tuple(script for script, _ in scripts.most_common(1))
