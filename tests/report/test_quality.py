"""The quality report says what the tables, the commits and the tars hold."""

import io
import re
import tarfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile as sf

from audiopipe.errors import ConfigError, VerifyError
from audiopipe.kernels import METRICS
from audiopipe.report import distributions, examples, excerpts, quality
from audiopipe.store.objects import Store


def words(piece):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", piece.markup))


@pytest.fixture(scope="module")
def data(dataset):
    return quality.read_dataset(dataset)


@pytest.fixture(scope="module")
def table(dataset):
    """All rows of all segment tables."""
    store = Store(dataset)
    names = [name for name in store.list() if "/segments_" in name]
    return pd.concat([pq.read_table(io.BytesIO(store.read(name))).to_pandas() for name in names])


def test_the_dataset_has_both_kept_and_dropped_segments(table):
    assert 0 < table["kept"].sum() < len(table)


def test_the_headline_has_the_tables_numbers(data, table):
    told = words(quality.headline(data))
    assert f"{int(table['kept'].sum())} segments kept" in told
    assert f"of {len(table)} segments" in told
    assert "6 of 7 videos" in told


def test_the_language_table_has_kept_shares_and_medians(data, table):
    told = words(quality.languages(data))
    for language, rows in table.groupby("language"):
        assert f"{int(rows['kept'].sum())} / {len(rows)}" in told
        median = rows[rows["kept"]]["loudness_lufs"].median()
        assert f"{median:.1f}".replace("-", "−") in told, language


def test_drop_reasons_are_counted_with_the_limit_that_they_broke(data, table):
    told = words(quality.drops(data))
    for reason, count in table["drop_reason"].value_counts().items():
        assert reason.replace("_", " ") in told
        assert f" {count} " in told
    assert "loudness (LUFS) above −14.85: max_loudness_lufs" in told


def test_failed_videos_are_listed_with_their_reason(data):
    told = words(quality.failures(data))
    assert "MissingSource 1 fetch 1 en nowhere" in told


def test_every_metric_has_a_panel_with_its_unit(data):
    made = distributions.metrics(data).markup
    assert made.count("<figure>") == len(METRICS)
    for metric, (unit, about) in METRICS.items():
        assert quality.title(metric) in made
        assert unit in made
        assert about.split("(")[0].strip()[:20] in made


def test_threshold_curves_show_what_each_limit_keeps(data, table):
    told = words(distributions.thresholds(data))
    loudness = table["loudness_lufs"].to_numpy()
    kept = 100 * np.mean(loudness <= -14.85)
    assert f"at −14.85 it keeps {kept:.1f} %" in told


def test_examples_have_a_player_a_picture_and_their_numbers(data):
    for made in (examples.best(data), examples.worst(data)):
        assert made.markup.count("<audio") == made.markup.count('class="sample"') == 3
        assert made.markup.count("data:audio/mpeg;base64,") == 3
        assert "LUFS" in made.markup
        assert "cannot be read" not in made.markup


def test_borderline_examples_name_the_limit_that_they_are_near(data):
    assert 'class="near">loudness' in examples.borderline(data).markup


def test_dropped_examples_say_where_to_find_them(data, table):
    told = words(examples.dropped(data))
    closest = table[table["drop_reason"] == "too_loud"].nsmallest(1, "loudness_lufs").iloc[0]
    assert closest["video_id"] in told


@pytest.mark.parametrize("guess", [0, 10_000, 10**9])
def test_a_segment_is_found_in_its_tar_from_any_guess(data, dataset, monkeypatch, guess):
    monkeypatch.setattr(excerpts, "WINDOW", 2048)
    commit = next(commit for commit in data.commits.values() if commit.result.segments_kept)
    tar = next(item for item in commit.objects if item.name.endswith(".tar"))
    with tarfile.open(fileobj=io.BytesIO(data.store.read(tar.name))) as file:
        for member in file.getmembers():
            if member.name.endswith(".flac"):
                key = member.name.removesuffix(".flac")
                found = excerpts.find_member(data.store, tar.name, tar.size, key, guess)
                assert found == file.extractfile(member).read()


def test_a_segment_that_is_not_in_its_tar_is_an_error(data):
    commit = next(commit for commit in data.commits.values() if commit.result.segments_kept)
    tar = next(item for item in commit.objects if item.name.endswith(".tar"))
    with pytest.raises(VerifyError, match="no audio of nobody"):
        excerpts.find_member(data.store, tar.name, tar.size, "nobody", 0)


def test_a_player_holds_the_first_seconds_of_a_segment():
    sink = io.BytesIO()
    sf.write(sink, np.zeros(40 * 16_000, np.int16), 16_000, format="FLAC")
    excerpt = excerpts.Excerpt.of(sink.getvalue())
    assert len(excerpt.samples) == excerpts.MOST_S * 16_000
    assert len(excerpts.player(excerpt, "x")) < 250_000


def test_a_large_dataset_is_sampled_and_the_report_says_so(dataset, data):
    some = quality.read_dataset(dataset, max_segments=4)
    assert 0 < len(some.segments) < len(data.segments)
    assert some.total.segments == data.total.segments
    assert set(some.segments["language"]) == {"de", "en"}
    assert "are of a sample of" in words(quality.headline(some))
    assert "are of a sample of" not in words(quality.headline(data))


def test_one_language_can_be_chosen(dataset):
    assert set(quality.read_dataset(dataset, language="de").segments["language"]) == {"de"}
    with pytest.raises(ConfigError, match="the output has de, en so far"):
        quality.read_dataset(dataset, language="fi")


@pytest.mark.parametrize("parameter", [{"examples_per_kind": 99}, {"max_segments": 0}, {"examples_per_kind": "3"}])
def test_an_impossible_parameter_is_refused(dataset, parameter):
    with pytest.raises(ConfigError, match=next(iter(parameter))):
        quality.read_dataset(dataset, **parameter)


def test_an_output_without_commits_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no committed shard"):
        quality.read_dataset(str(tmp_path))


def test_a_dataset_without_kept_segments_is_reported(data):
    none = replace(data, segments=data.segments.assign(kept=False))
    for draw in (
        quality.languages,
        distributions.metrics,
        distributions.thresholds,
        examples.best,
        examples.borderline,
    ):
        assert draw(none).markup


def test_a_metric_without_values_is_reported(data):
    blank = replace(data, segments=data.segments.assign(snr_db=np.nan, loudness_lufs=-np.inf))
    for draw in (
        quality.languages,
        distributions.metrics,
        distributions.thresholds,
        examples.best,
        examples.borderline,
    ):
        assert draw(blank).markup
