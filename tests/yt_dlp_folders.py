"""Make a folder of 50 videos as yt-dlp leaves them, in six languages, with what must come out of each.

Half of the videos are tars, half are files in a folder; the text of a cue says which second it is spoken in.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from factories import media_file, tar_file, tones

from audiopipe.bench.corpus.media import find_ffmpeg

SECONDS = 7.0
TEXTS = {
    "de": ("der Kessel ist an", "wir warten auf Tee", "es gibt keine Milch"),
    "en": ("the kettle is on", "we wait for tea", "there is no milk"),
    "es": ("la tetera hierve", "esperamos el té", "¿no hay leche?"),
    "fr": ("l'eau bout déjà", "on attend le thé", "il n'y a pas de lait"),
    "ja": ("やかんは熱い", "お茶を待つ", "牛乳がない"),
    "pt-BR": ("a chaleira está ligada", "esperamos o chá", "não há leite"),
}
# Names as the usual output templates make them; `#` is the id.
NAMES = (
    "#",
    "Title [#]",
    "Title.with.dots v1.5 [#]",
    "A ｜ B： “quoted” [#]",
    "20240229 - channel - Title-#",
    "📺 Émission №1 [#]",
    "日本語 タイトル [#]",
    "Title (Official Video) (4K) [#]",
    "-dash_#",
)
AUDIO = {
    "webm": ["-c:a", "libopus"],
    "m4a": ["-c:a", "aac"],
    "mp3": ["-c:a", "libmp3lame"],
    "opus": ["-c:a", "libopus"],
    "mp4": ["-c:a", "aac"],
    "ts": ["-c:a", "aac", "-f", "mpegts"],
    "mkv": ["-c:a", "flac"],
}


@dataclass
class Expected:
    """The expected row of a video and its segments. `note` is a part of the row's notes."""

    captions: str | None = None
    texts: Sequence[str | None] = ()
    status: str = "done"
    error: str | None = None
    track: str = "1 of 1"
    title: str | None = None
    note: str | None = None


@dataclass
class Folder:
    """A video: its files by what follows the stem, its audio by the name in `AUDIO`, and the expected result."""

    files: dict[str, bytes]
    expected: Expected
    audio: str = "webm"
    tracks: Sequence[str] = field(default_factory=tuple)


Shape = Callable[[str, str], Folder]


def stamp(seconds: float, comma: bool = False) -> str:
    text = f"00:00:{seconds:06.3f}"
    return text.replace(".", ",") if comma else text


def manual(language: str) -> bytes:
    cues = [f"{stamp(2 * n + 0.2)} --> {stamp(2 * n + 1.8)}\n{text}\n" for n, text in enumerate(TEXTS[language])]
    return f"WEBVTT\nKind: captions\nLanguage: {language}\n\n".encode() + "\n".join(cues).encode()


def rolling(language: str) -> bytes:
    """Make automatic captions: the line before above the new one, word times, and cues of 10 ms."""
    cues, before = [], " "
    for number, text in enumerate(TEXTS[language]):
        start, words = 2.0 * number + 0.2, text.split() if " " in text else list(text)
        blank = " " if " " in text else ""
        times = [start + 1.6 * position / len(words) for position in range(len(words))]
        timed = words[0] + "".join(
            f"<{stamp(time)}><c>{blank}{word}</c>" for time, word in zip(times[1:], words[1:], strict=True)
        )
        cues.append(f"{stamp(start)} --> {stamp(start + 1.99)} align:start position:0%\n{before}\n{timed}\n")
        cues.append(f"{stamp(start + 1.99)} --> {stamp(start + 2.0)} align:start position:0%\n{text}\n \n")
        before = text
    return f"WEBVTT\nKind: captions\nLanguage: {language}\n\n".encode() + "\n".join(cues).encode()


def rolling_srt(language: str) -> bytes:
    """Make what a conversion to SubRip leaves of automatic captions: each line two or three times."""
    texts, cues = TEXTS[language], []
    for number, text in enumerate(texts):
        start, above = 2.0 * number + 0.2, f"{texts[number - 1]}\n" if number else ""
        cues.append(f"{stamp(start, True)} --> {stamp(start + 1.99, True)}\n{above}{text}\n")
        cues.append(f"{stamp(start + 1.99, True)} --> {stamp(start + 2.0, True)}\n{text}\n")
    return "\n".join(f"{number}\n{cue}" for number, cue in enumerate(cues, 1)).encode()


