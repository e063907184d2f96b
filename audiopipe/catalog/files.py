"""Make raw rows of a catalog from a folder or glob of media files, and list the sizes of objects.

The rules for rows are in `validate.py`. Every error of reading is raised as a `CatalogError` that names the address.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePosixPath

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from audiopipe.catalog.local_files import FileInfo, list_local_files
from audiopipe.catalog.read_errors import READ_ERRORS, first_line, to_catalog_error
from audiopipe.errors import CatalogError, StoreError
from audiopipe.redaction import has_secret, redact
from audiopipe.store.objects import open_filesystem
from audiopipe.types import AUDIO_SUFFIXES, CAPTION_FORMATS

__all__ = ["FOLDER", "MEDIA_SUFFIXES", "UNDETERMINED", "language_of_path", "list_sizes", "read_folder", "strip_suffix"]

MEDIA_SUFFIXES = frozenset(("tar", *(suffix[1:] for suffix in AUDIO_SUFFIXES)))
# Suffixes of audio and video that are not read: a folder's files of these are named in a warning.
UNREAD_SUFFIXES = {
    *("3g2", "3gp", "ac3", "aif", "aifc", "aiff", "amr", "ape", "asf", "au", "avi", "caf", "dts", "f4v", "flv", "m2ts"),
    *("m4v", "mov", "mp2", "mpeg", "mpg", "mts", "ogv", "qt", "ra", "rm", "snd", "sph", "spx", "ts", "tta", "vob"),
    *("voc", "w64", "wma", "wmv", "wv"),
}
SIDECAR_SUFFIXES = frozenset({".json", *CAPTION_FORMATS})

# The name of a folder that is a language: two or three letters, optionally a script and a region (zh-Hant-TW).
LANGUAGE_TAG = re.compile(r"[a-z]{2,3}(?:[-_][A-Za-z]{4})?(?:[-_](?:[A-Za-z]{2}|\d{3}))?")
NOT_LANGUAGES = MEDIA_SUFFIXES | {
    *("all", "avi", "bak", "cut", "dev", "doc", "mov", "new", "old", "out", "raw", "rec", "set", "sub", "tmp"),
    *("val", "vid", "web"),
}
UNDETERMINED = "und"  # the code of ISO 639 for a language that is not known
FOLDER = "folder"  # of the config's language_from: the first folder of a path, whatever its name

MAX_FOLDER_LISTINGS = 256  # above, one recursive listing of the common parent costs less than one of each folder

LOG = logging.getLogger(__name__)


def read_folder(url: str, language_from: str | None = None) -> pa.Table:
    """Make a row for each tar or audio file below a folder, of a glob, or at the address itself.

    The id is the path of the file without its suffix, relative to the folder or to that before the first wildcard. The
    language is that of `language_of_path`. The sidecars of an audio file are the JSON and captions in its folder whose
    names begin with its stem and a dot.

    Args:
        language_from: as in the config.
    """
    try:
        fs, path = open_filesystem(url)
        base = path.rstrip("/")
        listed = list(_list_files(fs, base))
        files = sorted(file for file in listed if _suffix(file.path) in MEDIA_SUFFIXES)
        is_folder = fs.isdir(base)
        sidecars = find_sidecars(files, [file.path for file in listed] if is_folder else _list_siblings(fs, files))
    except READ_ERRORS as error:
        raise to_catalog_error(url, "listed", error, "check the address") from error
    if not files:
        raise CatalogError(
            f"catalog {url}: there is no tar or audio file ({', '.join(sorted(MEDIA_SUFFIXES))}); give a folder or a "
            "glob of such files, or a table that ends in .parquet, .csv, .tsv or .jsonl"
        )
    _warn_of_unread(url, listed)
    is_local = isinstance(fs, LocalFileSystem)
    addresses = [file.path if is_local else fs.unstrip_protocol(file.path) for file in files]
    root = base if is_folder else re.split(r"[*?\[]", base, maxsplit=1)[0].rpartition("/")[0]
    names = [file.path.removeprefix(root).lstrip("/") for file in files]
    languages = [language_of_path(name, language_from) for name in names]
    if not is_folder and language_from is None:  # the folder of a language may be before the wildcards
        parents = [f"{PurePosixPath(file.path).parent.name}/" for file in files]
        languages = [
            language_of_path(parent) if language == UNDETERMINED else language
            for language, parent in zip(languages, parents, strict=True)
        ]
    return pa.table(
        {
            "youtube_id": pa.array([strip_suffix(name) for name in names], pa.string()),
            "language": pa.array(languages, pa.string()),
            "r2_tar_key": pa.array(addresses, pa.string()),
            "size_bytes": pa.array([file.size for file in files], pa.int64()),
            "sidecars": pa.array([sidecars.get(file.path) for file in files], pa.list_(pa.string())),
        }
    )


def _warn_of_unread(url: str, listed: Iterable[FileInfo]) -> None:
    """Name the suffixes of audio and video in a folder that are not read."""
    counts = Counter(suffix for file in listed if (suffix := _suffix(file.path)) in UNREAD_SUFFIXES)
    if counts:
        names = ", ".join(f"{count:,} .{suffix}" for suffix, count in sorted(counts.items()))
        known = ", ".join(sorted(AUDIO_SUFFIXES))
        LOG.warning(
            "catalog %s: left out files that are not read: %s; convert them to one of %s", redact(url), names, known
        )


def strip_suffix(path: str) -> str:
    """Return a path without the suffix of a media file."""
    return path.rpartition(".")[0] if _suffix(path) in MEDIA_SUFFIXES else path


def language_of_path(path: str, language_from: str | None = None) -> str:
    """Return the language of a file by its path relative to the catalog's folder.

    Args:
        language_from: 'folder' for the first folder, whatever its name; a language for that one; None for the first
            folder that looks like a language.

    >>> language_of_path("pt-BR/2024/a.mp3"), language_of_path("talks/a.mp3"), language_of_path("talks/a.mp3", "folder")
    ('pt-BR', 'und', 'talks')
    """
    folders = path.split("/")[:-1]
    if language_from == FOLDER:
        return folders[0] if folders else UNDETERMINED
    if language_from is not None:
        return language_from
    languages = (name for name in folders if LANGUAGE_TAG.fullmatch(name) and name not in NOT_LANGUAGES)
    return next(languages, UNDETERMINED)


def find_sidecars(files: Iterable[FileInfo], paths: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of the sidecars of each audio file that has some, in order.

    A file belongs to the audio with the longest matching stem: `a.b.vtt` to `a.b.webm`, if that exists, and not to
    `a.webm`.

    Args:
        paths: the files in the folders of `files`.
    """
    audio = {file.path.rpartition(".")[0]: file.path for file in files if _suffix(file.path) != "tar"}
    sidecars: dict[str, list[str]] = {}
    for path in sorted(set(paths)):
        folder, _, name = path.rpartition("/")
        if "." + _suffix(path) not in SIDECAR_SUFFIXES or name.startswith("."):
            continue
        stems = (path[:end] for end in range(len(path) - 1, len(folder), -1) if path[end] == ".")
        owner = next((audio[stem] for stem in stems if stem in audio), None)
        if owner is not None:
            sidecars.setdefault(owner, []).append(name)
    return sidecars


