"""The corpus in a folder: tars, catalogue, truth, and a marker that is written when all of it is there."""

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

from audiopipe.bench.corpus.script import Script, video_ids, write_scripts
from audiopipe.bench.corpus.sources import LANGUAGES, Speech, cache_folder, find_speech
from audiopipe.bench.corpus.video import GroundTruth, make_video
from audiopipe.errors import CatalogError, ConfigError

__all__ = ["Corpus", "make_corpus"]

RECIPE = 1  # raise it when the same seed gives other bytes
MARKER = "corpus.json"
TOPS = ("catalog.parquet", "truth.json", "SOURCES.txt")
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
    """Where a corpus is and how large. `videos` and `hours` count the good ones, `bad` the others."""

    catalog: Path
    truth: Path
    videos: int
    bad: int
    hours: float
    source: str


@dataclass(frozen=True)
class _Made:
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
    """Make the demo corpus in `directory`, or leave it alone if it is there.

    Args:
        directory: gets `catalog.parquet`, `truth.json`, `SOURCES.txt` and `videos/<language>/<id>.tar`.
        seed: the same seed, speech and ffmpeg give the same bytes in every file.
        videos: how many good ones; the bad ones come on top.
        languages: some of en, es, fr, it, ru.
        say: gets each line meant for people.
        cache: where fetched packages are; else $AUDIOPIPE_DEMO_CACHE, else `directory/cache`.

    Raises:
        ConfigError: `videos` or `languages` is impossible, or `directory` holds something else.
        CatalogError: there is no speech to be had.
    """
    asked = _asked(seed, videos, languages)
    directory.mkdir(parents=True, exist_ok=True)
    if (done := _finished(directory, asked)) is not None:
        log(f"{directory} holds this corpus already: {_sizes(done)}; nothing to do")
        return done
    _clear(directory, asked)
    began = time.monotonic()
    voices = find_speech(cache_folder(directory, cache), languages, log)
    scripts = write_scripts(voices.prompts, videos, seed)
    made = _make_all(directory, scripts)
    corpus = _finish(directory, asked, made, voices, seed)
    log(f"made {directory} in {time.monotonic() - began:.1f} s: {_sizes(corpus)}")
    return corpus


def _asked(seed: int, videos: int, languages: Sequence[str]) -> dict[str, object]:
    if videos < 1 or seed < 0:
        raise ConfigError(f"a demo corpus has videos >= 1 and seed >= 0, not videos={videos}, seed={seed}")
    if len(set(languages)) != len(languages) or not set(languages) <= set(LANGUAGES) or not languages:
        raise ConfigError(f"languages={list(languages)}: choose some of {', '.join(LANGUAGES)}, each once")
    return {"recipe": RECIPE, "seed": seed, "videos": videos, "languages": list(languages)}


