"""Check that each bad video has the defect that the ground truth names, and no other."""

from __future__ import annotations

import subprocess
import tarfile
from typing import Any

import av
import numpy as np
import pytest
from corpus_files import Demo, decode

from audiopipe import errors
from audiopipe.bench.corpus.defects import DEFECTS
from audiopipe.bench.corpus.media import find_ffmpeg

AUDIO = (".webm", ".m4a", ".mp3", ".flac", ".wav", ".ogg", ".opus", ".mp4", ".mkv")


def with_error(demo: Demo, error: str) -> list[dict[str, Any]]:
    return [truth for truth in demo.truths if truth["error"] == error]


def declared_s(data: bytes, suffix: str, tmp_path: Any) -> float | None:
    path = tmp_path / f"file.{suffix}"
    path.write_bytes(data)
    with av.open(str(path)) as container:
        return None if container.duration is None else container.duration / 1e6


def ffmpeg_fails(data: bytes) -> bool:
    command = [find_ffmpeg(), "-v", "quiet", "-i", "pipe:0", "-f", "s16le", "pipe:1"]
    return not subprocess.run(command, input=data, capture_output=True, check=False).stdout


def test_each_defect_is_there_once_and_names_an_error_class(demo: Demo) -> None:
    bad = [truth for truth in demo.truths if not truth["good"]]
    assert [truth["condition"] for truth in bad] == [defect.name for defect in DEFECTS]
    assert all(issubclass(getattr(errors, truth["error"]), errors.VideoError) for truth in bad)
    assert {truth["error"] for truth in bad} == {
        "BadTar",
        "NoAudio",
        "UndecodableMedia",
        "TruncatedMedia",
        "EmptySource",
        "SilentAudio",
        "MissingSource",
    }


def test_bad_tars_cannot_be_read_to_their_end(demo: Demo) -> None:
    cut, garbage = (demo.path(truth) for truth in with_error(demo, "BadTar"))
    with pytest.raises(tarfile.ReadError), tarfile.open(garbage):
        pass
    with tarfile.open(cut) as tar, pytest.raises(tarfile.ReadError):
        [tar.extractfile(member).read() for member in tar]  # type: ignore[union-attr]


def test_all_other_tars_are_sound(demo: Demo) -> None:
    for truth in demo.truths:
        if demo.path(truth).exists() and truth["error"] != "BadTar" and demo.path(truth).stat().st_size:
            assert demo.members(truth), truth["condition"]


def test_truncated_media_is_short_of_what_is_declared(demo: Demo, tmp_path: Any) -> None:
    webm, ogg = with_error(demo, "TruncatedMedia")
    for truth in (webm, ogg):
        assert decode(demo.audio(truth)).length_s == pytest.approx(0.6 * truth["duration_s"], rel=0.1)
    assert declared_s(demo.audio(webm), "webm", tmp_path) == pytest.approx(webm["duration_s"], abs=0.1)
    assert declared_s(demo.audio(ogg), "ogg", tmp_path) == pytest.approx(0.6 * ogg["duration_s"], rel=0.1)


def test_undecodable_media_gives_ffmpeg_nothing(demo: Demo) -> None:
    for truth in with_error(demo, "UndecodableMedia"):
        data = demo.audio(truth)
        assert len(data) > 10_000
        assert ffmpeg_fails(data), truth["condition"]
        with pytest.raises(av.FFmpegError):
            decode(data)


def test_no_audio_is_no_member_or_no_stream(demo: Demo) -> None:
    member, stream = with_error(demo, "NoAudio")
    assert not any(name.endswith(AUDIO) for name in demo.members(member))
    assert ffmpeg_fails(demo.audio(stream))
    with pytest.raises(IndexError):
        decode(demo.audio(stream))


def test_empty_sources_are_of_no_bytes(demo: Demo) -> None:
    whole, member = with_error(demo, "EmptySource")
    assert demo.path(whole).stat().st_size == 0
    assert demo.audio(member) == b""


def test_silent_video_is_silent_and_whole(demo: Demo) -> None:
    (truth,) = with_error(demo, "SilentAudio")
    sound = decode(demo.audio(truth))
    assert sound.length_s == pytest.approx(truth["duration_s"], abs=0.06)
    assert np.abs(sound.samples).max() < 1e-6
    assert truth["spans"] == []


def test_missing_object_is_missing(demo: Demo) -> None:
    (truth,) = with_error(demo, "MissingSource")
    assert not demo.path(truth).exists()
