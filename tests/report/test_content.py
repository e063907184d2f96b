"""The quality report shows what a dataset contains: hours, durations, texts, letters, speakers, videos, channels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from page_text import text_of

from audiopipe.dataset.reader import Dataset
from audiopipe.report import content, quality, sources, texts
from audiopipe.report.alphabets import find_alphabet, letters_outside
from audiopipe.report.durations import durations
from audiopipe.report.sample_rates import SampleRates

TEXTS = {"en": "the cat and the dog", "de": "Größe und привет"}


@pytest.fixture(scope="module")
def tables(dataset):
    return quality.read_tables(dataset)


@pytest.fixture(scope="module")
def described(tables):
    """The dataset with other texts, with speakers, titles and channels, and every segment kept."""
    rows = tables.segments
    return replace(
        tables,
        segments=rows.assign(
            kept=True,
            duration_s=np.where(rows["video_id"] == "video00", 1800.0, 360.0),
            text=rows["language"].map(TEXTS),
            speaker=rows["language"].map({"en": "alice", "de": "bob"}),
            title=rows["video_id"].where(rows["video_id"] != "video02"),
            channel=np.where(rows["language"] == "en", "News <24>", None),
        ),
    )


def test_hours_and_durations_are_drawn_by_language(tables):
    piece = durations(tables)
    numbers = tables.numbers
    assert f"Hours {numbers.hours_kept} of {numbers.hours} h kept in 2 languages" in text_of(piece)
    assert piece.markup.count('class="chart"') == 2
    assert "A kept segment lasts 0.8 s in the median" in text_of(piece)


def test_texts_have_rates_a_vocabulary_and_foreign_letters(described):
    text = text_of(texts.texts(described))
    assert "Characters per second median 0." in text
    english = (described.segments["language"] == "en").sum()
    assert f"en {english} {5 * english} 4 10 the" in text
    assert "the, cat, and, dog" in text
    assert f"de {6 * len(described.segments[described.segments['language'] == 'de'])} " in text
    assert "Cyrillic п" in text
    assert "“Größe und привет”" in text


def test_rates_are_letters_and_words_per_second(described):
    one_second = replace(described, segments=described.segments.assign(duration_s=1.0))
    text = text_of(texts.texts(one_second))
    assert "en 100 % 15.0 15.0 15.0 5.0 5.0 5.0" in text
    assert "de 100 % 14.0 14.0 14.0 3.0 3.0 3.0" in text


def test_texts_without_letters_of_others_say_so(described):
    plain = replace(described, segments=described.segments.assign(text="a cat"))
    assert "Every letter is in the alphabet" in text_of(texts.texts(plain))
    silent = replace(described, segments=described.segments.assign(text=None))
    assert texts.texts(silent).markup == ""


@pytest.mark.parametrize(
    ("language", "text", "outside"),
    [
        ("de", "Größe Café", ""),
        ("de", "Привет", "приветПривет"),
        ("ru", "ёлка Ok", "Ok"),
        ("ja", "東京タワー a", "a"),
        ("zh", "你好 ア", "ア"),
        ("ko", "안녕 漢", ""),
        ("sr", "љубав", ""),
        ("xx", "abc д", "д"),
        ("no-such-language", "日本語 q", "q"),
    ],
)
def test_letters_outside_an_alphabet_are_found(language, text, outside):
    counts = pd.Series(list(text)).value_counts().to_dict()
    assert set(letters_outside(counts, language)) == set(text) & set(outside)


def test_a_language_without_a_set_has_no_alphabet():
    assert find_alphabet("xx") is None
    letters, scripts = find_alphabet("pt-BR")
    assert "ç" in letters
    assert not scripts


def test_videos_and_channels_are_ranked_by_kept_hours(described):
    text = text_of(sources.videos_and_channels(described))
    assert "the 1 video with most have" in text
    assert text.index("en video00 video00") < text.index("video02")
    assert "en video02 – " in text
    assert "1 channel with kept segments" in text
    assert "News <24> 3 1." in text
    assert "<24>" not in sources.videos_and_channels(described).markup


def test_a_channels_share_is_of_all_kept_hours(described):
    rows = described.segments
    share = 100 * rows["duration_s"][rows["language"] == "en"].sum() / rows["duration_s"].sum()
    text = text_of(sources.videos_and_channels(described))
    assert f"the 1 channel with most have {share:.0f} % of the hours" in text
    assert share < 99


def test_a_channel_that_is_a_list_is_left_out(dataset, monkeypatch):
    types = {**Dataset(dataset).column_types, "channel": "VARCHAR[]", "title": "VARCHAR"}
    monkeypatch.setattr(Dataset, "column_types", types)
    read = []
    monkeypatch.setattr(Dataset, "to_pandas", lambda self, columns: read.extend(columns))
    quality.read_tables(dataset)
    assert "title" in read
    assert "channel" not in read


def test_the_rate_of_sources_is_shown_where_some_lack_it(tables):
    rates = [None, *[48_000] * (len(tables.segments) - 1)]
    described = SampleRates(replace(tables, segments=tables.segments.assign(source_rate_hz=rates)))
    assert "48 kHz in 100 % of the segments" in described.describe_sources()


def test_texts_of_another_direction_do_not_reorder_the_numbers(described):
    arabic = replace(described, segments=described.segments.assign(text="كتاب <b>"))
    markup = texts.texts(arabic).markup
    assert "<bdi>كتاب</bdi>" in markup
    assert f"<b><bdi>ك</bdi></b>&nbsp;{(described.segments['language'] == 'en').sum()}" in markup
    assert "<b>”" not in markup


def test_an_empty_text_is_no_text(described):
    text = described.segments["text"].where(described.segments["video_id"] != "video00", "")
    shown = text_of(texts.texts(replace(described, segments=described.segments.assign(text=text))))
    assert "en 100 %" not in shown


def test_titles_come_from_the_videos_where_the_segments_have_none(tables):
    assert "Channels" not in text_of(sources.videos_and_channels(tables))


def test_labeled_speakers_are_counted_in_a_language_or_a_video(described):
    text = text_of(sources.labeled_speakers(described))
    assert "2 speakers with a label, in 100 % of the kept time" in text
    assert "counts as one speaker" in text
    record = replace(described.dataset.run, config={**described.config, "speaker_labels": True})
    dataset = described.dataset.select_shards(described.dataset.commits)
    vars(dataset)["run"] = record
    text = text_of(sources.labeled_speakers(replace(described, dataset=dataset)))
    assert f"{described.segments['video_id'].nunique()} speakers with a label" in text
    assert "names a speaker within a video" in text


def test_the_content_of_a_dataset_without_texts_is_shown(tables):
    bare = replace(tables, segments=tables.segments.assign(text=None, speaker=None))
    text = text_of(content.content(bare))
    assert "Hours and durations" in text
    assert "Videos with most hours" in text
    for heading in ("Texts", "Speakers", "Transcripts"):
        assert heading not in text
