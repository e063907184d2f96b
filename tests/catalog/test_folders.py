"""Folders and globs are catalogs, and sizes come from a listing."""

import uuid

import fsspec
import pytest

from audiopipe.catalog import files
from audiopipe.catalog.files import read_folder
from audiopipe.catalog.read import read_catalog
from audiopipe.config import RunConfig
from audiopipe.errors import CatalogError, StoreError
from audiopipe.types import AUDIO_SUFFIXES


def read(url, **parameters):
    return read_catalog(RunConfig.of(catalog=str(url), output="o", **parameters))


def rows_by_id(catalog):
    return {row["video_id"]: row for language in catalog.languages() for row in catalog.videos(language).to_pylist()}


def make_files(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * len(name))


@pytest.fixture
def memory():
    """Make a folder on fsspec's memory file system: a remote store without a network."""
    root = f"/{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")
    yield fs, root
    fs.rm(root, recursive=True)


def test_sizes_in_many_folders_come_from_one_recursive_listing(memory, monkeypatch):
    fs, root = memory
    monkeypatch.setattr(files, "MAX_FOLDER_LISTINGS", 1)
    for name in ("x/1/a.tar", "x/2/bb.tar", "y.tar"):
        fs.pipe_file(f"{root}/{name}", name.encode())
    uris = [f"memory:/{root}/{name}" for name in ("x/1/a.tar", "x/2/bb.tar", "x/2/none.tar")]
    assert files.list_sizes(uris) == [9, 10, None]


def test_a_folder_lists_files_of_every_suffix_that_is_decoded(tmp_path):
    make_files(tmp_path, *(f"{suffix[1:]}/a{suffix}" for suffix in AUDIO_SUFFIXES), "b/a.tar", "b/a.txt")
    assert set(rows_by_id(read(tmp_path))) == {*(f"{suffix[1:]}/a" for suffix in AUDIO_SUFFIXES), "b/a"}


def test_audio_that_is_not_read_is_named_in_a_warning(tmp_path, memory, caplog):
    fs, root = memory
    for name in ("a.mp3", "b.wma", "c/d.WMA", "e.aiff", "f.txt", "g.vtt"):
        make_files(tmp_path, name)
        fs.pipe_file(f"{root}/{name}", b"x")
    for url in (tmp_path, f"memory:/{root}"):
        caplog.clear()
        assert list(rows_by_id(read(url))) == ["a"]
        assert f"catalog {url}: left out files that are not read: 1 .aiff, 2 .wma; convert them to" in caplog.text


def test_sizes_of_local_files_are_read_one_by_one(tmp_path):
    make_files(tmp_path, "x/a.tar")
    assert files.list_sizes([f"{tmp_path}/x/a.tar", f"{tmp_path}/x/b.tar"]) == [7, None]


def test_an_interrupted_listing_is_not_treated_as_no_sizes(memory, monkeypatch):
    fs, root = memory
    fs.mkdir(root)
    monkeypatch.setattr(type(fs), "ls", lambda *_, **__: (_ for _ in ()).throw(OSError("reset by peer")))
    with pytest.raises(StoreError, match="reset by peer"):
        files.list_sizes([f"memory:/{root}/a.tar"])
    monkeypatch.undo()


def test_a_source_without_listing_leaves_sizes_unknown_with_a_warning(caplog):
    assert files.list_sizes(["nonsense://bucket/a.tar"]) == [None]
    assert "sizes below nonsense://bucket/ are unknown" in caplog.text
    assert files.list_sizes(["https://example.invalid/a.tar"]) == [None]


def test_a_folder_gives_its_media_with_languages_from_subfolders(tmp_path):
    names = ["en/a.tar", "zh-Hant/b.WEBM", "batch7/c.mp3", "top.flac", "mp3/d.mp3", "en/deep/e.wav"]
    make_files(tmp_path, *names, "en/notes.txt", ".hidden/x.tar", "en/.y.tar", "_SUCCESS")
    rows = rows_by_id(read(tmp_path))
    languages = {video_id: row["language"] for video_id, row in rows.items()}
    ids = {"en/a": "en", "zh-Hant/b": "zh-Hant", "batch7/c": "und", "top": "und", "mp3/d": "und", "en/deep/e": "en"}
    assert languages == ids
    assert rows["en/a"]["uri"] == f"{tmp_path}/en/a.tar"
    assert rows["en/a"]["size_bytes"] == len("en/a.tar")


def test_a_folder_that_links_to_itself_is_listed_once(tmp_path):
    make_files(tmp_path, "en/a.tar")
    for name in ("loop1", "loop2", "loop3"):
        (tmp_path / "en" / name).symlink_to(tmp_path)
    assert list(rows_by_id(read(tmp_path))) == ["en/a"]


def test_the_given_folder_is_not_a_language(tmp_path):
    make_files(tmp_path, "en/a.tar")
    assert rows_by_id(read(tmp_path / "en"))["a"]["language"] == "und"
    assert rows_by_id(read(f"{tmp_path}/en/*"))["a"]["language"] == "en"


