"""Separate the words of a caption from its markup: tags, entities, speakers, marks of music and other sounds.

Every pattern takes linear time on any text: a repeat never overlaps with the one after it.
"""

from __future__ import annotations

import html
import re
from typing import NamedTuple

__all__ = ["CaptionText", "normalize_text", "parse_markup", "raw_line", "strip_tags"]

CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff\ufeff\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069]+")
SURROGATES = re.compile(r"[\x00\ud800-\udfff\ufeff]+")  # which UTF-8 or a database cannot store

TAG = re.compile(r"<(/?[A-Za-z][^<>]*|[\d:.]+)>|\{\\[^{}]*\}")  # <i>, </c>, <00:01.000> and SubRip's {\an8}
HTML_TAG = re.compile(r"</?(?:b|i|u|s|c|v|br|em|font|lang|p|ruby|rt|span|strong)(?:[ ./][^<>]*)?>", re.IGNORECASE)
ENTITY_DIGITS = re.compile(r"&#[xX]?[0-9A-Fa-f]{9}")  # no character has so many; int() refuses thousands of digits

SPEAKER_CHANGE = re.compile(r"(?:(?<=\s)|^)(?:>>+|»)(?:\s|$)|^>>+")
LINE_DASH = re.compile(r"^[-\u2010-\u2015]\s")
BARE_DASH = re.compile(r"^[-\u2010-\u2015](?=[^\W\d])")  # "-Yes." is a speaker's only where each line has one
# JOHN: and DR. SMITH 2: capital letters alone, at most three words.
SPEAKER_LABEL = re.compile(r"([^\W\d_][\w.'’-]{1,24}(?: [\w.'’-]{1,24}){0,2}):\s")

SQUARE = re.compile(r"[\[【［]([^\[\]【】［］]{0,80})[\]】］]")
ROUND = re.compile(r"[(（]([^()（）]{1,80})[)）]")
STARRED = re.compile(r"\*([^*\n]{1,40})\*")
NOTES = re.compile(r"[\u2669-\u266c]+|\U0001f3b5|\U0001f3b6")
MARK = re.compile(r"[\[(*:>»\u2669-\u266c\U0001f3b5\U0001f3b6【［（\u2010-\u2015-]")
# Text without any of these characters, which is most, has only words.
SPECIAL = re.compile(r"[<{&\[(*:>\u00bb\u2669-\u266c\U0001f3b5\U0001f3b6\u3010\uff3b\uff08\u2010-\u2015-]")
# A sound in round brackets within a line of words; a line of nothing else needs no list.
# fmt: off
SOUNDS = frozenset(
    [
        "music", "applause", "laughter", "laughs", "laughing", "laugh", "cheering", "cheers", "crowd", "clapping",
        "coughs", "coughing", "sighs", "sigh", "gasps", "screaming", "screams", "crying", "sobbing", "silence",
        "inaudible", "noise", "beep", "beeping", "whistling", "singing", "humming", "musik", "applaus", "lachen",
        "gelächter", "musique", "applaudissements", "rires", "música", "aplausos", "risas", "risos", "musica",
        "applausi", "музыка", "аплодисменты", "смех", "音楽", "拍手", "笑", "笑い", "掌声", "音乐", "笑声",
        "박수", "음악", "웃음",
    ]
)
# fmt: on


class CaptionText(NamedTuple):
    """The parts of a caption's text. `text` is None where a caption has only marks of sounds."""

    text: str | None
    speaker: str | None
    sound_event: bool


class _LineText(NamedTuple):
    """The parts of one line. `is_turn` says that a speaker starts in it."""

    plain_text: str
    speaker: str | None
    is_turn: bool
    sound_event: bool


def normalize_text(text: str) -> str | None:
    """Reduce text to one line that UTF-8 can encode; None if nothing is left."""
    if not text.isprintable():  # most text is, and then has no controls
        text = CONTROLS.sub(" ", text)
    return " ".join(text.split()) or None


def raw_line(text: str) -> str:
    """Return text as it is, but for characters that UTF-8 or a database cannot store."""
    return SURROGATES.sub("", text)


def strip_tags(markup: str) -> str:
    """Remove the tags of captions and decode entities; `&lt;i&gt;` stays as the text `<i>`.

    Raises:
        ValueError: an entity has more digits than any character.
    """
    return _unescape(TAG.sub("", markup) if "<" in markup or "{" in markup else markup)


