"""Check the folder of the corpus: its catalog, that it is reproducible, and that it is made once."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from corpus_files import Demo
from waiting import wait_until

from audiopipe.bench.corpus import make_corpus
from audiopipe.errors import ConfigError

TINY = {"seed": 7, "videos": 2, "languages": ("en",)}


def digests(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, demo_cache: Path) -> Path:
    directory = tmp_path_factory.mktemp("tiny") / "corpus"
    make_corpus(directory, **TINY, cache=demo_cache)
    return directory


@pytest.fixture(scope="module")
def catalog(demo: Demo) -> pd.DataFrame:
    return pd.read_parquet(demo.corpus.catalog)


def test_catalog_has_the_columns_of_the_supabase_table(catalog: pd.DataFrame) -> None:
    assert list(catalog) == ["youtube_id", "language", "status", "r2_tar_key", "size_bytes", "duration_s"]


def test_every_completed_row_has_a_truth_and_the_reverse(demo: Demo, catalog: pd.DataFrame) -> None:
    completed = catalog[catalog.status == "COMPLETED"]
    assert sorted(completed.youtube_id) == sorted(truth["id"] for truth in demo.truths)
    assert completed.youtube_id.is_unique
    assert (demo.corpus.videos, demo.corpus.bad) == (12, len(demo.truths) - 12)


def test_keys_and_sizes_are_those_of_the_files(demo: Demo, catalog: pd.DataFrame) -> None:
    truths = {truth["id"]: truth for truth in demo.truths}
    for row in catalog[catalog.status == "COMPLETED"].itertuples():
        path = demo.directory / row.r2_tar_key
        assert path == demo.path(truths[row.youtube_id])
        assert path.exists() == (truths[row.youtube_id]["error"] != "MissingSource")
        if path.exists() and pd.notna(row.size_bytes):
            assert path.stat().st_size == row.size_bytes


def test_catalog_has_full_durations_of_cut_videos_but_not_of_all(demo: Demo, catalog: pd.DataFrame) -> None:
    rows = catalog.set_index("youtube_id")
    for truth in demo.truths:
        if not truth["good"]:
            assert rows.duration_s[truth["id"]] == truth["duration_s"]
    missing = rows.duration_s[[truth["id"] for truth in demo.good]].isna()
    assert 0 < missing.sum() < len(missing) / 2


def test_unfinished_rows_are_there_and_have_no_tar(demo: Demo, catalog: pd.DataFrame) -> None:
    unfinished = catalog[catalog.status != "COMPLETED"]
    assert set(unfinished.status) == {"PENDING", "FAILED"}
    assert not any((demo.directory / key).exists() for key in unfinished.r2_tar_key.dropna())


def test_ids_look_like_those_of_youtube(catalog: pd.DataFrame) -> None:
    assert catalog.youtube_id.str.fullmatch(r"[A-Za-z0-9_-]{11}").all()
    assert catalog.youtube_id.str.startswith("-").any()
    assert catalog.youtube_id.str.contains("_").any()


def test_hours_are_those_of_the_good_videos(demo: Demo) -> None:
    assert demo.corpus.hours == pytest.approx(sum(truth["duration_s"] for truth in demo.good) / 3600, abs=1e-3)


@pytest.mark.slow
def test_another_seed_replaces_all_videos(tiny: Path, tmp_path: Path, demo_cache: Path) -> None:
    copy = shutil.copytree(tiny, tmp_path / "copy")
    make_corpus(copy, **{**TINY, "seed": 8}, cache=demo_cache)
    before, after = ({path.name for path in folder.rglob("*.tar")} for folder in (tiny, copy))
    assert len(after) == len(before)
    assert not after & before


def test_finished_corpus_is_left_alone_and_needs_no_network(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    before = {path: path.stat().st_mtime_ns for path in tiny.rglob("*")}
    lines: list[str] = []
    corpus = make_corpus(tiny, **TINY, cache=tiny / "no-such-cache", log=lines.append)
    assert {path: path.stat().st_mtime_ns for path in tiny.rglob("*")} == before
    assert corpus.videos == 2
    assert "nothing to do" in lines[0]


def test_a_lost_file_is_made_again(tmp_path: Path, tiny: Path, demo_cache: Path) -> None:
    copy = shutil.copytree(tiny, tmp_path / "copy")
    next(copy.rglob("*.tar")).unlink()
    make_corpus(copy, **TINY, cache=demo_cache)
    assert digests(copy) == digests(tiny)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_even_after_a_kill(tmp_path: Path, tiny: Path, demo_cache: Path) -> None:
    code = (
        "import pathlib, sys; from audiopipe.bench.corpus import make_corpus; "
        f"make_corpus(pathlib.Path(sys.argv[1]), cache=pathlib.Path(sys.argv[2]), **{TINY!r})"
    )
    maker = subprocess.Popen([sys.executable, "-c", code, tmp_path, demo_cache], stdout=subprocess.DEVNULL)
    wait_until(lambda: list(tmp_path.rglob("*.tar")), "a video is made")
    maker.send_signal(signal.SIGKILL)
    assert maker.wait() == -signal.SIGKILL
    assert digests(tmp_path) != digests(tiny)
    make_corpus(tmp_path, **TINY, cache=demo_cache)
    assert digests(tmp_path) == digests(tiny)


def test_a_folder_with_other_things_is_refused_and_untouched(tmp_path: Path, demo_cache: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "other.tar").write_text("other")
    with pytest.raises(ConfigError, match="not a demo corpus"):
        make_corpus(tmp_path, **TINY, cache=demo_cache)
    assert os.listdir(tmp_path) == ["videos"]
    assert (tmp_path / "videos" / "other.tar").read_text() == "other"


@pytest.mark.parametrize(
    "invalid", [{"videos": 0}, {"seed": -1}, {"languages": ()}, {"languages": ("de",)}, {"languages": ("en", "en")}]
)
def test_invalid_parameters_are_refused_by_name(tmp_path: Path, invalid: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(invalid))):
        make_corpus(tmp_path / "new", **{**TINY, **invalid})
    assert not (tmp_path / "new").exists()
