"""Load real output with the tools that people use."""

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
import soundfile as sf
import torch
from output_factory import config, corpus, make_output

# NVIDIA NeMo's own rule for the tars of a tarred dataset, and the fields that its manifests must have.
NEMO_TAR = re.compile(r"audio[^/]*_(\d+)[^/]*\.tar")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loaders")
    make_output(config(corpus(folder / "c"), folder / "out"))
    return folder / "out"


@pytest.fixture
def tars(dataset: Path) -> list[str]:
    return [str(dataset / name) for name in (dataset / "tars.txt").read_text().split()]


@pytest.mark.filterwarnings("default")
def test_webdataset_reads_every_sample(tars: list[str]) -> None:
    import webdataset as wds

    samples = list(wds.WebDataset(tars, shardshuffle=False))
    assert len(samples) == 10
    for sample in samples:
        sidecar = json.loads(sample["json"])
        audio, rate = sf.read(io.BytesIO(sample["flac"]))
        assert sample["__key__"] == sidecar["key"]
        assert (rate, len(audio) / rate) == (16_000, pytest.approx(sidecar["duration_s"], abs=1e-3))


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("streaming", [True, False])
def test_hugging_face_datasets_reads_every_sample(
    tars: list[str], streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    # The Audio feature needs torchcodec, which is not always installed: the audio is read as bytes.
    with tarfile.open(tars[0]) as tar:
        sidecar = json.loads(next(tar.extractfile(member).read() for member in tar if member.name.endswith(".json")))
    text, sidecar_type = pa.string(), pa.array([sidecar]).type
    schema = pa.schema([("__key__", text), ("__url__", text), ("flac", pa.binary()), ("json", sidecar_type)])
    rows = list(
        datasets.load_dataset(
            "webdataset",
            data_files={"train": tars},
            split="train",
            streaming=streaming,
            cache_dir=str(tmp_path),
            features=datasets.Features.from_arrow_schema(schema),
        )
    )
    assert len(rows) == 10
    assert {row["json"]["text"] for row in rows} == {"one", "two"}
    assert all(sf.info(io.BytesIO(row["flac"])).samplerate == 16_000 for row in rows)


def test_pandas_and_duckdb_read_the_tables(dataset: Path) -> None:
    frame = pd.concat(pd.read_parquet(path) for path in sorted(dataset.glob("*/segments_*.parquet")))
    assert frame["kept"].sum() == 10
    with duckdb.connect() as database:
        query = f"SELECT language, count(*) FROM '{dataset}/*/segments_*.parquet' WHERE kept GROUP BY 1 ORDER BY 1"
        assert database.sql(query).fetchall() == [("de", 4), ("en", 6)]
        failed = f"SELECT video_id, error_type FROM '{dataset}/*/videos_*.parquet' WHERE status = 'failed'"
        assert database.sql(failed).fetchall() == [("nowhere", "MissingSource")]


@pytest.mark.filterwarnings("default")
def test_lhotse_makes_cuts_of_every_sample(tars: list[str]) -> None:
    import webdataset as wds
    from lhotse import CutSet, Recording, SupervisionSegment
    from lhotse.dataset import SimpleCutSampler

    def make_cut(sample: dict[str, bytes]) -> Any:
        sidecar = json.loads(sample["json"])
        cut = Recording.from_bytes(sample["flac"], sidecar["key"]).to_cut()
        supervision = SupervisionSegment(sidecar["key"], sidecar["key"], 0.0, cut.duration, text=sidecar["text"])
        cut.supervisions = [supervision]
        return cut

    cuts = CutSet.from_cuts(map(make_cut, wds.WebDataset(tars, shardshuffle=False)))
    assert sorted(cut.supervisions[0].text for cut in cuts) == ["one"] * 5 + ["two"] * 5
    for cut in cuts:
        assert cut.sampling_rate == 16_000
        assert cut.load_audio().shape == (1, 12_800)
    assert [len(batch) for batch in SimpleCutSampler(cuts, max_duration=5.0)] == [6, 4]


@pytest.mark.parametrize("kind", ["manifest", "unique_manifest"])
def test_nemo_s_rules_hold_for_every_tar_and_manifest(dataset: Path, tars: list[str], kind: str) -> None:
    for tar in tars:
        match = NEMO_TAR.fullmatch(Path(tar).name)
        assert match, tar
        manifest = Path(tar).parent / f"{kind}_{match[1]}.json"
        rows = [json.loads(line) for line in manifest.read_text().splitlines()]
        with tarfile.open(tar) as archive:
            audio = {
                member.name: archive.extractfile(member).read() for member in archive if member.name.endswith("flac")
            }
        # NeMo skips samples that are in a tar and not in its manifest.
        listed = [row["audio_filepath"] for row in rows]
        assert listed == [name for name in audio if name in listed]
        assert kind == "unique_manifest" or len(listed) == len(audio)
        for row in rows:
            assert row.keys() >= {"audio_filepath", "duration", "text", "shard_id", "lang"}
            assert row["shard_id"] == int(match[1])
            assert sf.info(io.BytesIO(audio[row["audio_filepath"]])).duration == pytest.approx(
                row["duration"], abs=1e-3
            )


@pytest.mark.filterwarnings("default")
def test_a_torch_data_loader_makes_batches(tars: list[str]) -> None:
    import webdataset as wds

    def decode(sample: dict[str, bytes]) -> tuple[torch.Tensor, str]:
        audio, _ = sf.read(io.BytesIO(sample["flac"]), dtype="float32")
        return torch.from_numpy(audio[:8000]), json.loads(sample["json"])["text"]

    loader = torch.utils.data.DataLoader(wds.WebDataset(tars, shardshuffle=False).map(decode), batch_size=5)
    batches = list(loader)
    assert [audio.shape for audio, _ in batches] == [(5, 8000), (5, 8000)]
    assert sorted(text for _, texts in batches for text in texts) == ["one"] * 5 + ["two"] * 5