def json3(language: str) -> bytes:
    events = [
        {"tStartMs": 2000 * n + 200, "dDurationMs": 3500, "segs": [{"utf8": text, "tOffsetMs": 0}]}
        for n, text in enumerate(TEXTS[language])
    ]
    return json.dumps({"wireMagic": "pb3", "events": [{"tStartMs": 0, "dDurationMs": 7000, "id": 1}, *events]}).encode()


def srv3(language: str) -> bytes:
    lines = "".join(f'<p t="{2000 * n + 200}" d="1600">{text}</p>' for n, text in enumerate(TEXTS[language]))
    return f'<?xml version="1.0" encoding="utf-8" ?><timedtext format="3"><body>{lines}</body></timedtext>'.encode()


def ttml(language: str) -> bytes:
    lines = "".join(
        f'<p begin="{stamp(2 * n + 0.2)}" end="{stamp(2 * n + 1.8)}">{text}</p>'
        for n, text in enumerate(TEXTS[language])
    )
    head = f'<tt xmlns="http://www.w3.org/ns/ttml" xml:lang="{language}"><body><div>'
    return f'<?xml version="1.0" encoding="utf-8"?>{head}{lines}</div></body></tt>'.encode()


def whisper(language: str) -> bytes:
    entries = [
        {"id": n, "start": 2 * n + 0.2, "end": 2 * n + 1.8, "text": f" {text}", "tokens": [1, 2], "avg_logprob": -0.2}
        for n, text in enumerate(TEXTS[language])
    ]
    return json.dumps({"text": " ".join(TEXTS[language]), "segments": entries, "language": language[:2]}).encode()


def info(language: str, title: str, **fields: object) -> bytes:
    body = {"id": "x", "title": title, "uploader": "Kanal", "upload_date": "20240229", "language": language, **fields}
    return json.dumps({**body, "formats": [{"format_id": "251"}], "_type": "video"}).encode()


def other_than(language: str) -> str:
    return "fr" if language != "fr" else "de"


def manual_in_two_languages(language: str, name: str) -> Folder:
    other = other_than(language)
    files = {f".{other}.vtt": manual(other), f".{language}.vtt": manual(language)}
    return Folder(files, Expected(f"{name}.{language}.vtt", TEXTS[language]))


def automatic_with_original(language: str, name: str) -> Folder:
    """Make automatic captions: recognized, and translated into other languages."""
    other = other_than(language)
    files = {f".{language}-orig.vtt": rolling(language), f".{other}-{language}.vtt": rolling(other)}
    expected = Expected(f"{name}.{language}-orig.vtt", TEXTS[language])
    return Folder(files, expected, "m4a")


def manual_before_automatic(language: str, name: str) -> Folder:
    files = {f".{language}-orig.vtt": rolling(language), f".{language}.vtt": manual(language)}
    return Folder(files, Expected(f"{name}.{language}.vtt", TEXTS[language]), "mp3")


def translated_only(language: str, name: str) -> Folder:
    source = "en" if language != "en" else "de"
    expected = Expected(f"{name}.{language}-{source}.vtt", TEXTS[language], note=f"is translated from {source!r}")
    return Folder({f".{language}-{source}.vtt": manual(language)}, expected, "opus")


def captions_of_others(language: str, name: str) -> Folder:
    other = other_than(language)
    expected = Expected(None, (None,), note=f"captions: none in {language!r} among {other}")
    return Folder({f".{other}.vtt": manual(other)}, expected, "mp4")


def converted_to_srt(language: str, name: str) -> Folder:
    return Folder(
        {f".{language}.srt": rolling_srt(language)}, Expected(f"{name}.{language}.srt", TEXTS[language]), "ts"
    )


def youtube_formats(language: str, name: str) -> Folder:
    suffix, make = {"de": ("json3", json3), "en": ("srv3", srv3), "fr": ("ttml", ttml)}.get(language, ("json3", json3))
    return Folder({f".{language}.{suffix}": make(language)}, Expected(f"{name}.{language}.{suffix}", TEXTS[language]))


