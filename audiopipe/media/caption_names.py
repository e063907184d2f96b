"""Choose a caption file by the language in its name.

In order: the wanted languages, manual before automatic, original before translated, the nearest region, the format with
the most exact times. Captions in another language than the wanted ones are never chosen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from audiopipe.languages import is_language, languages_match, rank_distance, same_language
from audiopipe.types import SegmentSource, VideoInfo

__all__ = ["CaptionName", "choose_captions", "parse_caption_name"]

# Languages that YouTube recognizes or that captions are often translated from: 'de-en' is German from English. Other
# second parts, and all in upper case, are regions: 'pt-br', 'zh-tw', 'en-GB'.
SOURCE_LANGUAGES = frozenset(
    {"ar", "bg", "bn", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fil", "fr", "gu", "he", "hi", "hr", "hu", "id"}
    | {"it", "iw", "ja", "kn", "ko", "ml", "mr", "ms", "nb", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sr", "sv"}
    | {"ta", "te", "th", "tr", "uk", "ur", "vi", "zh"}
)
REGIONS = frozenset({"es-ar", "es-sv", "en-bg", "pt-pt"})  # of these languages, in lower case
FORCED = frozenset({"forced", "foreign", "signs", "songs", "commentary"})  # only a part of what is spoken, or more
AUTOMATIC = frozenset({"auto", "automatic", "asr", "generated", "whisper"})
FLAGS = FORCED | AUTOMATIC | {"sdh", "cc", "default", "full", "manual", "captions", "subtitles", "subs", "transcript"}
WORD_TIMES = re.compile(rb"<\d\d:\d\d:\d\d\.\d{3}><c>")  # in YouTube's automatic captions only
MAX_LABEL = 80  # characters: two tags of 35 (RFC 5646), and YouTube's random id
FORMATS = tuple(SegmentSource)


@dataclass(frozen=True)
class CaptionName:
    """A caption file and what its name says.

    Attributes:
        label: the language in its name as written, None if there is none.
        language: the language of the text, None if it is unknown.
        source: the language that the text is translated from.
        is_original: the name says that the text is the recognized speech of the original.
        automatic: speech recognition made the text; None if that is unknown.
        is_forced: the file has only a part of the text, or a commentary.
        is_of_audio: the name is that of the audio but for the suffix.
    """

    name: str
    format: SegmentSource
    label: str | None = None
    language: str | None = None
    source: str | None = None
    is_original: bool = False
    automatic: bool | None = None
    is_forced: bool = False
    is_of_audio: bool = False

    def with_info(self, info: VideoInfo) -> CaptionName:
        """Add what yt-dlp's metadata says of captions with this label."""
        if self.automatic is not None or self.label is None:
            return self
        if self.label in info.manual_captions:
            return replace(self, automatic=False)
        return replace(self, automatic=True) if self.label in info.automatic_captions else self


def parse_caption_name(name: str, text_format: SegmentSource, audio: str) -> CaptionName:
    """Find the language in the name of a caption file: the part between the name of the audio and the suffix."""
    stem, audio_stem = _stem(name), _stem(audio)
    rest, follows_audio = stem, False
    if stem == audio_stem or (stem.startswith(audio_stem) and not stem[len(audio_stem)].isalnum()):
        rest, follows_audio = stem[len(audio_stem) :], True
    parts = [part for part in re.split(r"[._ \[\]()]+", rest.strip("-")) if part]
    flags = set()
    while parts and parts[-1].lower() in FLAGS:
        flags.add(parts.pop().lower())
    parsed = CaptionName(
        name,
        text_format,
        automatic=True if flags & AUTOMATIC else False if "manual" in flags else None,
        is_forced=bool(flags & FORCED),
        is_of_audio=follows_audio and not parts,
    )
    # A region or a script after '_': 'v.zh_Hans.vtt', 'v.pt_BR.vtt'.
    joined = ["-".join(parts[-2:]), *parts[-1:]] if len(parts) > 1 else parts[-1:]
    return next((labeled for label in joined if (labeled := _add_label(parsed, label.strip("-")))), parsed)


