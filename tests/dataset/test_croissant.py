"""Each dataset has a description in Croissant, which the library of that format validates and reads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from output_factory import config, corpus, make_output

from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.verify import verify


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("croissant")
    make_output(config(corpus(folder / "corpus"), folder / "out", max_loudness_lufs=-14.85))
    return folder / "out"


@pytest.mark.filterwarnings("default")
def test_mlcroissant_validates_and_reads_it(output: Path) -> None:
    import mlcroissant

    description = mlcroissant.Dataset(str(output / "croissant.json"))
    assert not description.metadata.issues.errors
    dataset = Dataset(str(output))
    rows: list[dict[str, Any]] = list(description.records("segments"))
    expected = dataset.segments().to_pylist()
    assert {row["segments/key"].decode() for row in rows} == {row["key"] for row in expected}
    assert len(rows) == len(expected)
    assert {name.partition("/")[2] for name in rows[0]} == set(dataset.columns)


def test_it_names_files_relative_to_itself(output: Path) -> None:
    text = (output / "croissant.json").read_text()
    assert str(output) not in text
    files = [item for item in json.loads(text)["distribution"] if item["@type"] == "cr:FileObject"]
    assert [item["contentUrl"] for item in files] == (output / "tars.txt").read_text().split()
    for item in files:
        assert item["sha256"] == hashlib.sha256((output / item["contentUrl"]).read_bytes()).hexdigest()
    assert not verify(str(output)).findings
