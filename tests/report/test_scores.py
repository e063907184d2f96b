"""The quality report shows what other scorers found, and nothing of those that were not used."""

from dataclasses import replace

import duckdb
import numpy as np
import pandas as pd
import pytest
from page_text import text_of

from audiopipe.report import distributions, examples, maps, outliers, quality, speakers, transcripts
from audiopipe.report.conditions import dropped_by
from audiopipe.scorers.scorer import Column
from audiopipe.scorers.transcript import COLUMNS as TRANSCRIPT

MOS = Column("dnsmos_ovrl", "float", "MOS", "predicted overall quality", 1.0, 5.0)
SPEAKERS = (
    Column("speakers", "int", "1", "number of speakers"),
    Column("overlap_ratio", "float", "1", "share in which two speak", 0.0, 1.0),
)


@pytest.fixture(scope="module")
def tables(dataset):
    return quality.read_tables(dataset, examples_per_kind=2)


@pytest.fixture(scope="module")
def scored(tables, add_columns):
    """The dataset with made-up scores: the first kept segment is the worst of each kind."""
    count = len(tables.segments)
    position = pd.Series(
        range(count), index=tables.kept.index.append(tables.segments.index.difference(tables.kept.index))
    )
    order = position.reindex(tables.segments.index).to_numpy()
    is_first = order == 0
    return add_columns(
        tables,
        (MOS, *SPEAKERS, *TRANSCRIPT),
        dnsmos_ovrl=np.where(is_first, 1.25, 3 + order / count),
        speakers=np.where(is_first, 2.0, 1.0),
        overlap_ratio=np.where(is_first, 0.5, 0.0),
        text=np.where(is_first, "Thanks for <watching>", "a text"),
        characters_per_s=np.where(is_first, 44.0, 12.0),
        words_per_s=np.where(is_first, np.nan, 3.0),
        repeated_ngram_ratio=np.where(is_first, 0.9, 0.0),
        stock_phrase=np.where(is_first, "thanks for watching", None),
        stock_phrase_ratio=np.where(is_first, 1.0, 0.0),
        text_language=np.where(is_first, "ja", tables.segments["language"]),
        text_language_probability=0.99,
        text_language_matches=list(~is_first),
        mark_ratio=0.0,
    )


def test_unused_scorers_leave_no_trace(tables):
    assert speakers.speakers(tables).markup == transcripts.transcripts(tables).markup == ""
    pieces = (maps.maps(tables), quality.languages(tables), examples.best(tables))
    assert "MOS" not in "".join(map(text_of, pieces))


def test_the_predicted_mos_ranks_the_examples(scored):
    ranks = examples.ranks(scored)
    values = scored.kept.loc[ranks.index]
    for language, group in values.groupby("language"):
        assert ranks[group.index].idxmax() == group["dnsmos_ovrl"].idxmax(), language
    assert "Ranked by dnsmos_ovrl" in text_of(examples.best(scored))
    assert "DNSMOS OVRL 1.25 MOS" in text_of(examples.worst(scored))


def test_a_dataset_without_any_mos_value_is_ranked_by_the_signal(scored, tables, add_columns):
    missing = add_columns(tables, (MOS,), dnsmos_ovrl=np.nan)
    pd.testing.assert_series_equal(examples.ranks(missing), examples.ranks(tables))


def test_the_mos_has_a_map_a_chart_and_a_column(scored):
    assert "SNR and DNSMOS OVRL" in text_of(maps.maps(scored))
    few = replace(scored)
    vars(few)["columns"] = {name: scored.columns[name] for name in ("dnsmos_ovrl", "characters_per_s", "stock_phrase")}
    text = text_of(distributions.metrics(few))
    assert "DNSMOS OVRL (MOS) predicted overall quality; median of the kept 3" in text
    assert "characters per second" in text
    count = len(scored.segments)
    assert "stock phrase the longest stock phrase of subtitles in the text, as “thanks for watching” 1 92 %" in text
    assert "thanks for watching (100 %)" in text
    assert count == 12
    assert "DNSMOS OVRL (MOS)" in text_of(quality.languages(scored))


def test_outliers_include_the_metrics_of_all_scorers(scored):
    assert "dnsmos_ovrl" in outliers._metrics(scored)
    assert "characters_per_s" in outliers._metrics(scored)
    assert "DNSMOS OVRL 1.25 MOS" in text_of(outliers.outliers(scored))


def test_speakers_are_counted_with_what_a_condition_drops(scored):
    text = text_of(speakers.speakers(scored))
    kept = len(scored.kept)
    assert f"all · {kept - 1} " in text
    assert "not one speaker speakers = 1 1 " in text
    assert "overlapping speakers overlap_ratio <= 0.1 1 " in text


def test_transcripts_show_rates_phrases_and_languages(scored):
    text = text_of(transcripts.transcripts(scored))
    assert "characters_per_s <= 30 1 " in text
    assert "repeated_ngram_ratio <= 0.3 1 " in text
    assert "stock_phrase_ratio < 0.5 1 " in text
    assert "text_language_matches 1 " in text
    assert "characters_per_s >= 2 0 " in text
    assert "thanks for watching 1 1 " in text
    assert "“Thanks for <watching>”" in text
    assert "<watching>" not in transcripts.transcripts(scored).markup


@pytest.mark.parametrize(
    "condition", ["characters_per_s <= 30", "text_language_matches", "words_per_s > 5", "speakers = 1"]
)
def test_a_condition_drops_what_duckdb_drops(scored, condition):
    rows = duckdb.from_df(scored.kept)
    expected = rows.project(f"({condition}) IS FALSE AS dropped").df()["dropped"]
    assert dropped_by(scored, condition).tolist() == expected.tolist()


def test_texts_without_a_language_or_without_words_say_so(scored):
    short = scored.segments.assign(text_language=None, stock_phrase=None)
    text = text_of(transcripts.transcripts(replace(scored, segments=short)))
    assert "too short to identify" in text
    assert "No text has a stock phrase" in text
    none = scored.segments.assign(text=None)
    assert "No kept segment has a text" in text_of(transcripts.transcripts(replace(scored, segments=none)))
    unknown = scored.segments.assign(speakers=np.nan)
    assert "of no kept segment are known" in text_of(speakers.speakers(replace(scored, segments=unknown)))
