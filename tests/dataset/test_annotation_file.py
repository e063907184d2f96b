"""Annotations from files: formats and types, keys that are checked, tables by shard, and the same bytes again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from output_factory import config, corpus, make_output

from audiopipe.dataset.annotation_file import AnnotationFile, KeyCounts
from audiopipe.dataset.annotation_import import compare_keys, import_annotation
from audiopipe.dataset.annotations import list_annotations
from audiopipe.dataset.commit import read_commits
from audiopipe.dataset.reader import Dataset
from audiopipe.errors import ConfigError
from audiopipe.store.objects import Store
from audiopipe.store.parquet import read_table


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("annotated")
    return make_output(config(corpus(folder / "c", videos=6), folder / "out"))


@pytest.fixture
def store(output: Store) -> Iterator[Store]:
    yield output
    output.remove("_annotations")


@pytest.fixture(scope="module")
def labels(output: Store) -> pd.DataFrame:
    """Return a label of every kind for each segment, shuffled, and without the first segment."""
    frame = Dataset(output.url).to_pandas(["key"])
    frame["mos"] = [3.25 + row / 100 for row in range(len(frame))]
    frame["votes"] = range(len(frame))
    frame["ok"] = [row % 2 == 0 for row in range(len(frame))]
    frame["note"] = [None, "2024-01-02", *["a, b\nc"] * (len(frame) - 2)]
    return frame.iloc[1:].sample(frac=1, random_state=0)


def add(store: Store, path: Path | str, folder: Path, ignore_unknown: bool = False, **options: object) -> KeyCounts:
    """Annotate an output from a file."""
    scratch = folder / "scratch"
    scratch.mkdir(exist_ok=True)
    (scratch / "annotation.duckdb").unlink(missing_ok=True)
    file = AnnotationFile(str(path), scratch, **options)  # type: ignore[arg-type]
    try:
        commits = read_commits(store)
        counts = compare_keys(store, file, commits, ignore_unknown)
        import_annotation(store, file, file.record(), commits, Dataset(store.url).schema.names)
        return counts
    finally:
        file.close()


def read(store: Store) -> pa.Table:
    """Read all tables of the only annotation, by shard."""
    (annotation,) = list_annotations(store)
    return pa.concat_tables([read_table(store.read(name)) for name in annotation.tables(sorted(annotation.shards))])


def write(frame: pd.DataFrame, path: Path) -> Path:
    match path.name.partition(".")[2]:
        case "parquet":
            pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), path)
        case "csv" | "csv.gz":
            frame.to_csv(path, index=False)
        case "tsv":
            frame.to_csv(path, index=False, sep="\t")
        case _:
            frame.to_json(path, orient="records", lines=True)
    return path


@pytest.mark.parametrize("suffix", ["parquet", "csv", "csv.gz", "tsv", "jsonl"])
def test_values_of_each_format_reach_their_segments(
    store: Store, labels: pd.DataFrame, tmp_path: Path, suffix: str
) -> None:
    counts = add(store, write(labels, tmp_path / f"my labels.{suffix}"), tmp_path)
    rows = Dataset(store.url).segments(["language", "shard", "key"])
    assert counts == KeyCounts(len(labels), len(rows), len(labels), 0, ())
    table = read(store)
    assert [(field.name, str(field.type)) for field in table.schema][3:] == [
        ("mos", "float"),
        ("votes", "int32"),
        ("ok", "bool"),
        ("note", "string"),
    ]
    assert table.select(["language", "shard", "key"]).equals(rows)
    expected = labels.set_index("key").reindex(rows["key"].to_pylist())
    for name in ("votes", "ok", "note"):
        values = [None if pd.isna(value) else value for value in expected[name]]
        assert table[name].to_pylist() == values
    assert table["mos"].to_pylist()[0] is None
    assert table["mos"].to_pylist()[1:] == pytest.approx(expected["mos"].tolist()[1:])
    (annotation,) = list_annotations(store)
    assert annotation.record.name == "my-labels"
    assert annotation.shards == read_commits(store).keys()  # also the shard without segments


def test_the_same_file_gives_the_same_bytes(store: Store, labels: pd.DataFrame, tmp_path: Path) -> None:
    path = write(labels, tmp_path / "labels.parquet")
    add(store, path, tmp_path)
    first = {
        name: store.read(name) for name in store.list("_annotations") if name.endswith("s.json") or "json" not in name
    }
    # Interrupted: one shard is not committed; another has lost its table.
    names = sorted(name for name in first if name.endswith(".parquet"))
    store.remove_all([names[0], names[0].replace(".parquet", ".json"), names[1]])
    add(store, path, tmp_path)
    assert {name: store.read(name) for name in first} == first
    store.remove("_annotations")
    add(store, path, tmp_path)
    assert {name: store.read(name) for name in first} == first
    write(labels.assign(votes=1), path)
    with pytest.raises(ConfigError, match="'mos' is already one of annotation labels-"):
        add(store, path, tmp_path)


def test_a_file_at_another_address_is_read(store: Store, labels: pd.DataFrame, tmp_path: Path) -> None:
    local = write(labels, tmp_path / "labels.csv")
    fsspec.filesystem("memory").pipe_file("/far/labels.csv", local.read_bytes())
    assert add(store, "memory://far/labels.csv", tmp_path).matched == len(labels)
    with pytest.raises(ConfigError, match="the file does not exist"):
        add(store, "memory://far/none.csv", tmp_path)
    with pytest.raises(ConfigError, match="the file does not exist"):
        add(store, tmp_path / "none.csv", tmp_path)


def test_a_row_can_name_video_and_segment(store: Store, tmp_path: Path) -> None:
    frame = Dataset(store.url).to_pandas(["video_id", "segment", "language"])
    frame["score"] = range(len(frame))
    add(store, write(frame, tmp_path / "scores.csv"), tmp_path)
    assert read(store)["score"].to_pylist() == list(range(len(frame)))


def test_columns_and_the_key_can_be_named(store: Store, labels: pd.DataFrame, tmp_path: Path) -> None:
    path = write(labels.rename(columns={"key": "name"}), tmp_path / "labels.csv")
    with pytest.raises(ConfigError, match=r"neither a column 'key' nor .* it has name, mos, votes, ok, note; .*--key"):
        add(store, path, tmp_path)
    with pytest.raises(ConfigError, match="no column 'id'"):
        add(store, path, tmp_path, key_column="id")
    with pytest.raises(ConfigError, match="no column 'moss'"):
        add(store, path, tmp_path, key_column="name", columns=["moss"])
    add(store, path, tmp_path, key_column="name", columns=["ok", "mos"])
    assert read(store).column_names[3:] == ["ok", "mos"]


def test_wrong_keys_are_refused_with_examples(store: Store, labels: pd.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "labels.parquet"
    extra = pd.DataFrame({"key": [f"gone_{number:05d}" for number in range(4)], "mos": 1.0})
    write(pd.concat([labels, extra]), path)
    count = len(labels) + 4
    with pytest.raises(ConfigError, match=rf"4 of {count} keys .* \(gone_00000, gone_00001, gone_00002, …\).*--ignore"):
        add(store, path, tmp_path)
    assert not store.list("_annotations")
    assert add(store, path, tmp_path, ignore_unknown=True).unknown == 4
    write(pd.concat([labels, labels.head(2)]), path)
    with pytest.raises(ConfigError, match=rf"2 keys are there more than once \(.*{labels['key'].iloc[0]}"):
        add(store, path, tmp_path)
    write(labels.assign(key=[None, *labels["key"].iloc[1:]]), path)
    with pytest.raises(ConfigError, match="1 rows have no key"):
        add(store, path, tmp_path)


def test_a_key_of_two_languages_needs_the_language(tmp_path: Path) -> None:
    tables = []
    for number, language in enumerate(["de", "en"]):
        rows = {"key": ["v_0", "v_1"], "video_id": ["v", "v"], "segment": [0, 1], "language": [language] * 2}
        pq.write_table(pa.table(rows | {"shard": [number] * 2}), tmp_path / f"{language}.parquet")
        tables.append(str(tmp_path / f"{language}.parquet"))
    frame = pd.DataFrame({"video_id": ["v", "v"], "segment": [1, 0], "language": ["en", "de"], "n": [7, 8]})
    write(frame.drop(columns="language"), tmp_path / "a.csv")
    file = AnnotationFile(str(tmp_path / "a.csv"), tmp_path)
    with pytest.raises(ConfigError, match=r"2 keys belong to segments of two languages.*\(v 0, v 1\)"):
        file.compare(Store(str(tmp_path)), tables)
    file.close()
    (tmp_path / "annotation.duckdb").unlink()
    file = AnnotationFile(str(write(frame, tmp_path / "b.csv")), tmp_path)
    assert file.compare(Store(str(tmp_path)), tables).matched == 2
    assert [table["n"].to_pylist() for *_, table in file.shards()] == [[8, None], [None, 7]]
    file.close()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([2**40], r"whole numbers of more than 32 bits \(1099511627776 to 1099511627776\)"),
        ([{"a": 1}], "has the type STRUCT"),
        ([["a"]], r"has the type VARCHAR\[\]"),
    ],
)
def test_values_without_a_type_of_ours_are_refused(
    store: Store, tmp_path: Path, values: list[object], message: str
) -> None:
    key = Dataset(store.url).to_pandas(["key"])["key"].iloc[0]
    pq.write_table(pa.table({"key": [key], "x": values}), tmp_path / "x.parquet")
    with pytest.raises(ConfigError, match=message):
        add(store, tmp_path / "x.parquet", tmp_path)


def test_odd_values_and_files(store: Store, tmp_path: Path) -> None:
    keys = Dataset(store.url).to_pandas(["key"])["key"].tolist()
    table = {
        "key": keys[:4],
        "x": pa.array([float("nan"), float("inf"), 1e-3, None]),
        "vector": pa.array([[1.0, 2.0], [], None, [3.0]], pa.list_(pa.float64())),
        "day": pa.array([1, 2, 3, None], pa.date32()),
        "nothing": pa.nulls(4),
    }
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    add(store, tmp_path / "x.parquet", tmp_path)
    rows = read(store).slice(0, 4).to_pydict()
    assert rows["x"] == [None, None, pytest.approx(1e-3), None]
    assert rows["vector"] == [[1.0, 2.0], [], None, [3.0]]
    assert rows["day"] == ["1970-01-02", "1970-01-03", "1970-01-04", None]
    assert rows["nothing"] == [None] * 4
    for name, content, message in (
        ("a.txt", "", "must end in .parquet, .csv"),
        ("a.parquet", "no table", "cannot be read"),
        ("a.jsonl", json.dumps({"key": keys[0]}), "there is nothing to add"),
        ("a.csv", "key\n", "there is nothing to add"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(ConfigError, match=message):
            add(store, tmp_path / name, tmp_path)
