"""A selection between buckets of a real S3 server has the bytes of one between folders, by few requests."""

from pathlib import Path

import pytest
from output_factory import content
from s3_server import BUCKET, new_s3_server  # noqa: F401 - the fixture
from selection_factory import make_samples, select_here

from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.verify import verify
from audiopipe.driver.select import select
from audiopipe.errors import ConfigError
from audiopipe.store.objects import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.mark.usefixtures("new_s3_server")
def test_a_selection_in_buckets_equals_one_in_folders(tmp_path: Path) -> None:
    local = make_samples(str(tmp_path / "out"), ("en",), 3)
    remote = Store(f"s3://{BUCKET}/select/parent")
    for name in local.list():
        remote.write(name, local.read(name))
    options = {"where": "snr_db > 30", "shuffle": 2}
    expected = select_here(local.url, str(tmp_path / "dest"), tmp_path / "scratch", **options)
    dest = select_here(remote.url, f"s3://{BUCKET}/select/dest", tmp_path / "other", **options)
    described = {"dataset.json", "README.md", "croissant.json"}  # the address of the parent is in some of them
    expected_bytes, remote_bytes = (
        {name: data for name, data in content(store.url).items() if name not in described} for store in (expected, dest)
    )
    assert remote_bytes == expected_bytes
    assert verify(dest.url).findings == ()
    requests = sum(commit.result.stage_items["copy"] for commit in Dataset(dest.url).commits.values())
    assert requests == 3  # one for each tar of the parent
    virtual = select_here(remote.url, str(tmp_path / "virtual"), tmp_path / "third", where="snr_db > 30", virtual=True)
    audio = {segment.key: segment.read_bytes() for segment in Dataset(dest.url)}
    assert {segment.key: segment.read_bytes() for segment in Dataset(virtual.url)} == audio
    for url in (f"{remote.url}/x", f"s3://{BUCKET}/select", f"s3a://{BUCKET}/select/parent/"):
        with pytest.raises(ConfigError, match=r"inside|itself"):
            select(remote.url, url)
