"""The segment table: its page has a random sample, and its queries answer for all segments of the dataset."""

import base64
import io
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from selection_factory import make_samples

from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.run_record import read_run_record, read_schema
from audiopipe.dataset.schema import catalog_columns
from audiopipe.report import quality
from audiopipe.report.segment_table import sample, segment_table
from audiopipe.report.segment_table.queries import KEY_COLUMNS, SegmentQueries, audio_type

ORDER = ["language", "shard", "video_id", "segment"]
PAGE = {"query": "page", "offset": 0, "limit": 200}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """80 segments in two languages, of which 16 are dropped and a third has no text."""
    return make_samples(str(tmp_path_factory.mktemp("samples") / "out")).root


@pytest.fixture(scope="module")
def rows(output):
    return Dataset(output).to_pandas()


@pytest.fixture(scope="module")
def queries(output):
    queries = SegmentQueries(Dataset(output))
    yield queries
    queries.close()


@pytest.fixture(scope="module")
def body(output):
    """The data in the page of that output."""
    return payload(segment_table(quality.read_tables(output)).page())


def payload(piece):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', piece.markup, re.DOTALL)[1])


def keys_of(queries, answer):
    place = [column.name for column in queries.columns].index("key")
    return [row[place] for row in answer.body["rows"]]


def test_the_page_has_the_tables_values(body, rows):
    names = [column["name"] for column in body["columns"]]
    embedded = pd.DataFrame(body["rows"], columns=names).set_index("key").loc[rows["key"]].reset_index()
    assert body["note"] == "All 80 segments; 60 with audio (the first 12 s)."
    assert set(names) == set(rows.columns)
    for name in ("text", "kept", "duration_s"):
        assert embedded[name].equals(rows[name]), name
    limits = embedded["snr_db"].to_numpy(np.float32)
    assert np.array_equal(limits, rows["snr_db"].to_numpy(np.float32))


def test_the_first_rows_have_their_audio(body, rows):
    place = [column["name"] for column in body["columns"]].index("key")
    by_key = rows.set_index("key")
    for row, text in list(zip(body["rows"], body["audio"], strict=False))[:5]:
        seconds = sf.info(io.BytesIO(base64.b64decode(text))).duration
        assert seconds == pytest.approx(by_key.loc[row[place], "duration_s"], abs=0.15)


def test_a_small_budget_embeds_less_and_the_page_says_so(output, monkeypatch):
    tables = quality.read_tables(output)
    monkeypatch.setattr(sample, "AUDIO_BYTES", 12_000)
    monkeypatch.setattr(sample, "MAX_ROWS", 30)
    body = payload(segment_table(tables).page())
    assert len(body["rows"]) == 30
    assert 0 < len(body["audio"]) < 10
    assert sum(map(len, body["audio"])) <= 12_000
    assert body["note"].startswith(f"A random sample of 30 of 80 segments; {len(body['audio'])} with audio")


def test_a_text_cannot_break_out_of_the_page(output, monkeypatch):
    monkeypatch.setattr(sample, "MAX_AUDIO", 1)
    monkeypatch.setattr(sample, "_shorten", lambda value, column: "</script><b>" if column.name == "text" else None)
    markup = segment_table(quality.read_tables(output)).page().markup
    assert "</script><b>" not in markup


def test_only_jupyterlab_gets_the_widget(output, monkeypatch):
    monkeypatch.setattr(sample, "MAX_AUDIO", 1)
    table = segment_table(Dataset(output))
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    assert 'data-table=""' in table._repr_html_()
    assert "widget" not in vars(table)
    monkeypatch.setenv("JPY_SESSION_NAME", "quality.ipynb")
    assert f'data-table="{table.widget.settings["id"]}"' in table._repr_html_()
    assert table.widget.settings["note"] == "All 80 segments, read from the dataset page by page."
    assert "export default" in table.widget._esm
    table.widget.close()


@pytest.fixture(scope="module")
def kept_columns(tmp_path_factory):
    """That output with columns of a catalog: names that queries might use, numbers without a value, small integers."""
    store = make_samples(str(tmp_path_factory.mktemp("kept") / "out"))
    types = {"value": pa.string(), "bin": pa.string(), "rating": pa.float64(), "age": pa.uint8()}
    record = read_run_record(store)
    scores = [column for scorer in record.scorers for column in scorer.columns]
    added = catalog_columns(list(types.items()), scores)
    (Path(store.root) / "_run.json").write_bytes(replace(record, catalog_columns=added).to_json())
    schema = read_schema(read_run_record(store))
    for path in Path(store.root).glob("*/segments_*.parquet"):
        rows = [
            {
                **row,
                "value": f"value {index % 3}",
                "bin": "a",
                "age": 200,
                "rating": (math.nan, math.inf, 1.5)[index % 3],
            }
            for index, row in enumerate(pq.read_table(path).to_pylist())
        ]
        pq.write_table(pa.Table.from_pylist(rows, schema), path)
    return Dataset(store.root)


def test_columns_of_a_catalog_are_shown_and_counted(kept_columns):
    queries = SegmentQueries(kept_columns)
    assert {"value", "bin", "rating", "age"} <= {column.name for column in queries.columns}
    bins = {"rating": {"low": 0, "step": 1, "bins": 3}, "age": {"low": 0, "step": 100, "bins": 3}}
    answer = queries.answer({"query": "charts", "bins": bins, "values": ["value", "bin"]})
    assert answer.body["counts"] == {"rating": [0, 24, 0], "age": [0, 0, 80]}
    assert answer.body["values"]["bin"] == [["a", 80]]
    assert sum(count for _, count in answer.body["values"]["value"]) == 80
    queries.close()


