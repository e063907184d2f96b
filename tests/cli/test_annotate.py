"""`audiopipe annotate --from`, and what verify, gc, restore and the description say of annotations."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from output_factory import config, corpus, make_output

from audiopipe.cli import main
from audiopipe.dataset.annotations import list_annotations
from audiopipe.dataset.backup import restore
from audiopipe.dataset.checksum import verify_checksum
from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.verify import verify
from audiopipe.report.dataset_tables import read_tables
from audiopipe.store.objects import Store


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("annotated")
    return make_output(config(corpus(folder / "c", videos=4, missing=False), folder / "out"))


@pytest.fixture(scope="module")
def labels(output: Store) -> Path:
    frame = Dataset(output.url).to_pandas(["key"])
    path = Path(output.url).parent / "labels.csv"
    frame.assign(mos=3.5, kind="speech").to_csv(path, index=False)
    return path


@pytest.fixture
def store(output: Store, labels: Path) -> Iterator[Store]:
    """Return an annotated output."""
    result = call("annotate", output.url, "--from", labels)
    assert result.exit_code == 0, result.output
    yield output
    for name in [item.record.id for item in list_annotations(output)]:
        assert call("annotate", output.url, "--remove", name).exit_code == 0
    collect_garbage(output.url, remove=True, min_age_h=0)


def annotation_folder(store: Store) -> str:
    (annotation,) = list_annotations(store)
    return annotation.record.folder


def test_the_command_adds_lists_and_removes_columns(store: Store, labels: Path) -> None:
    (annotation,) = list_annotations(store)
    repeated = call("annotate", store.url, "--from", labels, "--json")
    assert repeated.exit_code == 0
    assert json.loads(repeated.stdout) | {"wall_s": 0} == {
        "output": store.url,
        "annotations": [annotation.record.id],
        "columns": ["mos", "kind"],
        "shards": 2,
        "annotated": 2,
        "new": 0,
        "uncommitted": 0,
        "failed": {},
        "stopped": None,
        "workers_retired": {},
        "counts": {"rows": 8, "segments": 8, "matched": 8, "unknown": 0, "examples": []},
        "unfinished_code": 4,
        "wall_s": 0,
    }
    listed = call("annotate", store.url, "--list")
    assert listed.stdout == f"{annotation.record.id}: mos (float), kind (string); 2 shards; file labels.csv, key key\n"
    assert json.loads(call("annotate", store.url, "--list", "--json").stdout)[0]["columns"] == ["mos", "kind"]
    assert verify(store.url).findings == ()
    described = verify_checksum(store.read("dataset.json"), "dataset.json")
    assert described["annotations"] == {annotation.record.id: ["mos", "kind"]}
    assert f"| `mos` | `_annotations/{annotation.record.id}` |" in store.read("README.md").decode()
    assert call("annotate", store.url, "--remove", annotation.record.id).exit_code == 0
    assert not [name for name in store.list() if "annotation" in name]
    assert verify(store.url).findings == ()
    assert "annotations" not in verify_checksum(store.read("dataset.json"), "dataset.json")
    assert call("annotate", store.url, "--list").stdout == "no annotations\n"
    missing = call("annotate", store.url, "--remove", annotation.record.id)
    assert (missing.exit_code, "it has none" in missing.output) == (2, True)


def test_dataset_and_quality_report_have_the_columns(store: Store) -> None:
    dataset = Dataset(store.url)
    assert set(dataset.segments(["mos"])["mos"].to_pylist()) == {3.5}
    assert len(dataset.filter("mos > 3 AND kind = 'speech'")) == 8
    assert len(dataset.filter("mos > 4")) == 0
    tables = read_tables(store.url)
    assert (tables.metrics["mos"].type, tables.segments["mos"].unique().tolist()) == ("float", [3.5])


def test_wrong_use_is_refused(output: Store, labels: Path, tmp_path: Path) -> None:
    assert call("annotate", output.url).exit_code == 2
    assert call("annotate", output.url, "--from", labels, "--list").exit_code == 2
    elsewhere = call("annotate", tmp_path, "--from", labels)
    assert (elsewhere.exit_code, "is not the output of a run" in elsewhere.output) == (1, True)
    shard = call("annotate", output.url, "--from", labels, "--shard", "en-000009")
    assert (shard.exit_code, "no shard 'en-000009'" in shard.output) == (2, True)
    assert not list_annotations(output)


def test_verify_finds_each_defect_and_its_command_repairs_it(store: Store, labels: Path) -> None:
    folder = annotation_folder(store)
    table, commit = f"{folder}/en-000000.parquet", f"{folder}/en-000000.json"
    other = f"{folder}/de-000000"
    good = {name: store.read(name) for name in store.list(folder)}
    damaged = bytearray(good[table])
    damaged[40] ^= 1
    defects = {
        "is committed but missing": {table: None},
        "differs from the sha256": {table: bytes(damaged)},
        "has 3 bytes": {table: b"abc"},
        "is missing: the shard is not annotated": {commit: None, table: None},
        "is damaged": {commit: b"{}"},
        "is the commit of de-000000": {commit: good[f"{other}.json"]},
    }
    for problem, changes in defects.items():
        for name, data in changes.items():
            store.remove_all([name]) if data is None else store.write(name, data)
        findings = verify(store.url).findings
        assert [problem in finding.problem for finding in findings] == [True], (problem, findings)
        words = shlex.split(findings[0].remedy.replace("labels.csv", str(labels)))
        assert words[:2] == ["audiopipe", "annotate"]
        repaired = call(*words[1:])
        assert repaired.exit_code == 0, repaired.output
        assert verify(store.url).findings == (), problem
        assert store.read(table) == good[table]


def test_verify_compares_keys_and_origin(store: Store, labels: Path) -> None:
    from audiopipe.dataset.annotation_shards import commit_annotation, reopen_annotation
    from audiopipe.dataset.annotations import AnnotationRecord
    from audiopipe.dataset.commit import read_commits
    from audiopipe.store.parquet import read_table

    (annotation,) = list_annotations(store)
    record, commit = annotation.record, read_commits(store)["en-000000"]
    table = read_table(store.read(record.table_name("en-000000")))
    reopen_annotation(store, record, ["en-000000"])
    commit_annotation(store, record, commit, commit.result, table.slice(1))
    (finding,) = verify(store.url).findings
    assert finding.problem == "does not have the keys of its shard's segments"
    assert verify(store.url, fast=True).findings == ()
    reopen_annotation(store, record, ["en-000000"])
    commit_annotation(
        store, AnnotationRecord(record.name, record.version, record.columns, {}), commit, commit.result, table
    )
    (finding,) = verify(store.url, fast=True).findings
    assert finding.problem == "was made for other columns or from another source"


def test_a_damaged_record_is_restored_from_its_copy(store: Store) -> None:
    name = f"{annotation_folder(store)}/columns.json"
    data = store.read(name)
    store.write(name, data.replace(b"mos", b"mis"))
    (finding,) = verify(store.url).findings
    assert (finding.name, finding.remedy) == (name, f"audiopipe restore {store.url}")
    assert restore(store.url) == [name]
    assert store.read(name) == data
    store.remove_all([name])
    assert restore(store.url) == [name]
    assert verify(store.url).findings == ()


def test_gc_removes_what_no_commit_names(store: Store) -> None:
    folder = annotation_folder(store)
    good = store.list()
    table = store.read(f"{folder}/en-000000.parquet")
    orphans = [f"{folder}/en-000007.parquet", f"{folder}/en-000007.json", f"{folder}/notes.txt"]
    orphans += ["_annotations/removed-1/en-000000.parquet", "_parts/en-000000/abandoned/en-000000.parquet"]
    for name in orphans:
        store.write(name, table)
    findings = {finding.name for finding in verify(store.url).findings}
    assert findings == {name for name in orphans if "_parts" not in name}
    assert collect_garbage(store.url).objects.keys().isdisjoint(orphans)  # they are too young
    assert collect_garbage(store.url, remove=True, min_age_h=0).objects.keys() >= set(orphans)
    assert store.list() == good
    # A table that was committed and not yet published stays.
    (annotation,) = list_annotations(store)
    from audiopipe.dataset.annotation_shards import read_annotation_commits
    from audiopipe.dataset.commit import read_commits

    (item,) = read_annotation_commits(store, annotation.record, read_commits(store))["en-000000"].objects
    store.publish(item.name, item.part, item.size)
    assert item.part not in collect_garbage(store.url, remove=True, min_age_h=0).objects
    store.publish(item.part, item.name, item.size)