def parse_markup(markup: str, has_tags: bool = True) -> CaptionText:
    """Separate the words of a caption, of one or more lines, from speaker and sounds.

    Args:
        markup: lines as in the file.
        has_tags: whether every tag is markup, as in captions; otherwise only HTML's tags are, as text in JSON may have
            other words in angle brackets.
    """
    if SPECIAL.search(markup) is None:
        return CaptionText(normalize_text(markup), None, False)
    plain = strip_tags(markup) if has_tags else _unescape(HTML_TAG.sub(" ", markup))
    source = [line for line in (normalize_text(line) for line in plain.split("\n")) if line]
    each_has_a_dash = len(source) > 1 and all(BARE_DASH.match(line) or LINE_DASH.match(line) for line in source)
    lines = [_parse_line(line, each_has_a_dash) for line in source]
    speakers: set[str | None] = {normalize_text(_unescape(voice)) for voice in _voices(markup)} if has_tags else set()
    is_first = True
    for line in lines:
        if line.plain_text and (is_first or line.is_turn):  # a turn without a name is another speaker's
            speakers |= {line.speaker} if line.speaker or not is_first or not speakers else set()
            is_first = False
    speaker = speakers.pop() if len(speakers) == 1 else None
    return CaptionText(
        normalize_text(" ".join(line.plain_text for line in lines)), speaker, any(line.sound_event for line in lines)
    )


def _unescape(text: str) -> str:
    if "&" not in text:
        return text
    if ENTITY_DIGITS.search(text):
        raise ValueError("an entity '&#…' has more digits than any character")
    return html.unescape(text)


def _voices(markup: str) -> list[str]:
    """Return the names in voice tags: <v Name>, <v.loud Name>."""
    if "<v" not in markup:
        return []
    tags = (match[1] or "" for match in TAG.finditer(markup))
    heads = (tag.split(None, 1) for tag in tags if tag[:1] == "v")
    return [head[1] for head in heads if len(head) == 2 and (head[0] == "v" or head[0].startswith("v."))]


def _remove_sounds(line: str) -> tuple[str, bool]:
    """Remove marks of music and sounds from a line, and say whether there were any."""
    plain_text = NOTES.sub(" ", line)
    plain_text = SQUARE.sub(lambda match: " " if _is_sound(match[1]) else match[0], plain_text)
    plain_text = ROUND.sub(lambda match: " " if _is_named_sound(match[1]) else match[0], plain_text)
    plain_text = STARRED.sub(lambda match: " " if _is_named_sound(match[1]) else match[0], plain_text)
    alone = plain_text.strip(" -–—>")
    if ROUND.fullmatch(alone) or STARRED.fullmatch(alone):
        plain_text = ""
    if plain_text == line:
        return line, False
    return plain_text.strip(" "), True


def _is_sound(inside: str) -> bool:
    """Check whether text in square brackets is a mark: it has a letter. `[ __ ]` stands for a word that was spoken."""
    return any(character.isalpha() for character in inside)


def _is_named_sound(inside: str) -> bool:
    plain_text = inside.casefold().split()
    return len(plain_text) <= 4 and not SOUNDS.isdisjoint(plain_text)


def _parse_line(line: str, each_has_a_dash: bool) -> _LineText:
    """Remove marks of sounds, `>> `, `- ` and `NAME: ` from a line."""
    line, sound_event = _remove_sounds(line)
    changes = len(SPEAKER_CHANGE.findall(line))
    plain_text = SPEAKER_CHANGE.sub(" ", line).strip()
    undashed = LINE_DASH.sub("", plain_text)
    if each_has_a_dash:
        undashed = BARE_DASH.sub("", undashed)
    is_turn, plain_text = bool(changes) or undashed != plain_text, undashed
    match = SPEAKER_LABEL.match(plain_text)
    if match is None or changes > 1:
        return _LineText(plain_text, None, is_turn, sound_event)
    label, spoken = match[1], plain_text[match.end() :]
    # In text of capitals alone "THE RULE IS: WAIT" has no speaker; after ">>" even "John: " has one.
    is_name = label.isupper() and (bool(changes) or any(character.islower() for character in spoken))
    if not is_name and not (changes and label.istitle()):
        return _LineText(plain_text, None, is_turn, sound_event)
    return _LineText(spoken, label, True, sound_event)
