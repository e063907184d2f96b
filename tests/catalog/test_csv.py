"""Quotes, names and numbers of CSV and JSON tables: no row disappears in the text of another without a message."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from audiopipe.catalog.read import read_catalog
from audiopipe.config import RunConfig
from audiopipe.errors import CatalogError

COLUMNS = {"columns": "youtube_id=id,r2_tar_key=path,text=text", "language_from": "en"}


def read(path, data=None, **parameters):
    if data is not None:
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return read_catalog(RunConfig.of(catalog=str(path), output="o", **COLUMNS, **parameters))


def texts(catalog):
    return {row["video_id"]: json.loads(row["segments"])["text"] for row in catalog.table.to_pylist()}


@pytest.mark.parametrize(("name", "delimiter"), [("c.csv", "|"), ("c.csv", "\t"), ("c.tsv", "\t")])
def test_a_table_without_quoting_keeps_a_quote_at_the_start_of_a_text(tmp_path, name, delimiter):
    rows = ["id,path,text", '1,a.wav,"Hello', "2,b.wav,World", '3,c.wav,she said "yes"']
    catalog = read(tmp_path / name, "\n".join(rows).replace(",", delimiter))
    assert texts(catalog) == {"1": '"Hello', "2": "World", "3": 'she said "yes"'}


@pytest.mark.parametrize("delimiter", [",", ";"])
@pytest.mark.parametrize("last", ['she said "yes"', "World"])
def test_a_quote_that_swallows_rows_is_refused_with_its_line(tmp_path, delimiter, last):
    rows = ["id,path,text", "1,a.wav,x", '2,b.wav,"Hello', f"3,c.wav,{last}"]
    with pytest.raises(CatalogError, match="line 3: a value starts with a quote and does not end with one"):
        read(tmp_path / "c.csv", "\r\n".join(rows).replace(",", delimiter))


def test_a_quoted_value_may_have_lines_and_quotes(tmp_path):
    data = '"id","path","text"\r\n"1","a.wav","He said:\n""Hi, you"""\r\n2,b.wav,""\r\n3,c.wav,"x"'
    catalog = read(tmp_path / "c.csv", data)
    rows = {row["video_id"]: row["segments"] for row in catalog.table.to_pylist()}
    assert json.loads(rows["1"])["text"] == 'He said:\n"Hi, you"'
    assert rows["2"] is None
    assert json.loads(rows["3"])["text"] == "x"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("c.csv", "\ufeffid,path,text\n007,a.wav,x\n"),
        ("c.csv", '\ufeff"id",path,text\n007,a.wav,x\n'),
        ("c.csv", "id,path,text\r007,a.wav,x\r"),
        ("c.json", '\ufeff[{"id": "007", "path": "a.wav", "text": "x"}]'),
        ("c.jsonl", '\ufeff{"id": "007", "path": "a.wav", "text": "x"}\n'),
    ],
)
def test_a_byte_order_mark_and_old_line_ends_are_read(tmp_path, name, data):
    assert texts(read(tmp_path / name, data)) == {"007": "x"}


@pytest.mark.parametrize("name", ["c.csv", "c.parquet"])
def test_two_columns_of_one_name_are_refused_where_they_are_used(tmp_path, name):
    names, values = ["id", "path", "text", "path", "note", "note"], ["1", "a.wav", "x", "b.wav", "", ""]
    if name == "c.csv":
        (tmp_path / name).write_text(f"{','.join(names)}\n{','.join(values)}\n")
    else:
        pq.write_table(pa.table([pa.array([value]) for value in values], names=names), tmp_path / name)
    with pytest.raises(CatalogError, match="it has several columns 'path'"):
        read(tmp_path / name)
    mapping = COLUMNS | {"columns": "youtube_id=id,r2_tar_key=id,text=text"}
    assert read_catalog(RunConfig.of(catalog=str(tmp_path / name), output="o", **mapping)).table.num_rows == 1


def test_a_number_that_no_column_can_have_is_named(tmp_path):
    row = {"id": "1", "path": "a.wav", "text": "x", "n": 10**30}
    with pytest.raises(CatalogError, match="'n' has a whole number of more than 64 bits"):
        read(tmp_path / "c.jsonl", json.dumps(row), keep_columns="n")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (("0.30000000000000004", "1"), pa.float64()),  # as pandas writes a float
        (("007", "12"), pa.string()),
        (("1e3", "2"), pa.string()),
        (("1234567890123456789", "1"), pa.string()),
        (("12", ""), pa.int64()),
    ],
)
def test_texts_become_numbers_only_where_they_are_written_as_such(tmp_path, values, kind):
    data = "id,path,text,n\n" + "".join(f"{value or 'x'},a{row}.wav,x,{value}\n" for row, value in enumerate(values))
    catalog = read(tmp_path / "c.csv", data, keep_columns="n")
    assert catalog.kept_columns == (("n", kind),)
    if kind == pa.string():
        assert [row["n"] for row in catalog.table["columns"].to_pylist()] == list(values)
