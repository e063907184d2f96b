"""Choose among the files next to the audio of a video: the JSON with segment times, the metadata, the captions.

Names are those of yt-dlp: `ID.info.json`, `ID.live_chat.json`, `ID.en.vtt`, `ID.en-orig.vtt` (the recognized speech),
`ID.de-en.vtt` (translated from English). The notes of the video's row name the files that are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from audiopipe.errors import BadSegments
from audiopipe.languages import is_language
from audiopipe.media.caption_names import CaptionName, choose_captions, parse_caption_name
from audiopipe.media.json_files import JsonFile, JsonKind, classify_json, merge_info, unreadable_json
from audiopipe.types import CAPTION_FORMATS, CaptionFile, SegmentSource, Video, VideoInfo

__all__ = [
    "MAX_SIDECAR_BYTES",
    "SidecarRules",
    "SidecarTooLarge",
    "Sidecars",
    "choose_sidecars",
    "is_junk",
    "is_sidecar",
]

MAX_LISTED = 8  # languages in a note
MAX_JSON_FILES = 100
MAX_SIDECAR_BYTES = 32 << 20
MAX_READ_BYTES = 128 << 20  # of all files next to the audio
LIVE_CHAT = ".live_chat.json"


class SidecarTooLarge(BadSegments):
    """A file next to the audio is too large to be read."""

    def __init__(self, size: int) -> None:
        super().__init__(f"it has {size} bytes; the limit for metadata and captions is {MAX_SIDECAR_BYTES}")


@dataclass(frozen=True)
class SidecarRules:
    """The fields of `RunConfig` that decide which sidecars are used."""

    segments: str = "auto"
    caption_languages: Sequence[str] = ()

    def for_video(self, video: Video) -> SidecarRules:
        """Return the rules for a video: files next to the audio are not needed where the catalog has its segments."""
        has_times = video.segments is not None and (video.segments.startswith("[") or '"text"' in video.segments)
        return replace(self, segments="catalog") if has_times and self.segments == "auto" else self


@dataclass(frozen=True)
class Sidecars:
    """The chosen files next to the audio.

    Attributes:
        document: the JSON with segment times.
        notes: what was not used, and why.
    """

    document: bytes | None = None
    captions: CaptionFile | None = None
    info: VideoInfo = field(default_factory=VideoInfo)
    notes: tuple[str, ...] = ()


def is_junk(name: str) -> bool:
    """Check whether a file is hidden or was added by an operating system: `._name`, `.DS_Store`, `__MACOSX/name`."""
    *folders, base = name.split("/")
    return base.startswith(".") or "__MACOSX" in folders or "@eaDir" in folders


def is_sidecar(name: str) -> bool:
    """Check whether a file may hold segment times, captions or metadata."""
    return not is_junk(name) and (_is_json(name) or _caption_suffix(name) is not None)


def choose_sidecars(
    names: Sequence[str], read: Callable[[str], bytes], audio: str, language: str, rules: SidecarRules
) -> Sidecars:
    """Choose among the files next to the audio.

    Args:
        names: the files, in any order; those that are not sidecars are ignored.
        read: function that returns the bytes of a file.
        audio: name of the audio file.
        language: the language of the video in the catalog; 'und' if it is unknown.

    Raises:
        BadSegments: two JSON files have segments, or the files are too many or too large.
    """
    read = _bound_total(read)
    files, notes = _read_json_files(names, read)
    info = merge_info(files)
    transcript = _choose_transcript(files) if rules.segments in ("auto", "json") else None
    if transcript is not None:
        return Sidecars(transcript.data, None, info, tuple(notes))
    captions = None
    if rules.segments in ("auto", "captions"):
        # The catalog knows best; the metadata's language only replaces one that is unknown.
        spoken = [tag for tag in (language, info.language) if tag and is_language(tag)][:1]
        captions, note = _choose_captions(names, files, read, audio, spoken, language, rules, info)
        notes += [note] if note else []
    return Sidecars(None, captions, info, tuple(notes))


def _bound_total(read: Callable[[str], bytes]) -> Callable[[str], bytes]:
    """Return `read` with a limit to the bytes of all files together."""
    total = 0

    def bounded(name: str) -> bytes:
        nonlocal total
        if total > MAX_READ_BYTES:
            raise BadSegments(f"the files next to the audio have more than {MAX_READ_BYTES >> 20} MB; remove some")
        data = read(name)
        total += len(data)
        return data

    return bounded


def _read_json_files(names: Sequence[str], read: Callable[[str], bytes]) -> tuple[list[JsonFile], list[str]]:
    """Read all JSON files except live chats, which may have gigabytes; note the ignored ones."""
    files: list[JsonFile] = []
    json_names = [name for name in sorted(filter(_is_json, names)) if not is_junk(name)]
    live_chats = [name for name in json_names if name.lower().endswith(LIVE_CHAT)]
    notes = [f"ignored {_base(name)}: a live chat" for name in live_chats[:MAX_LISTED]]
    if len(json_names) > MAX_JSON_FILES:
        raise BadSegments(f"{len(json_names)} JSON files are next to the audio; the limit is {MAX_JSON_FILES}")
    for name in json_names:
        if name in live_chats:
            continue
        file = _read_json(name, read)
        files.append(file)
        if file.kind is JsonKind.OTHER:
            notes.append(f"ignored {_base(name)}: {file.reason}")
    damaged = [file for file in files if file.kind is JsonKind.DAMAGED]
    if any(file.kind is JsonKind.TRANSCRIPT for file in files):
        notes += [f"ignored {_base(file.name)}: {file.reason}" for file in damaged]
    return files, notes


def _read_json(name: str, read: Callable[[str], bytes]) -> JsonFile:
    """Read and classify a JSON file; one that is too large is not read."""
    try:
        data = read(name)
    except SidecarTooLarge as error:
        return unreadable_json(name, str(error))
    return classify_json(name, data)


def _choose_transcript(files: Sequence[JsonFile]) -> JsonFile | None:
    """Return the only JSON with segments, else one that cannot be read, which is reported when it is parsed.

    Raises:
        BadSegments: two have segments, or the only one that may have is too large.
    """
    transcripts = [file for file in files if file.kind is JsonKind.TRANSCRIPT]
    transcripts = [file for file in transcripts if file.has_times] or transcripts
    if len(transcripts) > 1:
        listed = " and ".join(_base(file.name) for file in transcripts[:3])
        raise BadSegments(f"{listed} both have segments; keep one of them, or set segments to 'captions' or 'voice'")
    damaged = [file for file in files if file.kind is JsonKind.DAMAGED]
    if damaged and not transcripts and not damaged[0].data:
        raise BadSegments(f"{_base(damaged[0].name)}: {damaged[0].reason}")
    return next(iter(transcripts or damaged), None)


def _choose_captions(
    names: Sequence[str],
    files: Sequence[JsonFile],
    read: Callable[[str], bytes],
    audio: str,
    spoken: Sequence[str],
    language: str,
    rules: SidecarRules,
    info: VideoInfo,
) -> tuple[CaptionFile | None, str | None]:
    """Return the captions to use, and a note if there are some and none is used, or translated ones are."""
    timed_text = {file.name: CAPTION_FORMATS[".json3"] for file in files if file.kind is JsonKind.TIMED_TEXT}
    timed_text |= {name: suffix for name in names if not is_junk(name) and (suffix := _caption_suffix(name))}
    parsed = (parse_caption_name(name, timed_text[name], audio) for name in sorted(timed_text))
    candidates = [caption.with_info(info) for caption in parsed if not caption.is_forced]
    if not candidates:
        return None, None
    chosen = choose_captions(candidates, list(rules.caption_languages) or spoken, read)
    if chosen is None:
        return None, _explain(candidates, list(rules.caption_languages) or spoken, language)
    note = f"captions: {_base(chosen.name)} is translated from {chosen.source!r}" if chosen.source else None
    return CaptionFile(chosen.format, read(chosen.name), chosen.automatic, _base(chosen.name)), note


def _explain(candidates: Sequence[CaptionName], wanted: Sequence[str], language: str) -> str:
    labels = sorted({caption.label or "no language" for caption in candidates})
    listed = ", ".join(labels[:MAX_LISTED]) + (f" and {len(labels) - MAX_LISTED} more" * (len(labels) > MAX_LISTED))
    if wanted:
        return f"captions: none in {' or '.join(map(repr, wanted))} among {listed}"
    return f"captions: not chosen among {listed}, as the language {language!r} is unknown; set caption_languages"


def _is_json(name: str) -> bool:
    return name.lower().endswith(".json")


def _caption_suffix(name: str) -> SegmentSource | None:
    return CAPTION_FORMATS.get("." + name.lower().rpartition(".")[2])


def _base(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name.rpartition("/")[2][-80:])
