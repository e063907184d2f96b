"""Write the corpus to a folder: tars, catalog, ground truth, and a marker that is written when it is complete."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from audiopipe.bench.corpus.media import find_ffmpeg
from audiopipe.bench.corpus.script import Script, make_video_ids, write_scripts
from audiopipe.bench.corpus.sources import LANGUAGES, Speech, fetch_speech, find_cache_folder
from audiopipe.bench.corpus.video import GroundTruth, make_video
from audiopipe.errors import CatalogError, ConfigError

__all__ = ["Corpus", "make_corpus"]

RECIPE = 2  # raise it when the same seed gives other bytes
MARKER = "corpus.json"
TOP_FILES = ("catalog.parquet", "truth.json", "SOURCES.txt")
UNFINISHED = ("PENDING", "PENDING", "PENDING", "FAILED", "FAILED")
CATALOG_SCHEMA = pa.schema(
    {
        "youtube_id": pa.string(),
        "language": pa.string(),
        "status": pa.string(),
        "r2_tar_key": pa.string(),
        "size_bytes": pa.int64(),
        "duration_s": pa.float64(),
    }
)


@dataclass(frozen=True)
class Corpus:
    """The files and the size of a corpus. `videos` and `hours` count the good videos, `bad` the others."""

    catalog: Path
    truth: Path
    videos: int
    bad: int
    hours: float
    source: str


@dataclass(frozen=True)
class _VideoFile:
    truth: GroundTruth
    key: str
    size_bytes: int | None


def make_corpus(
    directory: Path,
    *,
    seed: int = 0,
    videos: int = 30,
    languages: Sequence[str] = LANGUAGES,
    log: Callable[[str], None] = print,
    cache: Path | None = None,
) -> Corpus:
    """Make the demo corpus in `directory`, unless it is there already.

    Args:
        directory: receives `catalog.parquet`, `truth.json`, `SOURCES.txt` and `videos/<language>/<id>.tar`.
        seed: the same seed, speech and ffmpeg give the same bytes in every file.
        videos: number of good videos; the bad ones are added to them.
        languages: a subset of en, es, fr, it, ru.
        log: receives each line of progress.
        cache: folder of downloaded packages; default: $AUDIOPIPE_DEMO_CACHE, else `directory/cache`.

    Raises:
        ConfigError: `videos` or `languages` is invalid, or `directory` holds other files.
        CatalogError: the speech cannot be downloaded.
        MissingExtra: ffmpeg is not installed.
    """
    parameters = _check_parameters(seed, videos, languages)
    directory.mkdir(parents=True, exist_ok=True)
    if (existing := _read_finished(directory, parameters)) is not None:
        log(f"{directory} holds this corpus already: {_describe(existing)}; nothing to do")
        return existing
    find_ffmpeg()  # before the download, which takes longer than this check
    _clear(directory, parameters)
    started = time.monotonic()
    speech = fetch_speech(find_cache_folder(directory, cache), languages, log)
    scripts = write_scripts(speech.prompts, videos, seed)
    video_files = _make_all(directory, scripts)
    corpus = _finish(directory, parameters, video_files, speech, seed)
    log(f"made {directory} in {time.monotonic() - started:.1f} s: {_describe(corpus)}")
    return corpus


def _check_parameters(seed: int, videos: int, languages: Sequence[str]) -> dict[str, object]:
    if videos < 1 or seed < 0:
        raise ConfigError(f"videos={videos}, seed={seed}: a demo corpus needs videos >= 1 and seed >= 0")
    if len(set(languages)) != len(languages) or not set(languages) <= set(LANGUAGES) or not languages:
        raise ConfigError(f"languages={list(languages)}: choose from {', '.join(LANGUAGES)}, each once")
    return {"recipe": RECIPE, "seed": seed, "videos": videos, "languages": list(languages)}


def _read_finished(directory: Path, parameters: dict[str, object]) -> Corpus | None:
    """Return the corpus in the folder if its marker has these parameters and every file has its size."""
    try:
        marker = json.loads((directory / MARKER).read_text("utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if marker.get("parameters") != parameters or "corpus" not in marker or marker["files"] != _file_sizes(directory):
        return None
    return Corpus(directory / "catalog.parquet", directory / "truth.json", **marker["corpus"])


def _clear(directory: Path, parameters: dict[str, object]) -> None:
    """Remove an unfinished or different corpus from the folder, and never other files."""
    foreign = [path.name for path in directory.iterdir() if path.name not in ("cache", MARKER + ".part")]
    if foreign and not (directory / MARKER).is_file():
        raise ConfigError(
            f"{directory} holds {foreign[0]!r}, which is not a demo corpus: choose an empty or new folder"
        )
    shutil.rmtree(directory / "videos", ignore_errors=True)
    for path in directory.glob("*.part"):
        path.unlink()
    for name in TOP_FILES:
        (directory / name).unlink(missing_ok=True)
    _write(directory / MARKER, _to_json({"parameters": parameters}))


def _make_all(directory: Path, scripts: list[Script]) -> list[_VideoFile]:
    """Make all videos on every core, the longest first; return them in the order of `scripts`."""
    order = sorted(range(len(scripts)), key=lambda index: -sum(prompt.length_s for prompt in scripts[index].prompts))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        files = dict(zip(order, pool.map(lambda index: _make(directory, scripts[index]), order), strict=True))
    return [files[index] for index in range(len(scripts))]


def _make(directory: Path, script: Script) -> _VideoFile:
    key = f"videos/{script.language}/{script.id}.tar"
    data, truth = make_video(script)
    if data is not None:
        _write(directory / key, data)
    return _VideoFile(truth, key, None if data is None else len(data))


def _finish(
    directory: Path, parameters: dict[str, object], videos: list[_VideoFile], speech: Speech, seed: int
) -> Corpus:
    _write(directory / "truth.json", _to_json([asdict(video.truth) for video in videos]))
    _write_catalog(directory / "catalog.parquet", videos, seed)
    _write(directory / "SOURCES.txt", _describe_sources(speech))
    good = [video.truth for video in videos if video.truth.good]
    hours = round(sum(truth.duration_s for truth in good) / 3600, 3)
    corpus = {"videos": len(good), "bad": len(videos) - len(good), "hours": hours, "source": speech.source}
    _write(directory / MARKER, _to_json({"parameters": parameters, "corpus": corpus, "files": _file_sizes(directory)}))
    finished = _read_finished(directory, parameters)
    if finished is None:
        raise CatalogError(
            f"{directory} changed while the corpus was being made: run `audiopipe demo` again, in one process at a time"
        )
    return finished


def _write_catalog(path: Path, videos: list[_VideoFile], seed: int) -> None:
    rows = [*_completed_rows(videos), *_unfinished_rows(videos, seed)]
    shuffled = [rows[index] for index in np.random.default_rng([seed, 4]).permutation(len(rows))]
    temporary = path.with_name(path.name + ".part")
    pq.write_table(pa.Table.from_pylist(shuffled, CATALOG_SCHEMA), temporary)
    temporary.replace(path)


def _completed_rows(videos: list[_VideoFile]) -> Iterator[dict[str, object]]:
    """Yield the rows to process. One in four good videos lacks its duration, one in seven its size."""
    for number, video in enumerate(videos):
        yield {
            "youtube_id": video.truth.id,
            "language": video.truth.language,
            "status": "COMPLETED",
            "r2_tar_key": video.key,
            "size_bytes": None if video.truth.good and number % 7 == 6 else video.size_bytes,
            "duration_s": None if video.truth.good and number % 4 == 3 else video.truth.duration_s,
        }


def _unfinished_rows(videos: list[_VideoFile], seed: int) -> Iterator[dict[str, object]]:
    """Yield rows that a run must skip: their videos do not exist, and a pending one has no key yet."""
    ids = make_video_ids(len(UNFINISHED) + 2, seed + 1)[2:]
    for number, (video_id, status) in enumerate(zip(ids, UNFINISHED, strict=True)):
        language = videos[number % len(videos)].truth.language
        key = None if status == "PENDING" else f"videos/{language}/{video_id}.tar"
        yield {"youtube_id": video_id, "language": language, "status": status, "r2_tar_key": key}


def _describe_sources(speech: Speech) -> bytes:
    head = f"The speech in this folder is from {speech.source}; it was joined, mixed with noise and re-encoded.\n"
    head += "The text of a segment is the name of its recording in words, not a transcript.\n\n"
    return (head + "".join(f"{language}: {text}\n" for language, text in speech.licenses.items())).encode()


def _file_sizes(directory: Path) -> dict[str, int]:
    """Return the size of every file of the corpus, without the cache and the marker."""
    files = [
        path
        for path in [*(directory / name for name in TOP_FILES), *(directory / "videos").rglob("*")]
        if path.is_file()
    ]
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in sorted(files)}


def _describe(corpus: Corpus) -> str:
    return f"{corpus.videos} videos ({corpus.hours:.2f} h) and {corpus.bad} bad ones, speech from {corpus.source}"


def _to_json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _write(path: Path, data: bytes) -> None:
    """Write a file so that it appears under its name only when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    temporary.replace(path)
