"""Data of other tools goes through a whole run: texts, speakers, times and columns arrive at the segments."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile as sf
from click.testing import CliRunner
from factories import synthetic_speech
from output_factory import config, make_output

import audiopipe
from audiopipe import Dataset, cli
from audiopipe.dataset.run_record import RunRecord, read_run_record
from audiopipe.dataset.verify import verify
from audiopipe.errors import ConfigError

RATE = 16_000
COLUMNS = "youtube_id=path,language=locale,text=sentence,speaker=client_id"
HEADER = ("client_id", "path", "sentence", "locale", "votes", "when", "age")
ROWS = [
    ("A", "a.wav", '"Hello," she said.', "en", "7", "2020-01-02", "20"),
    ("B", "b.wav", "NASA: we go", "en", "", "", "twenties"),
    ("C", "c.wav", "too long to keep", "en", "-3", "x", ""),
    ("D", "d.wav", "", "en", "1", "", ""),
]
SECONDS = {"a.wav": 2.0, "b.wav": 3.5, "c.wav": 31.0, "d.wav": 6.0}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def write_speech(path: Path, seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    speech = np.asarray(synthetic_speech(1, seconds, RATE), np.float32).reshape(-1)[: round(seconds * RATE)]
    sf.write(path, speech, RATE, subtype="PCM_16")


def sidecars(output: str) -> dict[str, dict[str, object]]:
    rows = {}
    for path in sorted(Path(output).glob("*/audio_*.tar")):
        with tarfile.open(path) as tar:
            names = [name for name in tar.getnames() if name.endswith(".json")]
            rows |= {name[:-5]: json.loads(tar.extractfile(name).read()) for name in names}  # type: ignore[union-attr]
    return rows


@pytest.fixture(scope="module")
def common_voice(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("cv")
    for name, seconds in SECONDS.items():
        write_speech(folder / "clips" / name, seconds)
    (folder / "train.tsv").write_text("".join("\t".join(row) + "\n" for row in [HEADER, *ROWS]))
    settings = config(folder / "train.tsv", folder / "out", columns=COLUMNS, keep_columns="votes,at=when,age")
    return Dataset(make_output(settings).url)


def test_clips_of_common_voice_are_segments_with_their_columns(common_voice: Dataset) -> None:
    table = common_voice.segments()
    kinds = {name: table.schema.field(name).type for name in ("votes", "at", "age")}
    assert kinds == {"votes": pa.int64(), "at": pa.string(), "age": pa.string()}
    rows = {row["video_id"]: row for row in table.to_pylist() if row["segment"] == 0}
    names = ("start_s", "end_s", "text", "speaker", "segment_times", "drop_reason", "votes", "at", "age")
    assert {name: rows["a"][name] for name in names} == dict(
        zip(names, (0.0, 2.0, '"Hello," she said.', "A", "file", None, 7, "2020-01-02", "20"), strict=True)
    )
    assert (rows["b"]["text"], rows["b"]["votes"], rows["b"]["at"]) == ("NASA: we go", None, None)
    assert (rows["c"]["drop_reason"], rows["c"]["end_s"], rows["c"]["text"]) == ("too_long", 31.0, "too long to keep")
    # A row without a text is cut like any other file, and has its speaker.
    assert rows["d"]["segment_times"] in ("voice", "fixed")
    assert (rows["d"]["speaker"], rows["d"]["text"], rows["d"]["votes"]) == ("D", None, 1)


def test_kept_columns_are_in_sidecars_records_and_selections(common_voice: Dataset, tmp_path: Path) -> None:
    rows = sidecars(common_voice.url)
    assert [rows["a_00000"][name] for name in ("votes", "at", "age", "speaker")] == [7, "2020-01-02", "20", "A"]
    assert [rows["b_00000"][name] for name in ("votes", "at")] == [None, ""]
    assert not {"votes", "at"} & set(common_voice.scores)
    assert [column.name for column in read_run_record(common_voice.store).catalog_columns] == ["votes", "at", "age"]
    assert "| `votes` | catalog |" in (Path(common_voice.url) / "README.md").read_text()
    assert '"segments/votes"' in (Path(common_voice.url) / "croissant.json").read_text()
    assert not verify(common_voice.url).findings
    result = CliRunner().invoke(cli.main, ["inspect", common_voice.url])
    assert "columns     votes, at, age" in result.output
    assert "audiopipe select" in result.output


def test_a_name_that_segments_have_already_is_refused(common_voice: Dataset) -> None:
    settings = config("c.tsv", "out")
    for name in ("Text", "snr_db", "split", "kept"):
        with pytest.raises(ConfigError, match=f"have a column '{name}' already; .*catalog_{name}={name},x"):
            RunRecord.of(settings, [(name, pa.string()), ("x", pa.int64())])
    with pytest.raises(ConfigError, match="'title' is in the JSON of segments already"):
        RunRecord.of(config("c.tsv", "out", sidecar_info=True), [("title", pa.string())])
    assert b"catalog_columns" not in RunRecord.of(settings).to_json()


def test_a_data_folder_of_kaldi_goes_through_a_run(tmp_path: Path) -> None:
    write_speech(tmp_path / "audio/r1.flac", 8.0)
    write_speech(tmp_path / "audio/r2.flac", 5.0)
    data = tmp_path / "data/train"
    data.mkdir(parents=True)
    (data / "wav.scp").write_text("r1 audio/r1.flac\nr2 flac -c -d -s audio/r2.flac |\n")
    (data / "segments").write_text("u3 r2 0.5 -1\nu2 r1 4.5 7.25\nu1 r1 0.25 3.0\n")
    (data / "text").write_text("u1 first words\nu2 second [noise] words\nu3 to the end\n")
    (data / "utt2spk").write_text("u1 A\nu2 B\nu3 A\n")
    (data / "utt2lang").write_text("u1 en\nu2 en\nu3 en\n")
    (data / "spk2gender").write_text("A f\nB m\n")
    summary = audiopipe.run(
        catalog=str(data), output=str(tmp_path / "out"), keep_columns="all", min_snr_db=None, max_silence_ratio=None
    )
    assert (summary.exit_code, summary.total.segments) == (0, 3)
    rows = Dataset(str(tmp_path / "out")).segments().to_pylist()
    names = ("video_id", "start_s", "end_s", "text", "speaker", "segment_times", "utterance_id", "gender")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("r1", 0.25, 3.0, "first words", "A", "catalog", "u1", "f"),
        ("r1", 4.5, 7.25, "second [noise] words", "B", "catalog", "u2", "m"),
        ("r2", 0.5, 5.0, "to the end", "A", "catalog", "u3", "f"),
    ]
    resumed = audiopipe.resume(str(tmp_path / "out"), shards=["en-000000"])  # from the plan alone
    assert resumed.exit_code == 0
    assert Dataset(str(tmp_path / "out")).segments().to_pylist() == rows
