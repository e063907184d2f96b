"""Fixtures of shards and of their sources."""

import threading
from pathlib import Path

import pytest
from factories import list_decoders, wav_video

from audiopipe.media import access, fetch
from audiopipe.store import retry


@pytest.fixture
def short_waits(monkeypatch):
    monkeypatch.setattr(retry, "ATTEMPTS", 2)
    monkeypatch.setattr(retry, "WAIT_S", 0.01)
    monkeypatch.setattr(access, "PROBE_TIMEOUT_S", 1.0)
    monkeypatch.setattr(fetch, "RANGE_TIMEOUT_S", 1.0)
    access.clear_cache()
    yield
    access.clear_cache()


@pytest.fixture(scope="module")
def tar(tmp_path_factory) -> bytes:
    """Return the bytes of a good video, a second long."""
    return Path(wav_video(tmp_path_factory.mktemp("tar"), "good", 1.0).uri).read_bytes()


@pytest.fixture
def no_leaks(tmp_path):
    """Check that threads, decoders and scratch files end with the shard, however it ends."""
    before = set(threading.enumerate())
    (tmp_path / "scratch").mkdir()
    yield
    assert set(threading.enumerate()) <= before
    assert list_decoders() == []
    assert list((tmp_path / "scratch").iterdir()) == []