def everything_next_to_it(language: str, name: str) -> Folder:
    """Make the files that yt-dlp can write."""
    files = {
        ".info.json": info(language, "Ein Titel", subtitles={language: [{}]}, chapters=[{"title": "a"}]),
        ".live_chat.json": b'{"replayChatItemAction": {}}\n{"replayChatItemAction": {}}\n',
        ".description": b"text with 00:00 chapters",
        ".webp": b"RIFF\0\0\0\0WEBP",
        ".jpg": b"\xff\xd8\xff",
        ".annotations.xml": b"<document/>",
        f".{language}.vtt": manual(language),
    }
    expected = Expected(
        f"{name}.{language}.vtt", TEXTS[language], title="Ein Titel", note="live_chat.json: a live chat"
    )
    return Folder(files, expected)


def two_tracks(language: str, name: str) -> Folder:
    """Make a dubbed video, whose original language is the second track."""
    expected = Expected(f"{name}.{language}.vtt", TEXTS[language], track="2 of 3")
    tracks = (other_than(language), language, language)
    return Folder({f".{language}.vtt": manual(language)}, expected, "mkv", tracks)


def transcript_of_whisper(language: str, name: str) -> Folder:
    other = other_than(language)
    files = {".json": whisper(language), ".info.json": info(language, "T"), f".{other}.vtt": manual(other)}
    return Folder(files, Expected(None, TEXTS[language], title="T"))


def two_transcripts(language: str, name: str) -> Folder:
    files = {".json": whisper(language), ".whisper.json": whisper(language)}
    return Folder(files, Expected(status="failed", error="BadSegments"))


def no_sidecar(language: str, name: str) -> Folder:
    return Folder({}, Expected(None, (None,)), "m4a")


SHAPES: Sequence[Shape] = (
    *(manual_in_two_languages, automatic_with_original, manual_before_automatic, translated_only),
    *(captions_of_others, converted_to_srt, youtube_formats, everything_next_to_it, two_tracks),
    *(transcript_of_whisper, two_transcripts, no_sidecar),
)


def make_audio(folder: Path) -> dict[str, bytes]:
    """Encode the same tones in each format."""
    encoded = {}
    for name, options in AUDIO.items():
        encoded[name] = media_file(folder / f"audio.{name}", tones(SECONDS, 48_000, 1), 48_000, *options).read_bytes()
    return encoded


def add_tracks(folder: Path, languages: Sequence[str]) -> bytes:
    """Make a file with one track for each language; the last one is a commentary."""
    path, source = folder / "tracks.mkv", folder / "audio.mkv"
    options: list[str] = []
    for number, language in enumerate(languages):
        options += ["-map", "0:a", f"-metadata:s:a:{number}", f"language={language}"]
    options += [f"-metadata:s:a:{len(languages) - 1}", "title=Director's commentary", "-c", "copy"]
    command = [find_ffmpeg(), "-v", "error", "-y", "-i", str(source), *options, str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path.read_bytes()


def make_catalog(folder: Path, scratch: Path, count: int = 50) -> dict[str, Expected]:
    """Make the videos below `folder`; return what must come out, by video id."""
    audio, expected = make_audio(scratch), {}
    languages = list(TEXTS)
    for number in range(count):
        shape, language = SHAPES[number % len(SHAPES)], languages[(number + number // len(SHAPES)) % len(languages)]
        name = NAMES[number % len(NAMES)].replace("#", f"dQw4w9WgX{number:02d}")
        video = shape(language, name)
        data = add_tracks(scratch, video.tracks) if video.tracks else audio[video.audio]
        suffix = "mp4" if video.audio == "ts" else video.audio  # as yt-dlp names an HLS download
        files = {f"{name}{ending}": body for ending, body in video.files.items()} | {f"{name}.{suffix}": data}
        files |= {f"._{name}": b"\0\5\x16\7" + bytes(60) for name in files} if number % 3 == 0 else {}
        (folder / language).mkdir(parents=True, exist_ok=True)
        if number % 2:
            tar_file(folder / language / f"{name}.tar", files)
        else:
            for file, body in files.items():
                (folder / language / file).write_bytes(body)
        expected[f"{language}/{name}"] = video.expected
    return expected