def choose_captions(
    candidates: Sequence[CaptionName], wanted: Sequence[str], read: Callable[[str], bytes]
) -> CaptionName | None:
    """Choose the captions in the first of the wanted languages that there are; None if there are none.

    Without a wanted language: the only one that there is, or the original one, if that is certain.

    Args:
        read: function that returns the bytes of a file, to see whether it has the word times of automatic captions.
    """
    languages = list(wanted) or list(_certain_language(candidates))
    if not languages:
        return None
    matching = [
        (position, caption)
        for caption in candidates
        for position, language in enumerate(languages)
        if caption.language is None or languages_match(language, caption.language) or caption.label == language
    ]
    if len(matching) > 1:
        matching = [(position, _with_word_times(caption, read)) for position, caption in matching]
    best = min(matching, key=lambda match: _rank(match[1], match[0], languages[match[0]]), default=None)
    if best is None or _is_ambiguous(best[1], candidates):
        return None
    # What the contents show is for the parser to find out.
    return next(caption for caption in candidates if caption.name == best[1].name)


def _certain_language(candidates: Sequence[CaptionName]) -> Iterator[str]:
    """Yield the language of the original text, if the names say it, else the only language that there is."""
    labels = [caption.language for caption in candidates if caption.language and not caption.source]
    originals = [caption.language for caption in candidates if caption.language and caption.is_original]
    originals = originals or [caption.source for caption in candidates if caption.source]
    for tags in (originals, labels):
        if tags and all(same_language(tags[0], tag) for tag in tags):
            is_complete = tags is originals or all(caption.language for caption in candidates)
            if is_complete:
                yield min(tags, key=len)
                return
    if all(caption.language is None for caption in candidates):
        yield "und"


def _rank(caption: CaptionName, position: int, language: str) -> tuple[object, ...]:
    is_labeled = caption.language is not None
    return (
        caption.source is not None and not same_language(caption.source, caption.language or ""),
        not is_labeled,
        position,
        bool(caption.automatic),
        not caption.is_original,
        rank_distance(language, caption.language) if is_labeled and is_language(language) else 0,  # type: ignore[arg-type]
        FORMATS.index(caption.format),
        not caption.is_of_audio,
        caption.name,
    )


def _is_ambiguous(chosen: CaptionName, candidates: Sequence[CaptionName]) -> bool:
    """Check whether a file without a language is one of several whose names say no more about them."""
    others = [other for other in candidates if other.language is None and other.format is chosen.format]
    return chosen.language is None and not chosen.is_of_audio and len(others) > 1


def _with_word_times(caption: CaptionName, read: Callable[[str], bytes]) -> CaptionName:
    is_unknown = caption.automatic is None and caption.format is SegmentSource.VTT
    return replace(caption, automatic=bool(WORD_TIMES.search(read(caption.name)))) if is_unknown else caption


def _add_label(parsed: CaptionName, label: str) -> CaptionName | None:
    """Add the language that a label means; None if it means none."""
    if len(label) > MAX_LABEL:
        return None
    original = re.fullmatch(r"(.+)-orig", label, re.IGNORECASE)
    if original and (language := _language_of(original[1])):
        return replace(parsed, label=label, language=language, is_original=True, automatic=True)
    for hyphen in re.finditer("-", label):
        target, source = label[: hyphen.start()], label[hyphen.end() :]
        is_source = source.split("-")[0] in SOURCE_LANGUAGES and label not in REGIONS
        if is_source and is_language(target) and (source_language := _language_of(source)):
            is_same = same_language(target, source_language)
            return replace(parsed, label=label, language=target, source=None if is_same else source_language)
    language = _language_of(label)
    return replace(parsed, label=label, language=language) if language else None


def _language_of(label: str) -> str | None:
    """Return the longest beginning of a label that is a language: YouTube adds a random id for named captions."""
    parts = label.split("-")
    beginnings = ("-".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((tag for tag in beginnings if is_language(tag)), None)


def _stem(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[0]
