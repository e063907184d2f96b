"""Load real output with the tools that people use."""

import importlib.machinery
import importlib.util
import io
import json
import re
import sys
import tarfile
import types
from pathlib import Path
from typing import Any

import braceexpand
import duckdb
import pandas as pd
import pyarrow as pa
import pytest
import soundfile as sf
import torch
from factories import wav_video
from output_factory import config, corpus, make_output

from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.verify import verify

# NVIDIA NeMo's own rule for the tars of a tarred dataset, and the fields that its manifests must have.
NEMO_TAR = re.compile(r"audio[^/]*_(\d+)[^/]*\.tar")
NEMO_MANIFEST = re.compile(r"manifest[^/]*_(\d+)[^/]*\.json")


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


@pytest.fixture
def hugging_face(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the library `datasets`, for which a stub of torchcodec is enough as long as no audio is decoded."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if importlib.util.find_spec("torchcodec") is None:
        for name in ("torchcodec", "torchcodec.encoders", "torchcodec.decoders"):
            stub = types.ModuleType(name)
            stub.__path__, stub.__spec__ = [], importlib.machinery.ModuleSpec(name, None)
            for attribute in ("AudioEncoder", "AudioDecoder", "VideoDecoder"):
                setattr(stub, attribute, type(attribute, (), {}))
            monkeypatch.setitem(sys.modules, name, stub)
    import datasets

    monkeypatch.setattr(datasets.config, "TORCHCODEC_AVAILABLE", True)
    return datasets


SHORT, LONG = 0.8, 3.5  # a loudness range exists from 3 s on
NULLS = {
    "start": [*[SHORT] * 8, LONG],
    "middle": [LONG, *[SHORT] * 8, LONG],
    "all": [SHORT] * 9,
    "last": [*[LONG] * 6, SHORT],
}


def make_segments(folder: Path, lengths: dict[str, list[float]], **parameters: Any) -> Path:
    """Make an output of one shard for each video, with segments of these lengths; return its folder."""
    (folder / "en").mkdir(parents=True)
    for name, seconds in lengths.items():
        starts = [0.1 + 4.0 * number for number in range(len(seconds))]
        segments = [
            {"start": start, "end": start + length, "text": "one" if start > 1 else ""}
            for start, length in zip(starts, seconds, strict=True)
        ]
        wav_video(folder / "en", name, 4.0 * len(seconds) + 1.0, json=json.dumps({"segments": segments}).encode())
    make_output(config(folder / "en", folder / "out", shard_videos=1, language="all", **parameters))
    return folder / "out"


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("nulls", NULLS)
def test_hugging_face_infers_metrics_that_are_null(nulls: str, tmp_path: Path, hugging_face: Any) -> None:
    out = make_segments(tmp_path, {"v": NULLS[nulls]})
    tars = [str(path) for path in out.glob("*/audio_*.tar")]
    for streaming in (False, True):
        dataset = hugging_face.load_dataset(
            "webdataset", data_files={"train": tars}, split="train", streaming=streaming, cache_dir=str(tmp_path / "hf")
        ).cast_column("flac", hugging_face.Audio(decode=False))
        sidecars = {row["json"]["segment"]: row["json"] for row in dataset}
        ranges = [sidecars[number]["loudness_range_lu"] for number in range(len(NULLS[nulls]))]
        assert [value is not None for value in ranges] == [length == LONG for length in NULLS[nulls]]
        assert [sidecars[number]["text"] for number in (0, 1)] == ["", "one"]
        assert sidecars[0]["raw_text"] == sidecars[0]["speaker"] == ""


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("sidecar_info", [False, True])
def test_hugging_face_reads_types_from_the_card(sidecar_info: bool, tmp_path: Path, hugging_face: Any) -> None:
    out = make_segments(tmp_path, {"a": NULLS["all"], "b": NULLS["start"]}, sidecar_info=sidecar_info)
    dataset = hugging_face.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "hf"))
    by_language = hugging_face.load_dataset(str(out), "und", split="train", streaming=True)
    assert dataset.features == by_language.features
    rows = list(dataset.cast_column("flac", hugging_face.Audio(decode=False)))
    assert len(rows) == 18
    assert sum(row["json"]["loudness_range_lu"] is not None for row in rows) == 1
    assert rows[0]["json"].get("title", "absent") == ("" if sidecar_info else "absent")
    (tar, *_) = sorted(out.glob("*/audio_*.tar"))
    with tarfile.open(tar) as file:
        sidecar = json.loads(file.extractfile(file.getmembers()[1]).read())
    assert rows[0]["json"] == sidecar


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


def expand(pattern: str) -> list[str]:
    """Expand a pattern as NeMo does."""
    return list(braceexpand.braceexpand(pattern.replace("_OP_", "{").replace("_CL_", "}"), escape=False))


@pytest.mark.parametrize("kind", ["manifest", "unique_manifest"])
def test_nemo_s_pattern_holds_where_nothing_was_kept(kind: str, tmp_path: Path) -> None:
    # One video a shard; that of the first, "nowhere", does not exist.
    settings = config(corpus(tmp_path / "c"), tmp_path / "out", shard_videos=1, max_missing_share=1.0)
    make_output(settings)
    assert "en/audio_000000.tar" not in (tmp_path / "out/tars.txt").read_text()
    tars = expand(f"{tmp_path}/out/en/audio__OP_000000..000003_CL_.tar")
    manifests = expand(f"{tmp_path}/out/en/{kind}__OP_000000..000003_CL_.json")
    numbers = [int(NEMO_TAR.search(path)[1]) for path in tars]  # type: ignore[index]
    assert numbers == [int(NEMO_MANIFEST.search(path)[1]) for path in manifests] == list(range(4))  # type: ignore[index]
    counts = []
    for number in numbers:
        # As NeMo's LazyNeMoTarredIterator: manifests by number, and the tar as a stream.
        lines = [json.loads(line) for line in Path(manifests[number]).read_text().splitlines()]
        names = {line["audio_filepath"] for line in lines}
        with open(tars[number], "rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            counts.append(sum(member.name in names for member in tar))
        assert counts[-1] == len(lines)
    assert counts == [0, 2, 2, 2]
    assert not verify(str(tmp_path / "out")).findings
    assert not collect_garbage(str(tmp_path / "out")).objects


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