def _finished(directory: Path, asked: dict[str, object]) -> Corpus | None:
    """The corpus there, if its marker says that it is what was asked and every file has its size."""
    try:
        marker = json.loads((directory / MARKER).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if marker.get("asked") != asked or "corpus" not in marker or marker["files"] != _files(directory):
        return None
    return Corpus(directory / "catalog.parquet", directory / "truth.json", **marker["corpus"])


def _clear(directory: Path, asked: dict[str, object]) -> None:
    """Make room for a corpus: remove an unfinished or another one of ours, and never anything else."""
    foreign = [path.name for path in directory.iterdir() if path.name not in ("cache", MARKER + ".part")]
    if foreign and not (directory / MARKER).is_file():
        raise ConfigError(f"{directory} holds {foreign[0]!r} and is no demo corpus: name an empty or a new folder")
    shutil.rmtree(directory / "videos", ignore_errors=True)
    for path in directory.glob("*.part"):
        path.unlink()
    for name in TOPS:
        (directory / name).unlink(missing_ok=True)
    _write(directory / MARKER, _json({"asked": asked}))


def _make_all(directory: Path, scripts: list[Script]) -> list[_Made]:
    """All videos, the longest first, on every core; the answer is in the order of `scripts`."""
    order = sorted(range(len(scripts)), key=lambda index: -sum(prompt.length_s for prompt in scripts[index].prompts))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = dict(zip(order, pool.map(lambda index: _make(directory, scripts[index]), order), strict=True))
    return [made[index] for index in range(len(scripts))]


def _make(directory: Path, script: Script) -> _Made:
    key = f"videos/{script.language}/{script.id}.tar"
    data, truth = make_video(script)
    if data is not None:
        _write(directory / key, data)
    return _Made(truth, key, None if data is None else len(data))


def _finish(directory: Path, asked: dict[str, object], made: list[_Made], voices: Speech, seed: int) -> Corpus:
    _write(directory / "truth.json", _json([asdict(one.truth) for one in made]))
    _write_catalog(directory / "catalog.parquet", made, seed)
    _write(directory / "SOURCES.txt", _sources(voices))
    good = [one.truth for one in made if one.truth.good]
    hours = round(sum(truth.duration_s for truth in good) / 3600, 3)
    corpus = {"videos": len(good), "bad": len(made) - len(good), "hours": hours, "source": voices.source}
    _write(directory / MARKER, _json({"asked": asked, "corpus": corpus, "files": _files(directory)}))
    finished = _finished(directory, asked)
    if finished is None:
        raise CatalogError(f"{directory} changed while the corpus was being made: make it again, one process at a time")
    return finished


def _write_catalog(path: Path, made: list[_Made], seed: int) -> None:
    rows = [*_completed(made), *_unfinished(made, seed)]
    shuffled = [rows[index] for index in np.random.default_rng([seed, 4]).permutation(len(rows))]
    temporary = path.with_name(path.name + ".part")
    pq.write_table(pa.Table.from_pylist(shuffled, CATALOG_SCHEMA), temporary)
    temporary.replace(path)


def _completed(made: list[_Made]) -> Iterator[dict[str, object]]:
    """The rows to be processed. One in four good ones does not know its duration, one in seven not its size."""
    for number, one in enumerate(made):
        yield {
            "youtube_id": one.truth.id,
            "language": one.truth.language,
            "status": "COMPLETED",
            "r2_tar_key": one.key,
            "size_bytes": None if one.truth.good and number % 7 == 6 else one.size_bytes,
            "duration_s": None if one.truth.good and number % 4 == 3 else one.truth.duration_s,
        }


def _unfinished(made: list[_Made], seed: int) -> Iterator[dict[str, object]]:
    """Rows that nobody should touch, of videos that are not there; a pending one has no key yet."""
    ids = video_ids(len(UNFINISHED) + 2, seed + 1)[2:]
    for number, (video_id, status) in enumerate(zip(ids, UNFINISHED, strict=True)):
        language = made[number % len(made)].truth.language
        key = None if status == "PENDING" else f"videos/{language}/{video_id}.tar"
        yield {"youtube_id": video_id, "language": language, "status": status, "r2_tar_key": key}


def _sources(voices: Speech) -> bytes:
    head = f"The speech in this folder is from {voices.source}; it was joined, mixed with noise and re-encoded.\n"
    head += "The text of a segment is the name of its recording in words, and no transcript.\n\n"
    return (head + "".join(f"{language}: {licence}\n" for language, licence in voices.licences.items())).encode()


def _files(directory: Path) -> dict[str, int]:
    """Every file of the corpus with its size; the cache and the marker are not of it."""
    files = [
        path for path in [*(directory / name for name in TOPS), *(directory / "videos").rglob("*")] if path.is_file()
    ]
    return {path.relative_to(directory).as_posix(): path.stat().st_size for path in sorted(files)}


def _sizes(corpus: Corpus) -> str:
    return f"{corpus.videos} videos ({corpus.hours:.2f} h) and {corpus.bad} bad ones, speech from {corpus.source}"


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _write(path: Path, data: bytes) -> None:
    """All of the file or nothing of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_bytes(data)
    temporary.replace(path)