def _list_siblings(fs: fsspec.AbstractFileSystem, files: Iterable[FileInfo]) -> list[str]:
    """List the folders of audio files, once each; many remote ones by one recursive listing of their parent."""
    folders = sorted({file.path.rpartition("/")[0] for file in files if _suffix(file.path) != "tar"})
    if len(folders) > MAX_FOLDER_LISTINGS and not isinstance(fs, LocalFileSystem):
        parent = os.path.commonprefix(folders).rpartition("/")[0]  # noqa: RUF071 - by characters is intended
        return list(fs.find(parent))
    paths = (path for folder in folders for path in fs.ls(folder, detail=False))
    return [path for path in paths if not isinstance(fs, LocalFileSystem) or os.path.isfile(path)]


def list_sizes(uris: list[str]) -> list[int | None]:
    """Return the size of each address in bytes; None if it does not exist or its size is unknown.

    Local files are examined one by one; the folders of remote objects are listed, once each.

    Raises:
        StoreError: the network failed; shards planned without the sizes would be different.
    """
    remote = [uri for uri in uris if "://" in uri]
    folders = sorted({uri.rpartition("/")[0] + "/" for uri in remote})
    is_recursive = len(folders) > MAX_FOLDER_LISTINGS
    if is_recursive:
        folders = [os.path.commonprefix(folders).rpartition("/")[0] + "/"]  # noqa: RUF071 - by characters is intended
    known: dict[str, int | None] = {}
    for folder in folders:
        known.update(_list_folder(folder, is_recursive))
    return [known.get(uri) if "://" in uri else _local_size(uri) for uri in uris]


def _local_size(path: str) -> int | None:
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def _list_folder(folder: str, is_recursive: bool) -> Iterator[FileInfo]:
    """Yield the objects of a folder; none for HTTP, which has no listings, or without the permission to list."""
    if folder.startswith(("http://", "https://")) or folder.endswith("://"):
        return
    try:
        fs, path = open_filesystem(folder)
        root = path.rstrip("/") + "/"
        infos = fs.find(root, detail=True).values() if is_recursive else fs.ls(root, detail=True)
        for info in infos:
            yield FileInfo(folder + info["name"].removeprefix(root), info["size"])
    except (FileNotFoundError, PermissionError, NotImplementedError, ImportError, ValueError) as error:
        problem = redact(f"{folder} are unknown, shards are planned without them: {first_line(error)}")
        LOG.warning("sizes below %s", problem)
    except READ_ERRORS as error:
        message = f"{folder} could not be listed for the sizes of its objects ({first_line(error)})"
        raise StoreError(message) from (None if has_secret(folder) else error)


def _list_files(fs: fsspec.AbstractFileSystem, base: str) -> Iterator[FileInfo]:
    """Yield every file at, below or matching `base`, except hidden ones."""
    if isinstance(fs, LocalFileSystem):
        yield from list_local_files(base, {*MEDIA_SUFFIXES, *(suffix[1:] for suffix in SIDECAR_SUFFIXES)})
    elif fs.isfile(base):
        yield FileInfo(base, fs.size(base))
    elif fs.isdir(base):
        yield from _visible_files(fs.find(base, detail=True), base)
    elif glob.has_magic(base):
        yield from _visible_files(fs.glob(base, detail=True), "")
    else:
        raise FileNotFoundError("the address does not exist")


def _visible_files(infos: Mapping[str, dict[str, object]], base: str) -> Iterator[FileInfo]:
    for path, info in infos.items():
        if info["type"] == "file" and "/." not in path[len(base) :]:
            size = info["size"]
            yield FileInfo(path, size if isinstance(size, int) else None)


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix[1:].lower()
