"""A dataset has the columns of annotations in its tables, conditions, segments, streams and exports."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from output_factory import config, corpus, make_output

from audiopipe.dataset.annotation_file import AnnotationFile
from audiopipe.dataset.annotation_import import compare_keys, import_annotation
from audiopipe.dataset.commit import read_commits
from audiopipe.dataset.export.run import export
from audiopipe.dataset.reader import Dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Ten segments, of which the first has no label."""
    folder = tmp_path_factory.mktemp("annotated")
    store = make_output(config(corpus(folder / "corpus"), folder / "out"))
    frame = Dataset(store.url).to_pandas(["key"])
    frame["mos"] = [1.0 + 0.25 * row for row in range(len(frame))]
    frame.iloc[1:].to_csv(folder / "labels.csv", index=False)
    file = AnnotationFile(str(folder / "labels.csv"), folder)
    compare_keys(store, file, read_commits(store), ignore_unknown=False)
    import_annotation(store, file, file.record(), read_commits(store), Dataset(store.url).schema.names)
    file.close()
    return Dataset(store.url)


def test_tables_and_segments_have_the_columns(dataset: Dataset) -> None:
    rows = dataset.to_pandas()
    assert rows["mos"].isna().tolist() == [True] + [False] * 9
    assert rows["mos"].tolist()[1:] == [1.25 + 0.25 * row for row in range(9)]
    assert dataset.query("SELECT count(mos) AS n FROM segments").to_pylist() == [{"n": 9}]
    values = {segment.key: segment.metrics["mos"] for segment in dataset}
    assert values == {segment.key: segment.metrics["mos"] for segment in dataset.iterate(shuffle=True)}
    assert None in values.values()


def test_conditions_and_streams_read_them(dataset: Dataset) -> None:
    good = dataset.filter("mos > 2")
    expected = set(dataset.to_pandas(where="kept AND mos > 2")["key"])
    assert {segment.key for segment in good.iterate(columns=["text"])} == expected
    assert 0 < len(good) == len(expected) < len(dataset)
    assert all(segment.row["mos"] > 2 for segment in good.iterate(columns=["mos"]))


def test_exports_have_them(dataset: Dataset, tmp_path: Path) -> None:
    export(dataset.url, str(tmp_path))
    tables = [pq.read_table(path) for path in sorted(tmp_path.glob("*/*.parquet"))]
    values = {key: mos for table in tables for key, mos in zip(*map(table.column, ("key", "mos")), strict=True)}
    assert {key.as_py(): mos.as_py() for key, mos in values.items()} == {
        segment.key: segment.metrics["mos"] for segment in dataset
    }
