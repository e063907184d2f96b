"""Check who is blamed for a source that cannot be read: the video, or the folder, prefix or host that it is in."""

import os
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from place_factory import refuses, run, videos_in

from audiopipe import errors
from audiopipe.errors import SourceUnavailable, UnreadableSource
from audiopipe.types import Video

pytestmark = pytest.mark.usefixtures("short_waits")


def test_one_missing_video_is_a_dead_letter(tmp_path, tar):
    videos = videos_in(tmp_path / "videos", "abc", tar, missing="b")
    assert run(tmp_path, videos) == {"b": "MissingSource"}


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


def leave_marks(folder):
    empty(folder)
    (folder / ".keep").touch()
    (folder / "README.txt").touch()
    (folder / "lost+found").mkdir()


def replace_by_file(folder):
    shutil.rmtree(folder)
    folder.touch()


LOSSES = {
    "removed": (shutil.rmtree, "the folder .*mount does not exist"),
    "empty": (empty, "the folder .*mount is empty"),
    "with other files": (leave_marks, "no other video in the folder .*mount can be read"),
    "a file": (replace_by_file, "Not a directory"),
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_lost_mount_condemns_no_video(tmp_path, tar, loss, count):
    lose, message = LOSSES[loss]
    videos = videos_in(tmp_path / "mount", "abcde"[:count], tar)
    lose(tmp_path / "mount")
    refuses(tmp_path, videos, message)
    (tmp_path / "mount").unlink() if (tmp_path / "mount").is_file() else shutil.rmtree(tmp_path / "mount", True)
    videos_in(tmp_path / "mount", "abcde"[:count], tar)
    assert run(tmp_path, videos) == {}


def test_a_wrong_prefix_condemns_no_video(tmp_path, tar):
    videos = videos_in(tmp_path / "right/en", "abc", tar)
    for prefix in ("wrong/en", "right", "right/en/en"):
        refuses(tmp_path, [replace(v, uri=str(tmp_path / prefix / f"{v.video_id}.tar")) for v in videos], "folder")
        refuses(tmp_path, [replace(videos[0], uri=str(tmp_path / prefix / "a.tar"))], "folder")


def test_one_of_two_places_may_be_lost(tmp_path, tar):
    videos = [
        *videos_in(tmp_path / "a", ["a0", "a1"], tar),
        *videos_in(tmp_path / "b", [f"b{n}" for n in range(8)], tar),
    ]
    shutil.rmtree(tmp_path / "a")
    refuses(tmp_path, videos, "the folder .*/a does not exist")


def test_a_single_wrong_row_does_not_hold_up_its_neighbors(tmp_path, tar):
    videos = [*videos_in(tmp_path / "videos", "abc", tar), Video("x", "en", str(tmp_path / "vdieos/x.tar"))]
    with pytest.raises(UnreadableSource, match="vdieos does not exist"):
        run(tmp_path, videos)
    assert run(tmp_path, videos, last_attempt=True) == {"x": "UnreadableSource"}


def test_a_folder_for_each_video_is_not_a_place(tmp_path, tar):
    layouts = {"{0}/{0}.tar": "MissingSource", "x-{0}/v.tar": "MissingSource", "{0}/audio/v.tar": "UnreadableSource"}
    for number, (layout, expected) in enumerate(layouts.items()):
        ids = [f"layout{number}-{name}" for name in "abcde"]
        videos = [Video(name, "en", str(tmp_path / "videos" / layout.format(name))) for name in ids]
        for video in videos[:-1]:
            Path(video.uri).parent.mkdir(parents=True)
            Path(video.uri).write_bytes(tar)
        assert run(tmp_path, videos, last_attempt=True, index=number) == {ids[-1]: expected}, layout


def test_most_videos_missing_are_a_fault_of_the_place(tmp_path, tar):
    videos = videos_in(tmp_path / "videos", "abcde", tar, missing="bcd")
    refuses(tmp_path, videos, r"3 of 5 videos of a shard are missing.*max_missing_share \(0.5\)")
    assert run(tmp_path, videos, max_missing_share=0.6) == dict.fromkeys("bcd", "MissingSource")


def test_a_user_whose_videos_are_missing_can_say_so(tmp_path, tar):
    videos = [Video(name, "en", str(tmp_path / f"gone/{name}.tar")) for name in "abc"]
    assert run(tmp_path, videos, max_missing_share=1) == dict.fromkeys("abc", "MissingSource")


def test_half_of_the_videos_may_be_missing(tmp_path, tar):
    videos = videos_in(tmp_path / "videos", "abcd", tar, missing="ab")
    assert run(tmp_path, videos) == dict.fromkeys("ab", "MissingSource")


def test_retried_videos_that_are_still_missing_are_dead_letters(tmp_path, tar):
    videos_in(tmp_path / "videos", "abc", tar)
    retried = [Video(n, "en", str(tmp_path / f"videos/{n}.tar"), attempts=2) for n in "xyz"]
    assert run(tmp_path, retried) == dict.fromkeys("xyz", "MissingSource")
    shutil.rmtree(tmp_path / "videos")
    with pytest.raises(SourceUnavailable):
        run(tmp_path, retried, last_attempt=True, index=1)


def test_a_file_without_bytes_is_not_opened(tmp_path, tar, monkeypatch):
    """Files of /proc have no size, and reading them may block."""
    videos, real = videos_in(tmp_path / "videos", "ab", tar), Path.open
    (tmp_path / "videos/b.tar").write_bytes(b"")

    def never_b(self, *rest, **options):
        assert self.name != "b.tar"
        return real(self, *rest, **options)

    monkeypatch.setattr(Path, "open", never_b)
    assert run(tmp_path, videos) == {"b": "EmptySource"}


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    folder = os.open(path.parent, os.O_RDONLY)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"/proc/self/fd/{folder}/{path.name}")  # the path of a socket is short
    os.close(folder)


