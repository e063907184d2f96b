"""An export writes a dataset in another format, with the same bytes each time, and continues where it was stopped."""

from __future__ import annotations

import gzip
import json
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from output_factory import config, corpus, make_output
from selection_factory import make_samples, select_here

from audiopipe.cli import main
from audiopipe.dataset.annotation_file import AnnotationFile
from audiopipe.dataset.annotation_import import compare_keys, import_annotation
from audiopipe.dataset.annotation_shards import remove_annotation
from audiopipe.dataset.export.run import FORMATS, export
from audiopipe.dataset.reader import Dataset
from audiopipe.driver.annotate import annotate
from audiopipe.errors import ConfigError, VerifyError
from audiopipe.store.objects import Store

COPIES = [name for name in FORMATS if name != "energon"]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Ten segments in three shards of two languages; a limit drops some."""
    folder = tmp_path_factory.mktemp("export")
    make_output(config(corpus(folder / "corpus"), folder / "out", max_loudness_lufs=-14.85))
    return str(folder / "out")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", COPIES)
def test_the_same_dataset_gives_the_same_bytes(output: str, tmp_path: Path, name: str) -> None:
    first = export(output, str(tmp_path / "a"), format=name, threads=1)
    second = export(output, str(tmp_path / "b"), format=name, threads=3)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert first.samples == second.samples == len(Dataset(output)) > 0
    assert first.written == first.shards > 1
    export(output, "memory://exports/" + name, format=name)
    memory = fsspec.filesystem("memory")
    stored = {path.partition(f"/{name}/")[2]: memory.cat(path) for path in memory.find(f"/exports/{name}")}
    assert stored == content(tmp_path / "a")


@pytest.mark.parametrize("name", ["parquet", "mds"])
def test_an_interrupted_export_continues(
    output: str, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / "whole"
    export(output, str(whole), format=name)
    uploads: list[str] = []
    upload = Store.upload

    def interrupt_second(store: Store, path: Path, target: str) -> None:
        uploads.append(target)
        if len(uploads) == 2:
            raise KeyboardInterrupt
        upload(store, path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "upload", interrupt_second)
        with pytest.raises(KeyboardInterrupt):
            export(output, str(tmp_path / "part"), format=name, threads=1)
    half = content(tmp_path / "part")
    assert half.items() <= content(whole).items(), "whole files only"
    assert not any(path in half for path in ("README.md", "fields.json", "index.json"))
    summary = export(output, str(tmp_path / "part"), format=name)
    assert content(tmp_path / "part") == content(whole)
    assert summary.written == summary.shards - len([path for path in half if path.startswith("_export/")])
    assert export(output, str(tmp_path / "part"), format=name).written == 0


def test_parquet_files_have_the_audio_and_all_columns(output: str, tmp_path: Path) -> None:
    export(output, str(tmp_path), format="parquet")
    files = sorted(tmp_path.glob("*/*.parquet"))
    schemas = {pq.read_schema(path).metadata[b"huggingface"] for path in files}
    assert len(schemas) == 1
    features = json.loads(schemas.pop())["info"]["features"]
    assert features["audio"] == {"sampling_rate": 16_000, "_type": "Audio"}
    assert features["loudness_range_lu"] == {"dtype": "float32", "_type": "Value"}
    rows = {row["key"]: row for path in files for row in pq.read_table(path).to_pylist()}
    assert len(rows) == len(Dataset(output))
    for segment in Dataset(output):
        row = rows[segment.key]
        assert row["audio"] == {"bytes": segment.read_bytes(), "path": f"{segment.key}.flac"}
        assert {name: row[name] for name in row if name != "audio"}.items() <= segment.row.items()


def test_an_annotation_that_was_made_again_is_exported_again(output: str, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "out")
    store = Store(str(tmp_path / "out"))
    rows = Dataset(store.url).to_pandas()
    for stars in (1, 2):
        rows[["language", "key"]].assign(stars=stars).to_csv(tmp_path / f"{stars}.csv", index=False)
        (tmp_path / f"scratch-{stars}").mkdir()
        file = AnnotationFile(str(tmp_path / f"{stars}.csv"), tmp_path / f"scratch-{stars}")
        record = replace(file.record("stars"), version="1")  # as that of a scorer with other options
        compare_keys(store, file, Dataset(store.url).commits)
        import_annotation(store, file, record, Dataset(store.url).commits, rows.columns)
        file.close()
        export(store.url, str(tmp_path / "parquet"))
        tables = [pq.read_table(path, columns=["stars"]) for path in (tmp_path / "parquet").glob("*/*.parquet")]
        assert {value.as_py() for table in tables for value in table["stars"]} == {stars}
        table = Dataset(store.url).to_huggingface(["stars"], cache_dir=tmp_path / "cache")
        assert set(table["stars"]) == {stars}
        remove_annotation(store, record.id)


def test_every_type_of_column_is_exported(tmp_path: Path) -> None:
    url = make_samples(str(tmp_path / "out"), ("en",)).url
    keys = Dataset(url).to_pandas(where="kept").key
    values = {"flag": [True, None], "levels": [[0.5, 1.0], None], "word": ["ä", None], "count": [3, None]}
    labels = pd.DataFrame({"key": keys, **{name: pair * (len(keys) // 2) for name, pair in values.items()}})
    labels.astype({"count": "Int32"}).to_parquet(tmp_path / "labels.parquet")
    annotate(url, file=str(tmp_path / "labels.parquet"), scratch=str(tmp_path / "scratch"))
    expected = {segment.key: {name: segment.row[name] for name in values} for segment in Dataset(url)}
    assert {str(row) for row in expected.values()} == {
        str({name: pair[i] for name, pair in values.items()}) for i in (0, 1)
    }
    for name in COPIES:
        export(url, str(tmp_path / name), format=name)
    tables = [pq.read_table(path) for path in (tmp_path / "parquet").glob("*/*.parquet")]
    assert {
        row["key"]: {name: row[name] for name in values} for table in tables for row in table.to_pylist()
    } == expected
    features = json.loads(tables[0].schema.metadata[b"huggingface"])["info"]["features"]
    assert features["levels"] == {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"}
    lines = [
        json.loads(line)
        for path in (tmp_path / "lhotse-shar").glob("*/*/cuts.*.gz")
        for line in gzip.decompress(path.read_bytes()).splitlines()
    ]
    assert {cut["id"]: {name: cut["custom"][name] for name in values} for cut in lines} == expected
    data = b"".join(path.read_bytes() for path in (tmp_path / "mds").rglob("*.mds"))
    for row in expected.values():
        assert json.dumps(row, ensure_ascii=False)[1:-1].encode() in data


def test_mds_files_hold_each_sample(output: str, tmp_path: Path) -> None:
    export(output, str(tmp_path), format="mds")
    index = json.loads((tmp_path / "index.json").read_text())
    assert sum(shard["samples"] for shard in index["shards"]) == len(Dataset(output))
    for shard in index["shards"]:
        data = (tmp_path / shard["raw_data"]["basename"]).read_bytes()
        assert len(data) == shard["raw_data"]["bytes"]
        count = np.frombuffer(data[:4], np.uint32)[0]
        offsets = np.frombuffer(data[4 : 8 + 4 * count], np.uint32)
        assert (count, offsets[-1]) == (shard["samples"], len(data))


def test_mds_files_are_split_by_size(output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("audiopipe.dataset.export.mds.SIZE_LIMIT", 30_000)
    export(output, str(tmp_path), format="mds")
    files = list(tmp_path.glob("*/*/*.mds"))
    assert len(files) > 3
    assert all(path.stat().st_size < 30_000 or np.fromfile(path, np.uint32, 1)[0] == 1 for path in files)


def test_shar_has_cuts_and_recordings_in_one_order(output: str, tmp_path: Path) -> None:
    export(output, str(tmp_path), format="lhotse-shar")
    fields = json.loads((tmp_path / "fields.json").read_text())
    for cuts, recordings in zip(fields["cuts"], fields["recording"], strict=True):
        lines = [json.loads(line) for line in gzip.decompress((tmp_path / cuts).read_bytes()).splitlines()]
        with tarfile.open(tmp_path / recordings) as tar:
            assert tar.getnames() == [f"{cut['id']}{suffix}" for cut in lines for suffix in (".flac", ".json")]


def test_an_index_for_energon_has_the_samples_of_each_tar(output: str, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "out")
    before = content(tmp_path / "out")
    export(str(tmp_path / "out"), format="energon")
    after = content(tmp_path / "out")
    assert before.items() <= after.items()
    for tar_path in (tmp_path / "out").glob("*/audio_*.tar"):
        offsets = np.frombuffer(tar_path.with_suffix(".tar.idx").read_bytes(), np.uint64)
        with tarfile.open(tar_path) as tar:
            members = tar.getmembers()
            assert offsets[:-1].tolist() == [member.offset for member in members if member.name.endswith(".flac")]
            assert offsets[-1] == tar.offset


def test_a_destination_that_does_not_fit_is_refused(output: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="overlap"):
        export(output, f"{output}/export")
    with pytest.raises(ConfigError, match="overlap"):
        export(output, str(Path(output).parent))
    with pytest.raises(ConfigError, match="needs a destination"):
        export(output)
    with pytest.raises(ConfigError, match="leave the destination out"):
        export(output, str(tmp_path), format="energon")
    with pytest.raises(ConfigError, match="unknown format 'tfrecord'"):
        export(output, str(tmp_path), format="tfrecord")
    export(output, str(tmp_path / "parquet"))
    with pytest.raises(ConfigError, match="holds another export \\(format: parquet there, mds here"):
        export(output, str(tmp_path / "parquet"), format="mds")


def test_damage_costs_one_shard_and_names_it(output: str, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "out")
    tar, *others = sorted((tmp_path / "out").glob("*/audio_*.tar"))
    data = tar.read_bytes()
    tar.write_bytes(data[:3000])
    with pytest.raises(VerifyError, match=r"1 shards could not be exported, all others were: .*is shorter"):
        export(str(tmp_path / "out"), str(tmp_path / "parquet"))
    assert len(list(tmp_path.glob("parquet/*/*.parquet"))) == len(others)
    tar.write_bytes(data)
    assert export(str(tmp_path / "out"), str(tmp_path / "parquet")).written == 1


def test_an_unfinished_run_is_not_exported(output: str, tmp_path: Path) -> None:
    shutil.copytree(output, tmp_path / "out")
    commit, *_ = sorted((tmp_path / "out/_commits").iterdir())
    commit.unlink()
    with pytest.raises(ConfigError, match=r"1 of \d+ shards of .* are not committed: finish the run first"):
        export(str(tmp_path / "out"), str(tmp_path / "parquet"))


def test_the_command_writes_an_export(output: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["export", output, str(tmp_path / "mds"), "--format", "mds", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["samples"] == len(Dataset(output))
    assert (tmp_path / "mds/index.json").is_file()
    result = CliRunner().invoke(main, ["export", "run.ipynb", "run.html"])
    assert (result.exit_code, "audiopipe html run.ipynb run.html" in result.output) == (2, True)


@pytest.mark.parametrize("virtual", [False, True])
def test_a_selection_is_exported_by_split(tmp_path: Path, virtual: bool) -> None:
    make_samples(str(tmp_path / "parent"))
    options = {"where": "snr_db > 20", "split": "train=0.5,test=0.5", "virtual": virtual}
    url = select_here(str(tmp_path / "parent"), str(tmp_path / "out"), tmp_path / "scratch", **options).url
    export(url, str(tmp_path / "parquet"))
    rows = Dataset(url).to_pandas(["key", "split"], where="kept")
    for split, keys in rows.groupby("split")["key"]:
        tables = [pq.read_table(path, columns=["key"]) for path in tmp_path.glob(f"parquet/*/{split}-*.parquet")]
        assert sorted(key.as_py() for table in tables for key in table["key"]) == sorted(keys)
    assert '- split: test\n    path: "en/test-*.parquet"' in (tmp_path / "parquet/README.md").read_text()
    if virtual:
        with pytest.raises(ConfigError, match="a virtual selection has none"):
            export(url, format="energon")
    else:
        export(url, format="energon")
        splits = json.loads((tmp_path / "out/.nv-meta/split.yaml").read_text())["split_parts"]
        assert set(splits["test"]) == set((tmp_path / "out/tars_test.txt").read_text().split())
