"""Check that entries that are not files cost neither the catalog nor their neighbors, and are never waited for."""

import logging
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from audiopipe.catalog import local_files
from audiopipe.catalog.read import read_catalog
from audiopipe.config import RunConfig
from audiopipe.errors import CatalogError, PermanentStoreError, StoreError

PLAIN = ("a.wav", "en/b.tar", "en/c.webm")


def read(url: object) -> list[str]:
    """Return the ids of a catalog, within a minute: to open a pipe waits for its writer."""
    with ThreadPoolExecutor(1) as thread:
        catalog = thread.submit(read_catalog, RunConfig.of(catalog=str(url), output="o")).result(60)
    return sorted(catalog.table["video_id"].to_pylist())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a folder of three files and one of every odd entry."""
    for name in PLAIN:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe.wav")
    os.mkfifo(tmp_path / "en/c.vtt")
    (tmp_path / "device.mp3").symlink_to("/dev/zero")
    (tmp_path / "dangling.flac").symlink_to("nowhere.flac")
    (tmp_path / "loop.tar").symlink_to("loop.tar")
    (tmp_path / "en/up").symlink_to("..")
    (tmp_path / "itself").symlink_to("itself")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.ogg")).write_bytes(b"x")
    return tmp_path


def test_odd_entries_of_a_folder_are_skipped_by_name(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "audiopipe"):
        assert read(folder) == ["a", "en/b", "en/c"]
    for problem, name in {
        "a pipe": "pipe.wav",
        "a device": "device.mp3",
        "a link to nothing": "dangling.flac",
        "a link that leads to itself": "loop.tar",
        "a name that is not UTF-8": r"\udcff\udcfe.ogg",
    }.items():
        (line,) = [text for text in caplog.messages if f"{problem}: " in text]
        assert name in line
    assert read(folder / "*.*") == ["a"]
    assert read(folder / "en/*") == ["b", "c"]


def test_a_pipe_next_to_audio_is_no_sidecar(folder: Path) -> None:
    for url in (folder, folder / "en/*.webm", folder / "en/c.webm"):
        table = read_catalog(RunConfig.of(catalog=str(url), output="o")).table
        sidecars = dict(zip(table["video_id"].to_pylist(), table["sidecars"].to_pylist(), strict=True))
        assert sidecars["en/c" if url == folder else "c"] is None


def test_a_folder_without_permission_costs_only_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = os.scandir

    def refuse(path):  # root could list the folder
        if str(path).endswith("/en"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(local_files.os, "scandir", refuse)
    assert read(folder) == ["a"]
    assert "a folder that cannot be listed (Permission denied)" in caplog.text
    with pytest.raises(CatalogError, match="Permission denied"):
        read(folder / "en")


@pytest.mark.parametrize("name", ["catalog.csv", "catalog.parquet", "catalog.jsonl.gz", "videos"])
def test_a_catalog_that_is_a_pipe_is_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(CatalogError, match="a pipe, not a file"):
        read(tmp_path / name)


@pytest.mark.parametrize(
    "url", ["/proc/nope", "/dev/null", "/dev/zero", "/proc/nope.csv", "nope://x/y.csv", "nope://x"]
)
def test_an_address_that_is_no_catalog_is_a_message(url: str) -> None:
    with pytest.raises(CatalogError, match=r"catalog .* cannot be"):
        read(url)


def test_a_catalog_whose_host_is_down_may_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://127.0.0.1:9/videos.csv", "http://host.invalid/videos.parquet"):
        with pytest.raises(StoreError, match=f"catalog {url} cannot be read"):
            read(url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(PermanentStoreError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        read("s3://no-such-bucket/videos.csv")


def test_text_is_read_as_utf_8_whatever_the_locale(tmp_path: Path) -> None:
    (tmp_path / "videos.csv").write_text("youtube_id,language,r2_tar_key\nвидео,en,é/日本.tar\n", "utf-8")
    (tmp_path / "videos.jsonl").write_text('{"youtube_id": "видео", "language": "en", "r2_tar_key": "é"}\n', "utf-8")
    profiles = "local-only:\n  kind: local  # für alle\n"
    (tmp_path / "profiles.yaml").write_text(profiles, "utf-8")
    code = (
        "from audiopipe.catalog.read import read_catalog; from audiopipe.config import RunConfig\n"
        "from audiopipe.cluster.profiles import profiles; profiles()\n"
        "for name in ('videos.csv', 'videos.jsonl'):\n"
        "    table = read_catalog(RunConfig.of(catalog=name, output='o')).table\n"
        "    print(ascii(table['video_id'].to_pylist()))\n"
    )
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "AUDIOPIPE_PROFILES": str(tmp_path / "profiles.yaml")}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=os.environ | environment,
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [ascii(["видео"])] * 2


def test_the_command_names_files_in_any_locale(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "audiopipe.cli", "verify", "видео/é"],
        cwd=tmp_path,
        env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0"},
        check=False,
        capture_output=True,
    )
    assert done.returncode == 1
    assert "видео/é has no _run.json" in done.stderr.decode()
