"""Open exports of real output with the libraries that train on them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from output_factory import config, corpus, make_output

from audiopipe.dataset.export.run import export
from audiopipe.dataset.reader import Dataset

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

# Libraries whose requirements contradict those of this project get an environment that sees this one's packages. A line
# for each of them: its name and its packages.
PACKAGES = dict(line.split(" ", 1) for line in Path(__file__).with_name("export_readers.txt").read_text().splitlines())
READ_MDS = """
import io, json, sys
import soundfile
from streaming import StreamingDataset
rows = []
for sample in StreamingDataset(local=sys.argv[1], batch_size=1, shuffle=False):
    frames = len(soundfile.read(io.BytesIO(sample["audio"]))[0])
    rows.append([sample["key"], sample["text"], sample["language"], frames, sample["metadata"]["snr_db"]])
print(json.dumps(rows))
"""
READ_ENERGON = """
import io, json, sys
import soundfile
from megatron.energon import Cooker, DefaultTaskEncoder, WorkerConfig, get_loader, get_val_dataset, stateless
class Encoder(DefaultTaskEncoder):
    cookers = [Cooker(stateless(lambda sample: sample))]
    def batch(self, samples):
        return samples
    def encode_batch(self, batch):
        return batch
def count_samples(audio):  # bytes in version 5, a decoder with a stream in version 7
    return len(soundfile.read(io.BytesIO(audio) if isinstance(audio, bytes) else audio.stream)[0])
worker = WorkerConfig(rank=0, world_size=1, num_workers=0)
dataset = get_val_dataset(
    sys.argv[1], split_part="train", worker_config=worker, batch_size=2, task_encoder=Encoder(),
)
rows = []
for batch in get_loader(dataset):
    for sample in batch:
        row = sample["json"]
        rows.append([row["key"], row["text"], row["language"], count_samples(sample["flac"]), row["snr_db"]])
print(json.dumps(rows))
"""


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("readers")
    make_output(config(corpus(folder / "corpus", seconds=4.0), folder / "out"))
    return str(folder / "out")


@pytest.fixture(scope="module")
def expected(output: str) -> list[list[Any]]:
    return [
        [segment.key, segment.text, segment.language, len(segment.audio), segment.metrics["snr_db"]]
        for segment in Dataset(output)
    ]


def make_environment(folder: Path, packages: str) -> Path:
    """Make an environment that sees its packages first, then those of this one; return its Python."""
    subprocess.run([sys.executable, "-m", "uv", "venv", "-q", "--python", sys.executable, folder], check=True)
    python = folder / "bin/python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    (folder / "lib" / version / "site-packages/parent.pth").write_text(sysconfig.get_paths()["purelib"])
    install = [sys.executable, "-m", "uv", "pip", "install", "-q", "--python", python, "--no-deps", *packages.split()]
    done = subprocess.run(install, check=False, capture_output=True, text=True, timeout=240)
    if done.returncode:
        pytest.skip(f"the packages cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return python


def read_with(python: Path | str, script: str, folder: Path) -> list[list[Any]]:
    done = subprocess.run(
        [python, "-W", "ignore", "-c", script, str(folder)], check=False, capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    rows: list[list[Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def assert_same(rows: list[list[Any]], expected: list[list[Any]]) -> None:
    ordered = [sorted(table, key=lambda row: row[:1]) for table in (rows, expected)]
    assert [row[:4] for row in ordered[0]] == [row[:4] for row in ordered[1]]
    np.testing.assert_allclose([row[4] for row in ordered[0]], [row[4] for row in ordered[1]], rtol=1e-5)


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_loads_parquet_without_a_script(
    output: str, expected: list[list[Any]], tmp_path: Path, streaming: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    export(output, str(tmp_path / "parquet"))
    options = {"streaming": streaming, "cache_dir": str(tmp_path / "cache")}
    dataset = datasets.load_dataset(str(tmp_path / "parquet"), split="train", **options)
    assert isinstance(dataset.features["audio"], datasets.Audio)
    # The bytes: to decode them, the library needs torchcodec and FFmpeg's shared libraries.
    rows = list(dataset.cast_column("audio", datasets.Audio(decode=False)))
    frames = [len(sf.read(io.BytesIO(row["audio"]["bytes"]))[0]) for row in rows]
    got = [
        [row["key"], row["text"], row["language"], count, row["snr_db"]]
        for row, count in zip(rows, frames, strict=True)
    ]
    assert_same(got, expected)
    english = datasets.load_dataset(str(tmp_path / "parquet"), "en", split="train", **options)
    assert english.features == dataset.features
    assert {row["language"] for row in english.select_columns("language")} == {"en"}
    files = {"train": [str(path) for path in sorted(tmp_path.glob("parquet/*/*.parquet"))]}
    assert datasets.load_dataset("parquet", data_files=files, split="train", **options).features == dataset.features


def test_lhotse_loads_shar(output: str, expected: list[list[Any]], tmp_path: Path) -> None:
    from lhotse import CutSet

    export(output, str(tmp_path), format="lhotse-shar")
    fields = json.loads((tmp_path / "fields.json").read_text())
    cuts = CutSet.from_shar(fields={name: [str(tmp_path / file) for file in files] for name, files in fields.items()})

    def rows_of(cuts: Any) -> Iterator[list[Any]]:
        for cut in cuts:
            (supervision,) = cut.supervisions
            audio = cut.load_audio()
            yield [cut.id, supervision.text, supervision.language, audio.shape[1], cut.custom["snr_db"]]

    assert_same(list(rows_of(cuts)), expected)
    english = CutSet.from_shar(in_dir=tmp_path / "en/train")
    assert_same(list(rows_of(english)), [row for row in expected if row[2] == "en"])


def test_mosaicml_streaming_loads_mds(output: str, expected: list[list[Any]], tmp_path: Path) -> None:
    export(output, str(tmp_path / "mds"), format="mds")
    python = make_environment(tmp_path / "environment", PACKAGES["mds"])
    assert_same(read_with(python, READ_MDS, tmp_path / "mds"), expected)
    assert_same(read_with(python, READ_MDS, tmp_path / "mds/de/train"), [row for row in expected if row[2] == "de"])


@pytest.mark.parametrize("version", ["installed", "7"])
def test_energon_loads_the_tars(output: str, expected: list[list[Any]], tmp_path: Path, version: str) -> None:
    export(output, format="energon")
    python = sys.executable if version == "installed" else make_environment(tmp_path / "e", PACKAGES["energon"])
    assert_same(read_with(python, READ_ENERGON, Path(output)), expected)
