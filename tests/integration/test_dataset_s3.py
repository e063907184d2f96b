"""Datasets on S3 are streamed into training, and exports are written there, through a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from output_factory import config, corpus, make_output
from s3_server import BUCKET, S3Server, s3_server  # noqa: F401 - the fixture
from torch.utils.data import DataLoader
from waiting import wait_until

from audiopipe.dataset.export.run import export
from audiopipe.dataset.reader import Dataset
from audiopipe.store.objects import Store

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:  # noqa: F811
    from s3fs import S3FileSystem

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    yield f"s3://{BUCKET}/{uuid.uuid4().hex}"
    S3FileSystem.clear_instance_cache()


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("s3")
    make_output(config(corpus(folder / "corpus"), folder / "out"))
    return folder / "out"


def upload(folder: Path, url: str) -> None:
    store = Store(url)
    for path in folder.rglob("*"):
        if path.is_file():
            store.upload(path, str(path.relative_to(folder)))


def test_workers_stream_from_s3_by_few_requests(bucket: str, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(output, bucket)
    dataset, local = Dataset(bucket), Dataset(str(output))
    expected = {segment.key: segment.read_bytes() for segment in local}
    loader = DataLoader(dataset.iterate(shuffle=True), batch_size=2, num_workers=2, collate_fn=list)
    batches = list(loader)
    assert {segment.key: segment.read_bytes() for batch in batches for segment in batch} == expected
    requests: list[str] = []
    read_range = Store.read_range

    def count(store: Store, name: str, start: int, size: int) -> bytes:
        requests.append(name)
        return read_range(store, name, start, size)

    monkeypatch.setattr(Store, "read_range", count)
    assert len(list(dataset.iterate())) == len(expected)
    assert len(requests) == len(set(requests)) < len(expected), "one request for each tar"
    assert [segment.key for segment in dataset.sample(3)] == [segment.key for segment in local.sample(3)]


@pytest.mark.parametrize("name", ["parquet", "lhotse-shar", "mds"])
def test_an_export_to_s3_equals_a_local_one(bucket: str, output: Path, tmp_path: Path, name: str) -> None:
    export(str(output), bucket, format=name)
    export(str(output), str(tmp_path), format=name)
    store = Store(bucket)
    stored = {path: store.read(path) for path in store.list()}
    assert stored == {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*.*")}


def test_a_killed_export_continues(output: Path, tmp_path: Path) -> None:
    export(str(output), str(tmp_path / "whole"))
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "audiopipe.cli", "export", str(output), str(folder), "--threads", "1"]
    for kills in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(
            lambda kills=kills, process=process: (
                len(list(folder.glob("_export/*"))) > kills or process.poll() is not None
            ),
            poll_s=0.001,
        )
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not any(path.suffix == ".parquet" and path.stat().st_size == 0 for path in folder.rglob("*"))
    export(str(output), str(folder))
    files = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    whole = tmp_path / "whole"
    assert files == {path.relative_to(whole): path.read_bytes() for path in whole.rglob("*") if path.is_file()}
