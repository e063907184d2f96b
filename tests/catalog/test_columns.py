"""Tables of other tools are catalogs: by `columns`, or by the columns that Common Voice, NeMo and Hugging Face have."""

import json

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from audiopipe.catalog.layout import guess_roles
from audiopipe.catalog.read import read_catalog
from audiopipe.config import RunConfig
from audiopipe.errors import CatalogError, ConfigError

ROWS = {
    "path": ["a.mp3", "b.mp3", "c.mp3"],
    "locale": ["en", "en", "de"],
    "sentence": ['"Hello," she said.', "It\u2019s  late", None],
    "client_id": ["x", "y", ""],
    "votes": [7, None, 0],
    "when": ["2020-01-02", "", "x"],
}
COLUMNS = "youtube_id=path,language=locale,text=sentence,speaker=client_id"


def write(path, rows=ROWS):
    table, name = pa.table(rows), path.name
    if name.endswith(".parquet"):
        pq.write_table(table, path)
    elif name.endswith(".csv"):
        pyarrow.csv.write_csv(table, path)
    elif name.endswith(".tsv"):  # as Common Voice writes it, without quotes
        lines = [rows.keys(), *zip(*rows.values(), strict=True)]
        path.write_text("".join("\t".join("" if v is None else str(v) for v in line) + "\n" for line in lines))
    else:
        lines = [json.dumps(row) for row in table.to_pylist()]
        path.write_text(f"[{', '.join(lines)}]" if name.endswith(".json") else "\n".join(lines))
    return str(path)


def read(catalog, **parameters):
    return read_catalog(RunConfig.of(catalog=str(catalog), output="o", **parameters))


@pytest.mark.parametrize("name", ["c.parquet", "c.csv", "c.tsv", "c.jsonl", "c.json"])
@pytest.mark.parametrize("columns", [COLUMNS, dict(pair.split("=") for pair in COLUMNS.split(",")), None])
def test_columns_of_another_table_are_used(tmp_path, name, columns):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips/b.mp3").write_bytes(b"x")
    catalog = read(write(tmp_path / name), columns=columns, keep_columns="votes,at=when")
    rows = {row["video_id"]: row for row in catalog.table.to_pylist()}
    assert rows.keys() == {"a", "b", "c"}
    assert (rows["c"]["language"], rows["a"]["uri"]) == ("de", f"{tmp_path}/clips/a.mp3")
    assert json.loads(rows["a"]["segments"]) == {"text": '"Hello," she said.', "speaker": "x"}
    assert json.loads(rows["b"]["segments"])["text"] == "It\u2019s  late"
    assert rows["c"]["segments"] is None
    assert rows["a"]["columns"] == {"votes": 7, "at": "2020-01-02"}
    assert rows["b"]["columns"]["votes"] is None
    assert catalog.kept_columns == (("votes", pa.int64()), ("at", pa.string()))


def test_a_quoted_tsv_keeps_its_quotes_out_of_the_text(tmp_path):
    (tmp_path / "c.tsv").write_text('id\tfile\ttext\n1\ta.wav\t"He said ""no"""\n2\tb.wav\t"two\ttabs"\n')
    table = read(tmp_path / "c.tsv", columns="id=id,path=file,text=text", language_from="en").table
    assert [json.loads(text)["text"] for text in table["segments"].to_pylist()] == ['He said "no"', "two\ttabs"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"lacks the columns youtube_id, language, r2_tar_key; it has ID, Audio, lang.uage, text: use --columns"),
        ({}, "--columns youtube_id=ID,r2_tar_key=Audio,text=text and --language-from"),
        (
            {"columns": "text=txt"},
            r"no column 'txt' \(did you mean 'text'\?\), which --columns names for text; it has ID",
        ),
        (
            {"columns": "youtube_id=ID,path=Audio"},
            "lacks the column language; .* or give the language of all videos",
        ),
        ({"keep_columns": "titel"}, "no column 'titel', which --keep-columns names; it has ID"),
    ],
)
def test_a_table_that_does_not_fit_is_listed_with_what_to_type(tmp_path, parameters, message):
    rows = {"ID": ["1"], "Audio": ["1.wav"], "lang,uage": ["en"], "text": ["hi"]}
    if parameters.get("keep_columns"):
        parameters = parameters | {"columns": {"id": "ID", "path": "Audio", "language": "lang,uage"}}
    with pytest.raises(CatalogError, match=message):
        read(write(tmp_path / "c.parquet", rows), **parameters)


