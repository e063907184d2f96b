"""Annotations of an output in a bucket: from a file next to it and from a scorer, joined, verified and removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from distributed import Client
from output_factory import config, corpus, make_output
from s3_server import BUCKET, new_s3_server  # noqa: F401 - the fixture

from audiopipe.dataset.annotations import list_annotations
from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.verify import verify
from audiopipe.driver.annotate import annotate, remove
from audiopipe.report.dataset_tables import read_tables
from audiopipe.store.objects import Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.mark.usefixtures("new_s3_server")
def test_an_output_in_a_bucket_is_annotated(tmp_path: Path) -> None:
    catalog = corpus(tmp_path / "c", videos=4, missing=False)
    store = make_output(config(catalog, f"s3://{BUCKET}/out", ledger=str(tmp_path / "ledger.sqlite")))
    keys = Dataset(store.url).to_pandas(["key"])
    labels = Store(f"s3://{BUCKET}/labels")
    labels.write("mos.csv", keys.assign(mos=2.5).iloc[:-1].to_csv(index=False).encode())
    summary = annotate(store.url, file=f"{labels.url}/mos.csv")
    assert summary.counts is not None
    assert (summary.exit_code, summary.counts.matched, summary.counts.segments) == (0, len(keys) - 1, len(keys))
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0") as client:
        options = {"device": "cpu", "ledger": str(tmp_path / "ledger.sqlite")}
        assert annotate(store.url, scorers="transcript", client=client, **options).exit_code == 0
    assert verify(store.url).findings == ()
    table = Dataset(store.url).segments(["key", "mos", "words_per_s"])
    assert sorted(table["mos"].to_pylist(), key=str) == [2.5] * (len(keys) - 1) + [None]
    assert all(rate > 0 for rate in table["words_per_s"].to_pylist())
    assert {"mos", "words_per_s"} <= read_tables(store.url).metrics.keys()
    for annotation in list_annotations(store):
        remove(store.url, annotation.record.id)
    assert not [name for name in store.list() if "_annotations" in name]
    assert collect_garbage(store.url, min_age_h=0).objects == {}
