"""Data folders of Kaldi, manifests of Lhotse and audio folders of Hugging Face are catalogs with their segments."""

import gzip
import json

import pyarrow as pa
import pytest

from audiopipe.catalog.formats import Format, find_format
from audiopipe.catalog.read import read_catalog
from audiopipe.config import RunConfig
from audiopipe.errors import CatalogError

KALDI = {
    "wav.scp": "r1 audio/r1.flac\nr2\tflac -c -d -s /data/r2.flac |\nr3 ffmpeg -nostdin -i s3://b/r3.mp3 -f wav - |\n",
    "segments": "u1 r1 1.0 2.5\nu2 r1 3.5 -1\nu3 r2 0 4\n",
    "text": "u1 hello  world\nu2 over\nu3\n",
    "utt2spk": "u1 A\nu2 B\nu3 A\n",
    "utt2lang": "u1 fr\nu2 fr\nu3 de\n",
    "spk2gender": "A f\nB m\n",
    "utt2wer": "u1 0.5\nu2 1\n",
    "reco2dur": "r1 9.25\n",
}


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = text if isinstance(text, str) else "\n".join(map(json.dumps, text))
        (folder / name).write_bytes(gzip.compress(data.encode()) if name.endswith(".gz") else data.encode())
    return folder


def read(catalog, **parameters):
    catalog = read_catalog(RunConfig.of(catalog=str(catalog), output="o", **parameters))
    rows = {row["video_id"]: row for row in catalog.table.to_pylist()}
    return catalog, rows, {key: json.loads(row["segments"] or "null") for key, row in rows.items()}


def test_a_data_folder_of_kaldi_has_recordings_and_utterances(tmp_path):
    write(tmp_path, {f"data/train/{name}": text for name, text in KALDI.items()} | {"audio/r1.flac": "x"})
    assert find_format(f"{tmp_path}/data/train") is Format.KALDI
    for address in (tmp_path / "data/train", tmp_path / "data/train/wav.scp"):
        catalog, rows, segments = read(address, keep_columns="utterance_id,gender,wer")
        # Paths of Kaldi are relative to the folder that a recipe runs in.
        uris = {key: row["uri"] for key, row in rows.items()}
        assert uris == {"r1": f"{tmp_path}/audio/r1.flac", "r2": "/data/r2.flac", "r3": "s3://b/r3.mp3"}
        assert [row["language"] for row in rows.values()] == ["fr", "de", "und"]
        assert [row["duration_s"] for row in rows.values()] == [9.25, None, None]
        first, second = segments["r1"]
        values = {"utterance_id": "u1", "gender": "f", "wer": 0.5}
        assert first == {"start": 1.0, "end": 2.5, "text": "hello  world", "speaker": "A", "columns": values}
        assert (second["start"], second.get("end"), second["columns"]["wer"]) == (3.5, None, 1.0)
        assert (segments["r2"][0].get("text"), segments["r3"]) == (None, None)
        assert dict(catalog.kept_columns) == {"utterance_id": pa.string(), "gender": pa.string(), "wer": pa.float64()}
        with pytest.raises(CatalogError, match="has segments of longer files: leave out --segments file"):
            read(address, segments="file")


def test_without_segments_an_utterance_of_kaldi_is_a_file(tmp_path):
    write(tmp_path, {"wav.scp": "u1 /a/u1.wav\nu2 /a/u2.wav\n", "text": "u1 hello\n", "utt2spk": "u1 A\nu2 B\n"})
    _, _, segments = read(tmp_path, language_from="en", segments="file")
    assert segments == {"u1": {"text": "hello", "speaker": "A"}, "u2": {"speaker": "B"}}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"wav.scp": "r1 sph2pipe -f wav /x.sph |\n"}, r"wav.scp, line 1 \(r1\): the command .* is not run; write"),
        ({"wav.scp": "r1 ffmpeg -ss 5 -i /x.mp3 -f wav - |\n"}, "is not run"),
        ({"wav.scp": "r1 cat /x.wav /y.wav |\n"}, "is not run"),
        ({"wav.scp": "r1 rm -rf / ; cat /x.wav |\n"}, "is not run"),
        ({"wav.scp": "r1 /x.ark:1234\n"}, "is in an archive"),
        ({"wav.scp": "r1\n"}, "it names no file"),
        ({"wav.scp": "r1 /x.wav\n", "segments": "u1 r2 0 1\n"}, "segments: u1 .* r2, which wav.scp lacks"),
        ({"wav.scp": "r1 /x.wav\n", "segments": "u1 r1 0\n"}, "segments, line 1: it is not UTTERANCE RECORDING"),
        ({"wav.scp": "r1 /x.wav\n", "segments": "u1 r1 0 x\n"}, "segments, line 1: 'x' is not a number of seconds"),
    ],
)
def test_a_line_of_kaldi_that_cannot_be_used_is_named(tmp_path, files, message):
    with pytest.raises(CatalogError, match=message):
        read(write(tmp_path, files))


def source(path, **changes):
    name = path.rpartition("/")[2].partition(".")[0]
    body = {"id": name, "sources": [{"type": "file", "channels": [0], "source": path}], "duration": 60.0}
    return body | changes


def supervision(number, start, **changes):
    body = {"id": f"s{number}", "recording_id": "r1", "start": start, "duration": 1.5, "channel": 0}
    return body | {"text": f"text {number}", "speaker": "A", "language": "fr"} | changes