def test_a_use_may_be_switched_off_and_a_name_may_have_a_comma(tmp_path):
    rows = {"id": ["1"], "path": ["1.wav"], "a, b": ["de"], "status": ["new"]}
    path = write(tmp_path / "c.csv", rows)
    columns = 'id=id,path=path,"language=a, b"'
    with pytest.raises(CatalogError, match="no row has status 'COMPLETED', but new"):
        read(path, columns=columns)
    assert read(path, columns=f"{columns},status=none").languages() == ["de"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"columns": "titel=title"}, "has 'titel' on the left; write youtube_id=path"),
        ({"columns": "id=a,youtube_id=b"}, "names youtube_id twice"),
        ({"columns": "text="}, "empty"),
        ({"columns": 3}, "must be text such as name=column"),
        ({"keep_columns": "a,A"}, "names 'a' twice"),
        ({"language_from": "e n"}, "must be 'folder', or the language"),
    ],
)
def test_a_wrong_mapping_is_refused_before_anything_is_read(parameters, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig.of(catalog="c.csv", output="o", **parameters)


def test_the_digest_has_the_new_parameters_only_where_they_are_used():
    plain = RunConfig.of(catalog="c.csv", output="o")
    assert not {"columns", "keep_columns", "language_from"} & plain.output_fields().keys()
    mapped = [
        RunConfig.of(catalog="c", output="o", columns=c) for c in ("path=b,id=a", {"youtube_id": "a", "path": "b"})
    ]
    assert mapped[0].digest == mapped[1].digest != plain.digest
    assert RunConfig.of(catalog="c", output="o", keep_columns=["a", "b=c"]).keep_columns == "a,b=c"


def test_a_nemo_manifest_has_segments_of_recordings(tmp_path):
    rows = [
        {
            "audio_filepath": "w/r.wav",
            "offset": 5.5,
            "duration": 2,
            "text": "two",
            "speaker": "B",
            "lang": "fr",
            "pnc": 1,
        },
        {"audio_filepath": "w/r.wav", "offset": 0, "duration": 1.5, "text": "one", "lang": "fr"},
        {"audio_filepath": "/abs/s.flac", "offset": None, "duration": 3.0, "text": "three", "lang": None},
    ]
    (tmp_path / "train_manifest.json").write_text("\n".join(map(json.dumps, rows)))
    catalog = read(tmp_path / "train_manifest.json", keep_columns="pnc")
    row, other = catalog.table.to_pylist()
    assert (row["video_id"], row["language"], row["uri"]) == ("w/r", "fr", f"{tmp_path}/w/r.wav")
    assert json.loads(row["segments"]) == [
        {"start": 0.0, "end": 1.5, "text": "one"},
        {"start": 5.5, "end": 7.5, "text": "two", "speaker": "B", "columns": {"pnc": 1}},
    ]
    assert (other["language"], other["uri"], other["duration_s"]) == ("und", "/abs/s.flac", None)
    assert catalog.kept_columns == (("pnc", pa.int64()),)


def test_a_nemo_manifest_without_offsets_has_whole_files(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "a.wav", "duration": 3.25, "text": "hi"}\n')
    (row,) = read(tmp_path / "m.jsonl", language_from="en").table.to_pylist()
    assert (row["language"], row["duration_s"], json.loads(row["segments"])) == ("en", 3.25, {"text": "hi"})


def test_any_table_may_have_a_row_for_each_segment(tmp_path):
    rows = {"rec": ["r", "r"], "wav": ["r.wav", "r.wav"], "from": ["1.5", "4"], "to": ["2", ""], "words": ["b", "c"]}
    columns = {"id": "rec", "path": "wav", "start": "from", "end": "to", "text": "words"}
    path = write(tmp_path / "c.csv", rows)
    (row,) = read(path, columns=columns, language_from="en").table.to_pylist()
    expected = [{"start": 1.5, "end": 2.0, "text": "b"}, {"start": 4.0, "text": "c"}]
    assert json.loads(row["segments"]) == expected
    with pytest.raises(CatalogError, match=r"row 2 \(id 'r'\): its file is 's.wav', and that of row 1 is 'r.wav'"):
        read(write(tmp_path / "d.csv", {**rows, "wav": ["r.wav", "s.wav"]}), columns=columns, language_from="en")
    with pytest.raises(CatalogError, match=r"row 1 \(id 'r'\), column 'start_s': it has no start"):
        read(write(tmp_path / "e.csv", {**rows, "from": ["", "1"]}), columns=columns, language_from="en")


def test_all_columns_are_kept_but_those_that_are_used_and_cannot_be(tmp_path):
    rows = {
        "youtube_id": ["a"],
        "language": ["en"],
        "r2_tar_key": ["a.tar"],
        "tags": [["x", "y"]],
        "score": pa.array([0.1], pa.float64()),
        "at": pa.array([0], pa.timestamp("ms", "Europe/Paris")),
        "audio": [{"bytes": b"x"}],
        "kind": pa.array(["k"]).dictionary_encode(),
    }
    path = write(tmp_path / "c.parquet", rows)
    kept = dict(read(path, keep_columns="all").kept_columns)
    assert kept == {
        "tags": pa.list_(pa.string()),
        "score": pa.float64(),
        "at": pa.timestamp("us", "UTC"),
        "kind": pa.string(),
    }
    with pytest.raises(CatalogError, match=r"segments cannot have values of type struct.* as --keep-columns tags$"):
        read(path, keep_columns="audio,tags")


def test_columns_are_guessed_by_name_in_any_case():
    names = ["Filename", "Transcript", "Speaker_ID", "Lang", "Duration"]
    assert guess_roles(names) == {
        "r2_tar_key": "Filename",
        "language": "Lang",
        "text": "Transcript",
        "speaker": "Speaker_ID",
        "duration_s": "Duration",
    }


def test_segments_of_rows_that_are_not_completed_are_left_out(tmp_path):
    rows = {
        "youtube_id": ["b", "a", "a"],
        "r2_tar_key": ["b.wav", "a.wav", "a.wav"],
        "language": ["en", "en", "en"],
        "status": ["FAILED", "FAILED", "COMPLETED"],
        "from": ["0", "0", "2"],
        "to": ["1", "1", ""],
        "note": ["x", "y", "z"],
    }
    columns = {"start": "from", "end": "to"}
    (row,) = read(write(tmp_path / "c.csv", rows), columns=columns, keep_columns="note").table.to_pylist()
    assert (row["video_id"], json.loads(row["segments"])) == ("a", [{"start": 2.0, "columns": {"note": "z"}}])
    with pytest.raises(CatalogError, match=r"row 3 \(id 'a'\), column 'start_s': it has no start"):
        read(write(tmp_path / "d.csv", {**rows, "from": ["0", "0", ""]}), columns=columns)
    with pytest.raises(CatalogError, match="no row has status 'COMPLETED', but FAILED"):
        read(write(tmp_path / "e.csv", {**rows, "status": ["FAILED"] * 3}), columns=columns)


def test_an_offset_of_nemo_without_a_duration_lasts_to_the_end(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"audio_filepath": "a.wav", "offset": 2, "text": "hi", "b": 3, "e": 4}\n')
    (row,) = read(tmp_path / "m.jsonl").table.to_pylist()
    assert json.loads(row["segments"]) == [{"start": 2.0, "text": "hi"}]
    (row,) = read(tmp_path / "m.jsonl", columns="start=b,end=e").table.to_pylist()
    assert json.loads(row["segments"]) == [{"start": 3.0, "end": 4.0, "text": "hi"}]


def test_the_folder_of_an_absolute_path_is_below_the_table(tmp_path):
    rows = {"youtube_id": ["a", "b"], "r2_tar_key": [f"{tmp_path}/en/a.wav", "de/b.wav"]}
    for columns in (None, "id=youtube_id,path=r2_tar_key"):
        catalog = read(write(tmp_path / "c.csv", rows), columns=columns, language_from="folder")
        assert catalog.table["language"].to_pylist() == ["en", "de"]


@pytest.mark.parametrize("column", [[{"path": "a.wav"}], [["en"]]])
def test_a_column_of_another_type_than_text_is_named(tmp_path, column):
    rows = {"audio_filepath": ["a.wav"], "lang": ["en"], "text": ["x"]}
    for name, role in (("audio_filepath", "r2_tar_key"), ("lang", "language")):
        with pytest.raises(CatalogError, match=f"column '{role}': (struct|list).* is not UTF-8 text"):
            read(write(tmp_path / "c.parquet", {**rows, name: column}))


def test_times_of_a_catalog_are_kept_with_microseconds(tmp_path):
    times = pa.array([1_000_000_001], pa.timestamp("ns"))
    path = write(tmp_path / "c.parquet", {"youtube_id": ["a"], "language": ["en"], "r2_tar_key": ["a"], "at": times})
    assert read(path, keep_columns="at").table["columns"].to_pylist()[0]["at"].isoformat() == "1970-01-01T00:00:01"
