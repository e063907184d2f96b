"""Annotations: columns that are added to an output, created once, committed by shard, joined with its segments."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import duckdb
import pyarrow as pa
import pytest
from output_factory import config, corpus, make_output

from audiopipe.dataset.annotation_shards import commit_annotation, publish_annotation, read_annotation_commits
from audiopipe.dataset.annotations import (
    Annotation,
    AnnotationRecord,
    annotation_schema,
    join_annotations,
    list_annotations,
    open_annotation,
)
from audiopipe.dataset.commit import read_commits
from audiopipe.dataset.reader import Dataset
from audiopipe.errors import ConfigError, VerifyError
from audiopipe.scorers.scorer import Column
from audiopipe.store.objects import Store

RATING = Column("rating", "float", "1", "how good it is", 0.0, 5.0)
LABEL = Column("label", "string", "", "a word")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("annotated")
    return make_output(config(corpus(folder / "c", videos=4, missing=False), folder / "out"))


@pytest.fixture
def store(output: Store) -> Iterator[Store]:
    yield output
    output.remove("_annotations")


def record(name: str = "ratings", *columns: Column, version: str = "1", **source: str) -> AnnotationRecord:
    return AnnotationRecord(name, version, columns or (RATING, LABEL), source)


def segment_names(store: Store) -> frozenset[str]:
    return frozenset(Dataset(store.url).segments().column_names)


def annotate(store: Store, annotation: AnnotationRecord, shard: str, values: list[float | None]) -> None:
    """Commit a table with these ratings of a shard's first segments."""
    rows = Dataset(store.url).select_shards([shard]).segments(["language", "shard", "key"]).slice(0, len(values))
    table = rows.append_column("rating", pa.array(values, pa.float32()))
    table = table.append_column("label", pa.array([None if value is None else "x" for value in values], pa.string()))
    commit = read_commits(store)[shard]
    commit_annotation(store, annotation, commit, commit.result, table.cast(annotation_schema(annotation.columns)))


def joined(store: Store) -> list[tuple[object, ...]]:
    dataset = Dataset(store.url)
    with duckdb.connect() as connection:
        segments = connection.from_arrow(dataset.segments())
        rows = join_annotations(connection, segments, store, list_annotations(store), dataset.commits)
        return rows.order("shard, language, segment").select("language, shard, key, rating, label").fetchall()


def test_an_annotation_is_joined_by_shard_and_key(store: Store) -> None:
    annotation = record()
    open_annotation(store, annotation, segment_names(store))
    assert {row[3:] for row in joined(store)} == {(None, None)}  # nothing is committed yet
    annotate(store, annotation, "en-000000", [1.5, None, 4.0])
    rows = [row for row in joined(store) if row[3] is not None]
    assert [row[3:] for row in rows] == [(1.5, "x"), (4.0, "x")]
    assert {row[:2] for row in rows} == {("en", 0)}
    assert len(joined(store)) == Dataset(store.url).segments().num_rows
    (listed,) = list_annotations(store)
    assert listed == Annotation(annotation, frozenset({"en-000000"}))
    assert listed.tables(["de-000000", "en-000000"]) == ["_annotations/ratings-1/en-000000.parquet"]


def test_a_table_is_committed_once_and_survives_interruption(store: Store) -> None:
    annotation = record()
    open_annotation(store, annotation, ())
    annotate(store, annotation, "en-000000", [1.0])
    first = store.read(annotation.table_name("en-000000"))
    annotate(store, annotation, "en-000000", [2.0])
    assert store.read(annotation.table_name("en-000000")) == first
    assert read_annotation_commits(store, annotation, read_commits(store)).keys() == {"en-000000"}
    assert not [name for name in store.list("_parts") if "draft" not in name]
    # The process was killed before it published: the table is among the parts.
    (item,) = read_annotation_commits(store, annotation, read_commits(store))["en-000000"].objects
    store.publish(item.name, item.part, item.size)
    assert not read_annotation_commits(store, annotation, read_commits(store))
    assert publish_annotation(store, annotation, read_commits(store)["en-000000"]) is not None
    assert store.read(annotation.table_name("en-000000")) == first
    # The table was lost: its commit goes, so that it can be made again.
    store.remove_all([annotation.table_name("en-000000")])
    assert publish_annotation(store, annotation, read_commits(store)["en-000000"]) is None
    assert publish_annotation(store, annotation, read_commits(store)["en-000000"]) is None
    annotate(store, annotation, "en-000000", [1.0])
    assert store.read(annotation.table_name("en-000000")) == first


def test_an_equal_annotation_is_opened_again_another_is_refused(store: Store) -> None:
    open_annotation(store, record(file="a.csv"), ())
    open_annotation(store, record(file="a.csv"), ())
    with pytest.raises(ConfigError, match=r"ratings-1 .* file \(a.csv there, b.csv here\).*--remove ratings-1"):
        open_annotation(store, record(file="b.csv"), ())
    with pytest.raises(ConfigError, match=r"its columns \(rating, label there, rating here\)"):
        open_annotation(store, record("ratings", RATING, file="a.csv"), ())


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (Column("snr_db", "float", "dB", ""), "'snr_db' is already one of the segments"),
        (Column("Text", "string", "", ""), "'Text' is already one of the segments"),
        (Column("key", "string", "", ""), "'key' is already one of"),
        (Column("LABEL", "string", "", ""), "'LABEL' is already one of annotation ratings-1"),
        (Column("a b", "string", "", ""), "'a b': a name has"),
    ],
)
def test_a_column_that_exists_is_refused(store: Store, column: Column, message: str) -> None:
    open_annotation(store, record(), ())
    with pytest.raises(ConfigError, match=message):
        open_annotation(store, record("others", column), segment_names(store))
    assert [item.record.name for item in list_annotations(store)] == ["ratings"]


def test_of_two_annotators_at_the_same_time_one_creates_it(store: Store) -> None:
    start = threading.Barrier(4)

    def create(number: int) -> str:
        start.wait()
        try:
            open_annotation(store, record(file=f"{number % 2}.csv"), ())
        except ConfigError:
            return "refused"
        return f"{number % 2}.csv"

    for _ in range(10):
        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(create, range(4)))
        (annotation,) = list_annotations(store)
        assert sorted(outcomes) == sorted(["refused"] * 2 + [str(annotation.record.source["file"])] * 2)
        store.remove("_annotations")


def test_two_annotations_never_share_a_column(store: Store) -> None:
    start = threading.Barrier(2)

    def create(name: str) -> str | None:
        start.wait()
        try:
            open_annotation(store, record(name), ())
        except ConfigError:
            return None
        return name

    for _ in range(20):
        with ThreadPoolExecutor(2) as pool:
            created = [name for name in pool.map(create, ["a", "b"]) if name]
        assert len(created) <= 1
        assert [item.record.name for item in list_annotations(store)] == created
        store.remove("_annotations")


def test_a_damaged_record_is_refused(store: Store) -> None:
    open_annotation(store, record(), ())
    name = "_annotations/ratings-1/columns.json"
    store.write(name, store.read(name).replace(b"good", b"bad"))
    with pytest.raises(VerifyError, match=r"ratings-1/columns.json is damaged"):
        list_annotations(store)
    for name, version in (("a/b", "1"), ("a", "1/2"), ("", "1")):
        with pytest.raises(ConfigError, match="annotation"):
            record(name, version=version)
