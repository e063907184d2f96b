"""The quality report shows what the tables, the commits and the tars hold."""

import io
from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf
from output_factory import config
from page_text import text_of

from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.run_record import open_run
from audiopipe.errors import ConfigError, VerifyError
from audiopipe.kernels import METRICS
from audiopipe.report import distributions, examples, excerpts, quality
from audiopipe.report.metric_labels import metric_title
from audiopipe.store.objects import Store


@pytest.fixture(scope="module")
def tables(dataset):
    return quality.read_tables(dataset)


@pytest.fixture(scope="module")
def rows(dataset):
    """All rows of all tables of segments."""
    return Dataset(dataset).to_pandas()


def test_the_dataset_has_both_kept_and_dropped_segments(rows):
    assert 0 < rows["kept"].sum() < len(rows)


def test_the_headline_has_the_tables_numbers(tables, rows):
    text = text_of(quality.headline(tables))
    assert f"{int(rows['kept'].sum())} segments kept" in text
    assert f"of {len(rows)} segments" in text
    assert "6 / 7 videos done" in text


def test_the_language_table_has_kept_shares_and_medians(tables, rows):
    text = text_of(quality.languages(tables))
    for language, group in rows.groupby("language"):
        assert f"{int(group['kept'].sum())} / {len(group)}" in text
        median = group[group["kept"]]["loudness_lufs"].median()
        assert f"{median:.1f}".replace("-", "−") in text, language


def test_drop_reasons_are_counted_with_their_thresholds(tables, rows):
    text = text_of(quality.drops(tables))
    for reason, count in rows["drop_reason"].value_counts().items():
        assert reason.replace("_", " ") in text
        assert f" {count} " in text
    assert "loudness (LUFS) above −14.85: max_loudness_lufs" in text


def test_failed_videos_are_listed_with_their_reason(tables):
    assert "MissingSource 1 fetch 1 en nowhere" in text_of(quality.failures(tables))


def test_every_metric_has_a_panel_with_its_unit(tables):
    markup = distributions.metrics(tables).markup
    assert markup.count("<figure>") == len(METRICS)
    for metric, (unit, description) in METRICS.items():
        assert metric_title(metric) in markup
        assert unit in markup
        assert description.split("(")[0].strip()[:20] in markup


def test_threshold_curves_show_what_each_limit_keeps(tables, rows):
    kept = 100 * np.mean(rows["loudness_lufs"].to_numpy() <= -14.85)
    assert f"a limit of −14.85 keeps {kept:.1f} %" in text_of(distributions.threshold_curves(tables))


def test_examples_have_player_figures_and_metrics(tables):
    for piece in (examples.best(tables), examples.worst(tables)):
        assert piece.markup.count("<audio") == piece.markup.count('class="sample"') == 3
        assert piece.markup.count("data:audio/mpeg;base64,") == 3
        assert piece.markup.count("<svg") == 6
        assert "LUFS" in piece.markup


def test_borderline_examples_name_the_limit(tables):
    assert 'class="near">loudness' in examples.borderline(tables).markup


def test_near_misses_name_the_video_of_the_closest_segment(tables, rows):
    closest = rows[rows["drop_reason"] == "too_loud"].nsmallest(1, "loudness_lufs").iloc[0]
    assert closest["video_id"] in text_of(examples.near_misses(tables))


def test_an_example_is_one_ranged_read_of_its_tar(tables, dataset, monkeypatch):
    reads = []
    read_range = Store.read_range
    monkeypatch.setattr(Store, "read_range", lambda *call: reads.append(call[1:]) or read_range(*call))
    row = tables.kept.iloc[-1]
    examples.card(tables, row, "")
    segment = Dataset(dataset)[row["key"]]
    assert reads == [(segment.tar, segment.row["tar_offset"], segment.row["audio_bytes"])]


@pytest.mark.parametrize(("column", "value"), [("tar_offset", 0), ("shard", 99)])
def test_unreadable_audio_becomes_a_line_in_the_card(tables, column, value):
    row = tables.kept.iloc[0].copy()
    row[column] = value
    text = text_of(examples.card(tables, row, ""))
    assert "The audio cannot be read" in text
    assert "audiopipe verify" in text


def test_a_player_holds_the_first_seconds_of_a_segment():
    buffer = io.BytesIO()
    sf.write(buffer, np.zeros(40 * 16_000, np.int16), 16_000, format="FLAC")
    excerpt = excerpts.Excerpt.decode(buffer.getvalue())
    assert len(excerpt.samples) == excerpts.MAX_S * 16_000
    assert len(excerpts.player(excerpt, "x")) < 250_000


def test_a_large_dataset_is_sampled_and_the_report_says_so(dataset, tables):
    sample = quality.read_tables(dataset, max_segments=4)
    assert 0 < len(sample.segments) < len(tables.segments)
    assert sample.total.segments == tables.total.segments
    assert set(sample.segments["language"]) == {"de", "en"}
    assert "cover a sample of" in text_of(quality.headline(sample))
    assert "cover a sample of" not in text_of(quality.headline(tables))


def test_one_language_can_be_selected(dataset):
    german = quality.read_tables(dataset, language="de")
    assert set(german.segments["language"]) == set(german.by_language) == {"de"}
    with pytest.raises(ConfigError, match="the output has de, en so far"):
        quality.read_tables(dataset, language="fi")


@pytest.mark.parametrize("parameter", [{"examples_per_kind": 99}, {"max_segments": 0}, {"examples_per_kind": "3"}])
def test_a_parameter_out_of_range_is_refused(dataset, parameter):
    with pytest.raises(ConfigError, match=next(iter(parameter))):
        quality.read_tables(dataset, **parameter)


def test_an_output_without_commits_is_refused(tmp_path):
    with pytest.raises(VerifyError, match="not the output of a run"):
        quality.read_tables(str(tmp_path))
    open_run(Store(str(tmp_path)), config(tmp_path / "catalog.parquet", tmp_path))
    with pytest.raises(ConfigError, match="no committed shard"):
        quality.read_tables(str(tmp_path))


VIEWS = (
    quality.languages,
    distributions.metrics,
    distributions.threshold_curves,
    examples.best,
    examples.borderline,
)


def test_a_dataset_without_kept_segments_is_reported(tables):
    nothing_kept = replace(tables, segments=tables.segments.assign(kept=False))
    for view in (quality.headline, *VIEWS):
        assert view(nothing_kept).markup


def test_a_metric_without_values_is_reported(tables):
    blank = replace(tables, segments=tables.segments.assign(snr_db=np.nan, loudness_lufs=-np.inf))
    for view in VIEWS:
        assert view(blank).markup