ODD_FILES = {
    "a pipe": (make_fifo, "InvalidSource"),
    "a socket": (make_socket, "InvalidSource"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "InvalidSource"),
    "a loop of links": (lambda path: path.symlink_to(path.name), "InvalidSource"),
    "a dangling link": (lambda path: path.symlink_to("nowhere"), "MissingSource"),
    "a folder": (lambda path: path.mkdir(), "MissingSource"),
}


@pytest.mark.parametrize("kind", ODD_FILES)
def test_an_odd_file_is_named_and_never_waited_for(tmp_path, tar, kind):
    make, expected = ODD_FILES[kind]
    videos = videos_in(tmp_path / "videos", "abx", tar, missing="x")
    make(tmp_path / "videos/x.tar")
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(run, tmp_path, videos).result(60) == {"x": expected}


def test_a_name_that_is_too_long_is_named(tmp_path, tar):
    videos = videos_in(tmp_path / "videos", "ab", tar)
    long = Video("x", "en", str(tmp_path / "videos" / f"{'x' * 300}.tar"))
    assert run(tmp_path, [*videos, long]) == {"x": "InvalidSource"}


@pytest.mark.parametrize("broken", ["b", "abc"])
def test_an_io_error_is_that_of_the_object_or_the_disk(tmp_path, tar, monkeypatch, broken):
    videos, real = videos_in(tmp_path / "videos", "abc", tar), Path.open

    def fail(self, *rest, **options):
        if self.suffix == ".tar" and self.stem in broken and self.parent.name == "videos":
            raise OSError(5, "Input/output error", str(self))
        return real(self, *rest, **options)

    monkeypatch.setattr(Path, "open", fail)
    if broken == "b":
        assert run(tmp_path, videos) == {"b": "InvalidSource"}
    else:
        refuses(tmp_path, videos, "Input/output error")


@pytest.mark.parametrize("forbidden", ["b", "abc"])
def test_a_forbidden_object_is_distinct_from_a_forbidden_folder(tmp_path, tar, monkeypatch, forbidden):
    videos, real = videos_in(tmp_path / "videos", "abc", tar), Path.open

    def refuse(self, *rest, **options):  # root could read the file
        if self.suffix == ".tar" and self.stem in forbidden and self.parent.name == "videos":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *rest, **options)

    monkeypatch.setattr(Path, "open", refuse)
    if forbidden == "b":
        assert run(tmp_path, videos) == {"b": "ForbiddenSource"}
    else:
        refuses(tmp_path, videos, "not permitted", errors.PermanentStoreError)


def test_other_file_systems_have_places_too(tmp_path, tar):
    fs = fsspec.filesystem("memory")
    for name in "ab":
        fs.pipe_file(f"/places/{name}.tar", tar)
    videos = [Video(n, "en", f"memory://places/{n}.tar") for n in "abx"]
    assert run(tmp_path, videos) == {"x": "MissingSource"}
    fs.rm("/places", recursive=True)
    with pytest.raises(SourceUnavailable):
        run(tmp_path, videos, index=1)
    urls = [replace(v, uri=f"file://{v.uri}") for v in videos_in(tmp_path / "f", "abx", tar, missing="x")]
    assert run(tmp_path, urls, index=2) == {"x": "MissingSource"}
