"""Read a data folder of Kaldi: `wav.scp`, and where they exist `segments`, `text`, `utt2spk`, `utt2lang`, `reco2dur`.

    wav.scp   RECORDING FILE, or RECORDING COMMAND |     segments   UTTERANCE RECORDING START END
    text      UTTERANCE WORDS…                           utt2spk    UTTERANCE SPEAKER

Without `segments`, utterances are recordings. A command of `wav.scp` is never run: one that only decodes one file, as
`flac -c -d -s FILE |`, is read as that file, and any other is refused. Columns that can be kept are `utterance_id` and
those of further maps: `utt2NAME`, and `spk2NAME` by the speaker.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from audiopipe.catalog.files import MEDIA_SUFFIXES
from audiopipe.catalog.read_errors import READ_ERRORS, to_catalog_error
from audiopipe.catalog.segment_rows import Entry, JsonValue, Recording
from audiopipe.catalog.tables import open_text
from audiopipe.errors import CatalogError
from audiopipe.store.objects import open_filesystem

__all__ = ["WAV_SCP", "read_kaldi"]

WAV_SCP = "wav.scp"
OPEN_END = -1.0  # of Kaldi's segments: the end of the recording
KNOWN_MAPS = frozenset(("utt2spk", "utt2lang", "utt2dur", "utt2num_frames", "spk2utt", "utt2uniq"))
MAP_NAME = re.compile(r"(utt|spk)2([a-z][a-z0-9_]*)")
# Commands that write the decoded file to their output, and their options that change no time.
DECODERS: Mapping[str, frozenset[str]] = {
    "cat": frozenset(),
    "flac": frozenset(("-c", "-d", "-s", "-cd", "-dc", "-cds", "--stdout", "--decode", "--silent", "--totally-silent")),
    "ffmpeg": frozenset(
        (
            *("-nostdin", "-y", "-i", "-f", "wav", "-ar", "-ac", "-acodec", "-c:a", "pcm_s16le", "-", "-vn", "pipe:1"),
            *("-v", "-loglevel", "error", "quiet", "panic", "-hide_banner", "1", "8000", "16000", "44100", "48000"),
        )
    ),
}


@dataclass(frozen=True)
class _Utterance:
    utterance_id: str
    recording_id: str
    start_s: float
    end_s: float | None


def read_kaldi(folder: str) -> list[Recording]:
    """Read the recordings of a data folder, with their utterances as segments.

    Raises:
        CatalogError: a file cannot be read, or a line of it is wrong; the message names file and line.
    """
    places = {key: (number, value) for number, key, value in _read_pairs(folder, WAV_SCP)}
    recordings = {
        key: Recording(key, _location(folder, number, key, value), number) for key, (number, value) in places.items()
    }
    durations = _read_map(folder, "reco2dur")
    texts, speakers = _read_map(folder, "text"), _read_map(folder, "utt2spk")
    languages, extras = _read_map(folder, "utt2lang"), _read_extras(folder)
    has_segments = _exists(folder, "segments")
    utterances = _read_segments(folder) if has_segments else (_Utterance(key, key, 0.0, None) for key in recordings)
    for utterance in utterances:
        name = utterance.utterance_id
        recording = recordings.get(utterance.recording_id)
        if recording is None:
            raise CatalogError(
                f"catalog {folder}segments: {name} is of {utterance.recording_id}, which {WAV_SCP} lacks"
            )
        speaker = speakers.get(name)
        values: dict[str, JsonValue] = {"utterance_id": name}
        for (kind, column), mapped in extras.items():
            value = mapped.get(name if kind == "utt" else speaker or "")
            values |= {column: value} if value else {}
        if name in languages:
            recording.languages[languages[name]] += 1
        recording.entries.append(Entry(utterance.start_s, utterance.end_s, texts.get(name), speaker, values))
        recording.is_whole = not has_segments
    for key, duration in durations.items():
        if key in recordings:
            recordings[key].duration_s = _number(f"{folder}reco2dur", 0, duration)
    return list(recordings.values())


def _read_segments(folder: str) -> Iterator[_Utterance]:
    for number, name, rest in _read_pairs(folder, "segments"):
        parts = rest.split()
        if len(parts) not in (3, 4):  # a channel may follow
            raise CatalogError(f"catalog {folder}segments, line {number}: it is not UTTERANCE RECORDING START END")
        start_s, end_s = (_number(f"{folder}segments", number, part) for part in parts[1:3])
        yield _Utterance(name, parts[0], start_s, None if end_s == OPEN_END else end_s)


def _number(source: str, line: int, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise CatalogError(f"catalog {source}, line {line}: {text!r} is not a number of seconds") from None


def _read_pairs(folder: str, name: str) -> Iterator[tuple[int, str, str]]:
    """Yield the number of each line, its first word and the rest."""
    try:
        with open_text(folder + name) as file:
            for number, line in enumerate(file, 1):
                key, _, value = line.decode("utf-8").strip().replace("\t", " ").partition(" ")
                if key:
                    yield number, key, value.strip()
    except READ_ERRORS as error:
        remedy = "check the file and the access to it"
        raise to_catalog_error(folder + name, "read", error, remedy) from error


def _read_map(folder: str, name: str) -> dict[str, str]:
    if not _exists(folder, name):
        return {}
    return {key: value for _, key, value in _read_pairs(folder, name) if value}


def _read_extras(folder: str) -> dict[tuple[str, str], dict[str, str]]:
    """Read the further maps, by what they map and the name of the column."""
    fs, path = open_filesystem(folder)
    names = sorted(str(entry).rstrip("/").rpartition("/")[2] for entry in fs.ls(path, detail=False))
    matches = [(name, match) for name in names if name not in KNOWN_MAPS and (match := MAP_NAME.fullmatch(name))]
    return {(match[1], match[2]): _read_map(folder, name) for name, match in matches}


def _exists(folder: str, name: str) -> bool:
    fs, path = open_filesystem(folder + name)
    return bool(fs.exists(path))


def _location(folder: str, line: int, key: str, value: str) -> str:
    """Return the file of a line of `wav.scp`.

    Raises:
        CatalogError: it is an archive, or a command that does more than to decode one file.
    """
    where = f"catalog {folder}{WAV_SCP}, line {line} ({key})"
    if not value:
        raise CatalogError(f"{where}: it names no file")
    if not value.endswith("|"):
        if re.search(r"\.ark:\d+$", value):
            raise CatalogError(f"{where}: {value!r} is in an archive; extract it to a file, as with wav-copy")
        return value
    try:
        command, *arguments = shlex.split(value[:-1])
    except ValueError:
        command, arguments = "", []
    allowed = DECODERS.get(command.rpartition("/")[2])
    if allowed is not None:
        files = [item for item in arguments if item not in allowed]
        if len(files) == 1 and files[0].rpartition(".")[2].lower() in MEDIA_SUFFIXES:
            return files[0]
    raise CatalogError(
        f"{where}: the command {value!r} is not run; write its result to a file and name that, or remove the line"
    )
