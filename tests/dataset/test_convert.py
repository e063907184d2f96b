"""A dataset becomes cuts of Lhotse and a dataset of Hugging Face."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from output_factory import config, corpus, make_output

from audiopipe.dataset.export.run import export
from audiopipe.dataset.reader import Dataset

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("convert")
    make_output(config(corpus(folder / "corpus"), folder / "out", max_loudness_lufs=-14.85))
    return Dataset(str(folder / "out"))


def test_cuts_have_audio_text_speaker_and_language(dataset: Dataset) -> None:
    cuts = dataset.to_lhotse()
    assert cuts.is_lazy
    for _ in range(2):  # a CutSet can be read again
        for cut, segment in zip(cuts, dataset, strict=True):
            np.testing.assert_array_equal(cut.load_audio()[0], segment.audio)
            (supervision,) = cut.supervisions
            assert cut.id == segment.key
            assert (supervision.text, supervision.speaker) == (segment.text, segment.speaker)
            assert supervision.language == segment.language
            assert cut.custom["loudness_lufs"] == segment.metrics["loudness_lufs"]
    english = dataset.filter("language = 'en'").to_lhotse().to_eager()
    assert len(english) == len(dataset.filter("language = 'en'"))


def test_hugging_face_gets_the_audio_and_all_columns(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    table = dataset.to_huggingface(cache_dir=tmp_path)
    assert table.features["audio"] == datasets.Audio(sampling_rate=16_000)
    assert table.features["loudness_range_lu"] == datasets.Value("float32")
    rows = list(table.cast_column("audio", datasets.Audio(decode=False)))
    assert [row["audio"]["bytes"] for row in rows] == [segment.read_bytes() for segment in dataset]
    assert sf.info(io.BytesIO(rows[0]["audio"]["bytes"])).samplerate == 16_000
    assert {name: rows[0][name] for name in rows[0] if name != "audio"}.items() <= next(iter(dataset)).row.items()
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.arrow")}
    assert dataset.to_huggingface(cache_dir=tmp_path).num_rows == len(dataset)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.arrow")} == files, "written once"
    few = dataset.filter("language = 'de'").to_huggingface(["text"], cache_dir=tmp_path)
    assert (few.column_names, few.num_rows) == (["audio", "text"], len(dataset.filter("language = 'de'")))
    assert dataset.filter("language = 'xx'").to_huggingface(cache_dir=tmp_path).num_rows == 0


def run_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the Python of a card in its folder, as it is printed, and return the names that it leaves."""
    blocks = re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec("\n".join(blocks), names)
    return names


def test_the_code_of_a_card_runs_as_printed(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    first = next(iter(dataset))
    names = run_card(Path(dataset.url), monkeypatch)
    np.testing.assert_array_equal(names["audio"], first.audio)
    assert names["about"]["loudness_lufs"] == pytest.approx(first.metrics["loudness_lufs"], abs=1e-4)
    assert (names["sample"]["flac"], names["sample"]["json"]) == (first.read_bytes(), names["about"])
    export(dataset.url, str(tmp_path / "parquet"), format="parquet")
    exported = run_card(tmp_path / "parquet", monkeypatch)["dataset"]["train"]
    assert exported[0]["audio"]["bytes"] == next(iter(dataset.filter("language = 'de'"))).read_bytes()