def test_recordings_of_lhotse_have_their_supervisions(tmp_path):
    supervisions = [supervision(1, 2.0, custom={"snr": 7, "array": {"a": 1}}), supervision(2, 0.25, gender="F")]
    write(tmp_path, {"x_recordings_train.jsonl.gz": [source("/a/r1.flac"), source("/a/r2.flac")]})
    write(tmp_path, {"x_supervisions_train.jsonl.gz": supervisions})
    for address in (tmp_path, tmp_path / "x_recordings_train.jsonl.gz"):
        assert find_format(str(address)) is Format.LHOTSE
        catalog, rows, segments = read(address, keep_columns="all")
        assert (rows["r1"]["uri"], rows["r1"]["language"], rows["r1"]["duration_s"]) == ("/a/r1.flac", "fr", 60.0)
        assert [(item["start"], item["end"], item["text"]) for item in segments["r1"]] == [
            (0.25, 1.75, "text 2"),
            (2.0, 3.5, "text 1"),
        ]
        assert segments["r1"][1]["columns"] == {"utterance_id": "s1", "snr": 7}
        assert segments["r2"] is None
        assert [name for name, _ in catalog.kept_columns] == ["utterance_id", "snr", "gender"]


def test_cuts_of_lhotse_are_segments_of_their_recording(tmp_path):
    cut = {"type": "MonoCut", "start": 10.0, "duration": 4.0, "channel": 0, "recording": source("/a/r1.flac")}
    cuts = [
        cut | {"id": "c1", "supervisions": [supervision(1, 0.5)]},
        cut | {"id": "c2", "start": 20, "supervisions": []},
    ]
    _, rows, segments = read(write(tmp_path, {"cuts.jsonl": cuts}) / "cuts.jsonl")
    assert list(rows) == ["r1"]
    assert segments["r1"] == [
        {"start": 10.5, "end": 12.0, "text": "text 1", "speaker": "A"},
        {"start": 20.0, "end": 24.0},
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (source("/a.wav", sources=[{"type": "command", "source": "rm -rf /"}]), "its audio is command; it must be one"),
        (source("/a.wav", sources=[]), "its audio is nothing"),
        (source("/a.wav", transforms=[{"name": "Speed", "kwargs": {}}]), r"its audio is changed \(Speed\)"),
        ({"type": "MixedCut", "tracks": []}, "line 1: a mixed cut has no audio file; give cuts or recordings"),
        (supervision(1, 0.0), "line 1: supervisions alone have no audio file"),
        ({"type": "MonoCut", "recording": source("/a.wav")}, "a line is not one of Lhotse's: KeyError"),
    ],
)
def test_a_line_of_lhotse_without_a_file_is_refused(tmp_path, row, message):
    with pytest.raises(CatalogError, match=message):
        read(write(tmp_path, {"m.jsonl": [row]}) / "m.jsonl")


def test_an_audio_folder_has_ids_below_its_splits(tmp_path):
    write(
        tmp_path,
        {
            "train/metadata.csv": 'file_name,transcription,year\n001.wav,"one, two",2020\n',
            "en/test/metadata.jsonl": [{"file_name": "sub/001.wav", "text": "three"}],
            "test/metadata.jsonl": [{"file_name": "sub/001.wav", "text": "three", "speaker_id": 4}],
            "notes/metadata.csv": "a,b\n1,2\n",
        },
    )
    assert find_format(str(tmp_path)) is Format.AUDIO_FOLDER
    _, rows, segments = read(tmp_path)
    assert segments == {"train/001": {"text": "one, two"}, "test/sub/001": {"text": "three", "speaker": "4"}}
    assert rows["test/sub/001"]["uri"] == f"{tmp_path}/test/sub/001.wav"
    assert rows["test/sub/001"]["language"] == "und"
    assert read(tmp_path, language_from="folder")[1]["train/001"]["language"] == "train"
    assert list(read(tmp_path / "en")[1]) == ["test/sub/001"]


def test_the_files_of_an_audio_folder_have_one_type_for_a_column(tmp_path):
    write(
        tmp_path,
        {
            "train/metadata.csv": "file_name,code,year,text\na.wav,12,2020,x\n",
            "test/metadata.csv": "file_name,code\na.wav,007\n",
            "dev/metadata.jsonl": [{"file_name": "a.wav", "code": "5", "year": 2021}],
        },
    )
    catalog, rows, _ = read(tmp_path, keep_columns="all")
    values = {key: row["columns"] for key, row in rows.items()}
    assert values["train/a"] == {"code": "12", "year": 2020}
    assert values["test/a"] == {"code": "007", "year": None}
    assert values["dev/a"] == {"code": "5", "year": 2021}
    assert catalog.kept_columns == (("code", pa.string()), ("year", pa.int64()))
    write(tmp_path, {"dev/metadata.jsonl": [{"file_name": "a.wav", "code": 5}]})
    with pytest.raises(CatalogError, match=r"the files of its metadata differ: .*code.*types"):
        read(tmp_path, keep_columns="code")


def test_segments_of_an_audio_folder_keep_their_columns(tmp_path):
    lines = "file_name,from,to,note\na.wav,0,1,x\na.wav,1,2,y\n"
    write(tmp_path, {"train/metadata.csv": lines, "test/metadata.csv": lines})
    catalog, _, segments = read(tmp_path, keep_columns="note", columns="start=from,end=to", language_from="en")
    assert catalog.kept_columns == (("note", pa.string()),)
    assert segments.keys() == {"train/a", "test/a"}
    assert [entry["columns"]["note"] for entry in segments["test/a"]] == ["x", "y"]


def test_columns_are_not_given_for_a_format_that_has_none(tmp_path):
    with pytest.raises(CatalogError, match="leave --columns out"):
        read(write(tmp_path, {"wav.scp": "r1 /x.wav\n"}), columns="text=x")
    with pytest.raises(CatalogError, match="has no columns; give the table"):
        read(write(tmp_path / "f", {"a.wav": "x"}), columns="text=x")
