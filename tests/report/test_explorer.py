"""The threshold explorer carries the tables' values and applies the run's own rules."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from audiopipe.conditions import parse_condition
from audiopipe.pipeline.drop_rules import RULES
from audiopipe.report import explorer, quality
from audiopipe.scorers.scorer import Column

COLUMN_TYPES = {"duration_s": "<f4", "language": "<u2", "excluded": "u1", "kept": "u1", "has_audio": "u1"}


@pytest.fixture(scope="module")
def tables(dataset):
    return quality.read_tables(dataset)


def payload(piece):
    """Decode the data in the page."""
    body = json.loads(re.search(r'<script type="application/json">(.*?)</script>', piece.markup, re.DOTALL)[1])
    for name, dtype in COLUMN_TYPES.items():
        body[name] = np.frombuffer(base64.b64decode(body[name]), dtype)
    body["metrics"] = {name: np.frombuffer(base64.b64decode(text), "<f4") for name, text in body["metrics"].items()}
    return body


def test_every_rule_has_a_slider_at_the_runs_limit(tables):
    piece = explorer.explorer(tables)
    sliders = payload(piece)["sliders"]
    assert [slider["parameter"] for slider in sliders] == [parameter for _, _, parameter, _ in RULES]
    assert piece.markup.count('type="range"') == len(RULES)
    for slider in sliders:
        limit = tables.config[slider["parameter"]]
        assert slider["limit"] == limit
        assert slider["min"] <= slider["start"] <= slider["max"]
        assert limit is None or slider["start"] == limit


def test_the_page_has_the_tables_values_bit_by_bit(tables):
    body, rows = payload(explorer.explorer(tables)), tables.segments
    for metric, values in body["metrics"].items():
        assert np.array_equal(values, rows[metric].to_numpy(np.float32), equal_nan=True)
    assert np.array_equal(body["kept"], rows["kept"].to_numpy(np.uint8))
    assert [body["languages"][index] for index in body["language"]] == rows["language"].tolist()


def test_the_runs_limits_keep_the_same_segments(tables):
    body = payload(explorer.explorer(tables))
    passes = body["excluded"] == 0
    for slider in (slider for slider in body["sliders"] if slider["limit"] is not None):
        values, limit = body["metrics"][slider["metric"]], np.float32(slider["limit"])
        passes &= ~(values < limit if slider["is_minimum"] else values > limit)
    assert np.array_equal(passes, body["kept"] == 1)


def test_segments_dropped_before_scoring_stay_dropped(tables):
    rows = tables.segments.copy()
    rows.loc[rows.index[0], ["kept", "drop_reason", "snr_db"]] = [False, "too_short", np.nan]
    assert payload(explorer.explorer(replace(tables, segments=rows)))["excluded"][0] == 1


def test_numbers_of_other_scorers_have_sliders_that_are_off(tables, add_columns):
    columns = [Column(name, "float", "1", name) for name in ("dnsmos_ovrl", "overlap_ratio", "order", "missing")]
    scored = add_columns(tables, columns, dnsmos_ovrl=3.0, overlap_ratio=0.1, order=1.0, missing=np.nan)
    sliders = payload(explorer.explorer(scored))["sliders"][len(RULES) :]
    assert [slider["parameter"] for slider in sliders] == ["min_dnsmos_ovrl", "max_overlap_ratio", "min_order"]
    assert [slider["limit"] for slider in sliders] == [None] * 3
    assert [slider["column"] for slider in sliders] == ["dnsmos_ovrl", "overlap_ratio", '"order"']


def test_only_segments_with_audio_can_be_copied(tables):
    body = payload(explorer.explorer(tables))
    assert np.array_equal(body["has_audio"], body["kept"])
    assert (body["scope"], body["chosen"], body["output"]) == ("", "", tables.dataset.url)
    rows = tables.segments.assign(tar_offset=0)  # as with keep_dropped
    rows.loc[rows.index[0], ["kept", "drop_reason"]] = [False, "too_short"]
    body = payload(explorer.explorer(replace(tables, segments=rows, language="en")))
    assert body["has_audio"].all()
    assert body["scope"].startswith("(kept OR drop_reason IN ('too_quiet', ")
    assert body["chosen"] == "en"


def test_without_thresholds_of_the_run_only_kept_segments_count(tables, add_columns):
    """Drop by `keep_if` alone, as a run without the scorer `signal` does."""
    scored = add_columns(tables, [Column("dnsmos_ovrl", "float", "MOS", "overall")], dnsmos_ovrl=3.0, tar_offset=0)
    vars(scored)["columns"] = {"dnsmos_ovrl": scored.columns["dnsmos_ovrl"]}
    scored.segments.loc[scored.segments.index[0], ["kept", "drop_reason"]] = [False, "dnsmos_ovrl >= 3"]
    body = payload(explorer.explorer(scored))
    assert [slider["parameter"] for slider in body["sliders"]] == ["min_dnsmos_ovrl"]
    assert body["scope"] == "kept"
    assert parse_condition(f"{body['scope']} AND dnsmos_ovrl >= 3", scored.dataset.column_types)


def test_a_large_dataset_is_sampled_and_the_page_says_so(tables, monkeypatch):
    sliders = len(explorer._sliders(tables))
    monkeypatch.setattr(explorer, "MAX_BYTES", 5 * (9 + 4 * sliders) * 4 // 3 + 4)
    piece = explorer.explorer(tables)
    assert len(payload(piece)["duration_s"]) == 5
    assert "Computed from 5 segments drawn at random" in piece.markup


def test_names_of_languages_cannot_break_out_of_the_page(tables):
    piece = explorer.explorer(replace(tables, segments=tables.segments.assign(language="</script><b>")))
    assert "</script><b>" not in piece.markup
    assert payload(piece)["languages"] == ["</script><b>"]


def test_an_empty_dataset_says_so(tables):
    empty = replace(tables, segments=pd.DataFrame(tables.segments.iloc[:0]))
    assert "There are no segments" in explorer.explorer(empty).markup
