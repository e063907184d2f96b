"""What the threshold explorer carries is what the tables hold, and it judges by the run's own rules."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from audiopipe.pipeline.score import RULES
from audiopipe.report import explorer, quality

TYPES = {"seconds": "<f4", "language": "u1", "excluded": "u1", "kept": "u1"}


@pytest.fixture(scope="module")
def data(dataset):
    return quality.read_dataset(dataset)


def carried(piece):
    """The numbers in the page, decoded."""
    body = json.loads(re.search(r'<script type="application/json">(.*?)</script>', piece.markup, re.DOTALL)[1])
    for name, dtype in TYPES.items():
        body[name] = np.frombuffer(base64.b64decode(body[name]), dtype)
    body["metrics"] = {name: np.frombuffer(base64.b64decode(text), "<f4") for name, text in body["metrics"].items()}
    return body


def test_every_rule_has_a_slider_that_stands_where_the_run_had_it(data):
    piece = explorer.explorer(data)
    rules = carried(piece)["rules"]
    assert [rule["field"] for rule in rules] == [field for _, _, field, _ in RULES]
    assert piece.markup.count('type="range"') == len(RULES)
    for rule in rules:
        limit = data.run.config[rule["field"]]
        assert rule["limit"] == limit
        assert rule["min"] <= rule["start"] <= rule["max"]
        assert limit is None or rule["start"] == limit


def test_the_page_carries_the_tables_values_bit_by_bit(data):
    body, rows = carried(explorer.explorer(data)), data.segments
    for metric, values in body["metrics"].items():
        assert np.array_equal(values, rows[metric].to_numpy(np.float32), equal_nan=True)
    assert np.array_equal(body["kept"], rows["kept"].to_numpy(np.uint8))
    assert [body["languages"][number] for number in body["language"]] == rows["language"].tolist()


def test_the_runs_limits_keep_the_same_segments(data):
    body = carried(explorer.explorer(data))
    passes = body["excluded"] == 0
    for rule in (rule for rule in body["rules"] if rule["limit"] is not None):
        values = body["metrics"][rule["metric"]].astype(float)
        passes &= ~(values < rule["limit"] if rule["below"] else values > rule["limit"])
    assert np.array_equal(passes, body["kept"] == 1)


def test_what_was_dropped_before_it_was_measured_cannot_come_back(data):
    rows = data.segments.copy()
    rows.loc[rows.index[0], ["kept", "drop_reason", "snr_db"]] = [False, "too_short", np.nan]
    assert carried(explorer.explorer(replace(data, segments=rows)))["excluded"][0] == 1


def test_a_large_dataset_is_sampled_and_the_page_says_so(data, monkeypatch):
    monkeypatch.setattr(explorer, "MOST", 5)
    piece = explorer.explorer(data)
    assert len(carried(piece)["seconds"]) == 5
    assert "Of 5 segments drawn at random" in piece.markup


def test_names_of_languages_cannot_break_out_of_the_page(data):
    piece = explorer.explorer(replace(data, segments=data.segments.assign(language="</script><b>")))
    assert "</script><b>" not in piece.markup
    assert carried(piece)["languages"] == ["</script><b>"]


def test_without_segments_it_says_so(data):
    empty = replace(data, segments=pd.DataFrame(data.segments.iloc[:0]))
    assert "There are no segments" in explorer.explorer(empty).markup