def test_a_number_without_a_value_is_missing_on_the_page(kept_columns):
    queries = SegmentQueries(kept_columns)
    place = [column.name for column in queries.columns].index("rating")
    body = payload(segment_table(quality.read_tables(kept_columns.url)).page())
    for rows in (queries.answer(PAGE).body["rows"], body["rows"]):
        assert {row[place] for row in rows} == {None, 1.5}
    queries.close()


@pytest.mark.parametrize("where", ["true", "kept AND snr_db >= 20", "text IS NULL OR contains(lower(text), 'xt 1')"])
def test_pages_are_those_of_the_table(queries, output, where):
    expected = Dataset(output).to_pandas(where=where)
    answer = queries.answer({**PAGE, "where": where})
    assert keys_of(queries, answer) == expected["key"].tolist()
    assert answer.body["total"] == len(expected)
    assert answer.body["seconds"] == pytest.approx(expected["duration_s"].sum())
    assert answer.body["audio"] == expected["tar_offset"].notna().sum()
    parts = [queries.answer({**PAGE, "where": where, "offset": offset, "limit": 7}) for offset in range(0, 80, 7)]
    assert [key for part in parts for key in keys_of(queries, part)] == expected["key"].tolist()


def test_pages_are_sorted_with_missing_values_last(queries, rows):
    answer = queries.answer({**PAGE, "sort": "text", "descending": True})
    by_text = rows.sort_values(ORDER).sort_values("text", ascending=False, kind="stable", na_position="last")
    assert keys_of(queries, answer) == by_text["key"].tolist()
    shuffled = keys_of(queries, queries.answer({**PAGE, "seed": 1}))
    assert sorted(shuffled) == sorted(rows["key"])
    assert shuffled != keys_of(queries, queries.answer({**PAGE, "seed": 2}))


def test_histograms_count_every_value_that_exists(queries, rows):
    low, high = queries.answer({"query": "ranges", "columns": ["snr_db", "tar_offset"]}).body["ranges"]["snr_db"]
    assert rows["snr_db"].min() <= low < high <= rows["snr_db"].max()
    bins = {"snr_db": {"low": 20, "step": 10, "bins": 5}, "tar_offset": {"low": 0, "step": 1e9, "bins": 2}}
    request = {"query": "charts", "bins": bins, "values": ["drop_reason", "kept"], "where": "true"}
    counts, values = queries.answer(request).body.values()
    edges = [-math.inf, 30, 40, 50, 60, math.inf]
    assert counts["snr_db"] == np.histogram(rows["snr_db"], edges)[0].tolist()
    assert counts["tar_offset"] == [rows["tar_offset"].notna().sum(), 0]
    assert values == {"drop_reason": [[None, 64], ["noisy", 16]], "kept": [[True, 64], [False, 16]]}


def test_the_keys_are_those_of_the_condition(queries, output):
    answer = queries.answer({"query": "keys", "where": "kept AND language = 'de'"})
    listed = pd.read_csv(io.BytesIO(answer.data))
    expected = Dataset(output).to_pandas([*KEY_COLUMNS], "kept AND language = 'de'")
    assert listed["key"].tolist() == expected["key"].tolist()
    assert tuple(listed.columns) == KEY_COLUMNS


def test_audio_is_that_of_the_segment(queries, output, rows):
    kept, dropped = rows[rows["kept"]].iloc[3], rows[~rows["kept"]].iloc[0]
    kept, dropped = ({name: row[name] for name in ("language", "shard", "key")} for row in (kept, dropped))
    answer = queries.answer({"query": "audio", **kept})
    assert answer.body == {"type": "audio/flac"}
    assert answer.data == Dataset(output)[kept["key"]].read_bytes()
    answer = queries.answer({"query": "audio", **dropped})
    assert "was dropped (noisy)" in answer.body["error"]
    assert [audio_type(data) for data in (b"OggS", b"RIFF", b"\xff\xfb")] == ["audio/ogg", "audio/wav", "audio/mpeg"]


@pytest.mark.parametrize(
    ("request_body", "message"),
    [
        ({**PAGE, "where": "key IN (SELECT content FROM read_text('/etc/passwd'))"}, "a subquery is not allowed"),
        ({**PAGE, "where": "true; DROP VIEW segments"}, "another statement"),
        ({**PAGE, "sort": "snr_db; --"}, "no column"),
        ({**PAGE, "seed": "1) --"}, "not valid"),
        ({**PAGE, "limit": 10**6}, "at most 200 rows"),
        ({"query": "charts", "values": ["1"], "where": "true"}, "no column"),
        ({"query": "ranges", "columns": ["key"]}, "no column 'key' that is a number"),
        ({"query": "charts", "bins": {"snr_db": {"low": 0, "step": 0, "bins": 5}}}, "1 to 100 bins"),
        ({"query": "charts", "bins": {"text": {"low": 0, "step": 1, "bins": 5}}}, "no column 'text' that is a number"),
        ({"query": "audio", "language": "en", "shard": 0, "key": "../../etc/passwd"}, "no segment"),
        ({"query": "audio"}, "not valid"),
        ({"query": "close"}, "unknown query"),
    ],
)
def test_a_wrong_request_is_answered_with_an_error(queries, request_body, message):
    assert message in queries.answer(request_body).body["error"]
