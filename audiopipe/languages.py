"""Compare the language of a video with the tags of its captions and audio tracks (BCP 47, ISO 639-1, -2 and -3).

`langcodes` normalizes tags ('ger', 'deu' and 'de' are one) and ranks them. Its distance says how well readers of one
language read another (Danish and Norwegian are 12 apart), so whether a tag is acceptable at all is decided here.
"""

from __future__ import annotations

from functools import lru_cache

from langcodes import Language, tag_distance
from langcodes.data_dicts import MACROLANGUAGES
from langcodes.tag_parser import LanguageTagError

__all__ = ["is_language", "languages_match", "parse_language", "rank_distance", "same_language"]

MAX_TAG = 35  # characters that RFC 5646 asks applications to support
UNKNOWN = frozenset({"und", "mul", "mis", "zxx", "root"})
# Members of these differ in sound: Cantonese is one of "zh", Croatian of "sh", Indonesian of "ms".
NOT_ONE_LANGUAGE = frozenset({"zh", "sh", "ms"})


@lru_cache(maxsize=4096)
def parse_language(tag: str) -> Language | None:
    """Parse a tag; return None if it is not a language ('und', 'mul', 'lang1').

    >>> str(parse_language("ger")), str(parse_language("zh_hans_cn")), parse_language("und")
    ('de', 'zh-Hans-CN', None)
    """
    if len(tag) > MAX_TAG:
        return None
    try:
        language = Language.get(tag).prefer_macrolanguage()
    except (LanguageTagError, ValueError):
        return None
    base = language.language
    is_known = base is not None and base not in UNKNOWN and not "qaa" <= base <= "qtz"
    return language if is_known and language.is_valid() else None


def is_language(tag: str) -> bool:
    """Check whether a tag names a language."""
    return parse_language(tag) is not None


def same_language(tag: str, other: str) -> bool:
    """Check whether two tags name the same language, in any script and region.

    >>> same_language("zh-Hans", "cmn"), same_language("no", "nb"), same_language("sr", "hr")
    (True, True, False)
    """
    language, other_language = parse_language(tag), parse_language(other)
    if language is None or other_language is None:
        return False
    base, other_base = str(language.language), str(other_language.language)
    if base == other_base:
        return True
    members = {MACROLANGUAGES.get(base): other_base, MACROLANGUAGES.get(other_base): base}
    return any(macro == member and macro not in NOT_ONE_LANGUAGE for macro, member in members.items() if macro)


def languages_match(tag: str, other: str) -> bool:
    """Check whether two tags name the same language, and scripts that do not contradict each other.

    A region implies a script: 'zh-TW' and 'zh-Hans' do not match, 'zh' matches both.
    """
    if not same_language(tag, other):
        return False
    script, other_script = _script(tag), _script(other)
    return script is None or other_script is None or script == other_script


def rank_distance(tag: str, other: str) -> int:
    """Return a number that is smaller for the better of two matching tags; 0 for equal tags."""
    return 0 if parse_language(tag) == parse_language(other) else 1 + tag_distance(tag, other)


def _script(tag: str) -> str | None:
    """Return the script that a tag states, or that its region implies; None for a bare language."""
    language = parse_language(tag)
    assert language is not None, "checked by the caller"
    if language.script is None and language.territory is None:
        return None
    return str(language.maximize().script)