def test_a_glob_and_a_single_file_are_catalogs(tmp_path):
    make_files(tmp_path, "en/a.tar", "de/b.tar", "de/c.txt", "de/x/d.tar")
    assert sorted(rows_by_id(read(f"{tmp_path}/*/*.tar"))) == ["de/b", "en/a"]
    assert sorted(rows_by_id(read(f"{tmp_path}/**/*.tar"))) == ["de/b", "de/x/d", "en/a"]
    assert rows_by_id(read(f"{tmp_path}/d*/*"))["de/b"]["language"] == "de"
    assert list(rows_by_id(read(tmp_path / "de" / "b.tar"))) == ["b"]


def test_a_remote_folder_and_glob_are_catalogs(memory):
    fs, root = memory
    for name in ("en/a.tar", "de/b.tar", "de/.c.tar"):
        fs.pipe_file(f"{root}/{name}", b"123")
    for url in (f"memory:/{root}", f"memory:/{root}/", f"memory:/{root}/*/*.tar"):
        rows = rows_by_id(read(url))
        assert sorted(rows) == ["de/b", "en/a"]
        assert (rows["en/a"]["language"], rows["en/a"]["size_bytes"]) == ("en", 3)
        assert fsspec.open(rows["en/a"]["uri"]).open().read() == b"123"


@pytest.mark.parametrize("url", ["{}/nothing", "{}/no*", "{}/empty"])
def test_a_folder_without_media_is_refused(tmp_path, url):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CatalogError, match=url.format(tmp_path).replace("*", r"\*")):
        read(url.format(tmp_path))


def test_a_prefix_with_a_folder_is_refused(tmp_path):
    make_files(tmp_path, "a.tar")
    with pytest.raises(CatalogError, match="source_prefix"):
        read(tmp_path, source_prefix="s3://b")


def test_files_of_one_name_in_two_folders_are_two_videos(tmp_path):
    make_files(tmp_path, "show/001.wav", "talks/001.wav")
    assert sorted(rows_by_id(read(tmp_path))) == ["show/001", "talks/001"]
    make_files(tmp_path, "show/001.mp3")
    with pytest.raises(CatalogError, match="more than once: 'show/001'"):
        read(tmp_path)


def test_the_language_of_a_folder_may_be_given(tmp_path):
    make_files(tmp_path, "English/a.wav", "pt/fr/b.wav", "c.wav")

    def languages(**parameters):
        return {video_id: row["language"] for video_id, row in rows_by_id(read(tmp_path, **parameters)).items()}

    assert languages() == {"English/a": "und", "pt/fr/b": "pt", "c": "und"}
    assert languages(language_from="folder") == {"English/a": "English", "pt/fr/b": "pt", "c": "und"}
    assert languages(language_from="de") == {"English/a": "de", "pt/fr/b": "de", "c": "de"}
    (tmp_path / "pt/fr/b.wav").unlink()
    with pytest.raises(CatalogError, match="if all its videos are in 'en', add --language-from en"):
        read(tmp_path, language="en")


SIBLINGS = {
    "a.webm": [".a.json", "._a.vtt", "a.jpg", "a.txt", "ab.vtt"],
    "a.en.webm": ["a.en.vtt", "a.en.de.vtt"],
    "b/b.m4a": ["b/b.info.json", "b/b.en.vtt", "b/b.live_chat.json", "b/c.vtt"],
    "t.tar": ["t.vtt"],
}
SIDECARS = {
    "a": None,
    "a.en": ["a.en.de.vtt", "a.en.vtt"],
    "b/b": ["b.en.vtt", "b.info.json", "b.live_chat.json"],
    "t": None,
}


@pytest.mark.parametrize("pattern", ["", "/**/*.*"])
def test_audio_files_have_the_sidecars_of_their_stem(tmp_path, memory, pattern):
    fs, folder = memory
    paths = [*SIBLINGS, *(name for names in SIBLINGS.values() for name in names)]
    for path in paths:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(b"x")
        fs.pipe(f"{folder}/{path}", b"x")
    for root in (str(tmp_path), f"memory:/{folder}"):
        table = read_folder(root + pattern)
        assert dict(zip(table["youtube_id"].to_pylist(), table["sidecars"].to_pylist(), strict=True)) == SIDECARS
    assert read_folder(str(tmp_path / "b/b.m4a"))["sidecars"].to_pylist() == [SIDECARS["b/b"]]


def test_sidecars_cost_one_listing_for_each_folder(memory, monkeypatch):
    fs, folder = memory
    for number in range(20):
        fs.pipe(f"{folder}/{number}.webm", b"x")
        fs.pipe(f"{folder}/{number}.vtt", b"x")
    listings = []
    original = type(fs).ls
    monkeypatch.setattr(type(fs), "ls", lambda *a, **k: listings.append(a[1]) or original(*a, **k))
    assert all(read_folder(f"memory:/{folder}/*.webm")["sidecars"].to_pylist())
    assert len(listings) < 6
