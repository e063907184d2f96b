"""Maps, outliers, duplicates and the comparison of two runs show what the tables hold."""

import io
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from output_factory import config, make_output
from page_text import text_of

from audiopipe.report import comparison, duplicates, maps, outliers, quality
from audiopipe.report.figure import DROPPED, KEPT
from audiopipe.store.objects import Store


@pytest.fixture(scope="module")
def tables(dataset):
    return quality.read_tables(dataset)


@pytest.fixture(scope="module")
def compared(dataset, tmp_path_factory):
    """The dataset compared with one of the same corpus without the loudness limit."""
    corpus = Store(dataset).path("").rstrip("/").rsplit("/", 1)[0] + "/corpus/catalog.parquet"
    other = tmp_path_factory.mktemp("other") / "out"
    make_output(config(corpus, other))
    return quality.read_tables(dataset, compare_with=str(other))


def test_without_another_output_there_is_no_comparison(tables):
    assert comparison.comparison(tables).markup == ""


def test_the_comparison_names_the_parameter_that_differs(compared):
    assert "max_loudness_lufs -14.85 None" in text_of(comparison.comparison(compared))


def test_changed_decisions_are_counted_and_named(compared):
    text = text_of(comparison.comparison(compared))
    dropped = compared.segments[~compared.segments["kept"]]
    assert f"{len(compared.segments)} segments are in both; {len(dropped)} have another decision." in text
    assert f"kept too loud {len(dropped)} " in text
    first = dropped.iloc[0]
    assert f"{first['video_id']} {first['start_s']:.1f} to {first['end_s']:.1f} s" in text


def test_kept_counts_are_shown_with_their_difference(compared):
    text = text_of(comparison.comparison(compared))
    for name, left in compared.by_language.items():
        right = compared.other.by_language[name]
        difference = left.segments_kept - right.segments_kept
        shown = f"{difference:+d}".replace("-", "−") if difference else "·"
        assert f"{name} {left.segments} {right.segments} {left.segments_kept} {right.segments_kept} {shown}" in text


def test_an_output_compared_with_itself_has_no_changes(dataset):
    text = text_of(comparison.comparison(quality.read_tables(dataset, compare_with=dataset)))
    assert "Both outputs have the same parameters." in text
    assert "0 have another decision" in text


def test_several_outputs_are_compared_at_once(compared, dataset):
    several = quality.read_tables(dataset, compare_with=f"{compared.other.dataset.url}, {dataset}")
    assert [run.dataset.url for run in several.others] == [compared.other.dataset.url, dataset]
    piece = comparison.comparison(several)
    text = text_of(piece)
    assert "Compared with 2 outputs" in text
    assert "max_loudness_lufs -14.85 None -14.85" in text
    numbers = [several.numbers, compared.other.numbers, several.numbers]
    assert f"all {' '.join(item.hours_kept for item in numbers)}" in text
    assert piece.markup.count('class="entry"') == 3
    assert f"Changed decisions, compared with {compared.other.dataset.url}" in text
    labels = list(comparison.label_runs(several))
    assert labels == ["this output", compared.other.dataset.url, dataset]  # both addresses end in "out"


def test_segments_with_other_cuts_are_not_compared(compared):
    rows = compared.other.segments
    moved = replace(compared.other, segments=rows.assign(start_s=rows["start_s"] + 0.2))
    assert "0 segments are in both" in text_of(comparison.comparison(replace(compared, others=(moved,))))


def test_a_map_of_each_pair_has_the_colors_of_kept_and_dropped(tables):
    piece = maps.maps(tables)
    assert piece.markup.count("<svg") == len(maps.PAIRS) - 1  # this dataset has no MOS
    assert "data:image/png" in piece.markup
    values = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    edges = [np.array([-0.5, 0.5, 1.5])] * 2
    image = maps._image(*maps._count(values, np.array([True, False, False]), edges))
    blue, orange = (tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)) for color in (KEPT, DROPPED))
    assert tuple(image[0, 0, :3]) == pytest.approx(blue)
    assert tuple(image[1, 1, :3]) == pytest.approx(orange)
    assert image[0, 1, 3] == image[1, 0, 3] == 0
    assert image[1, 1, 3] == 1 > image[0, 0, 3] > 0


def test_a_map_without_values_says_so(tables):
    blank = replace(tables, segments=tables.segments.assign(snr_db=np.nan))
    assert "no segment has both metrics" in maps.maps(blank).markup


def test_a_segment_unlike_its_language_is_an_outlier(tables):
    rows = tables.segments.copy()
    rows["dc_offset"] = np.random.default_rng(0).normal(0, 1e-4, len(rows))
    index = rows[rows["kept"]].index[0]
    rows.loc[index, "dc_offset"] = 0.5
    text = text_of(outliers.outliers(replace(tables, segments=rows)))
    assert "DC offset 0.500" in text
    assert "deviations above" in text
    assert rows.loc[index, "video_id"] in text


def test_identical_segments_have_no_outliers(tables):
    flat = replace(tables, segments=tables.segments.assign(**dict.fromkeys(outliers.AUDIBLE, 1.0)))
    assert "No kept segment is 4 or more standard deviations" in text_of(outliers.outliers(flat))


def write_duplicates(store, rows):
    names = ("video_id", "language", "shard", "duplicate_of", "duplicate_of_language", "similarity", "left_out")
    table = pa.table({name: [row[column] for row in rows] for column, name in enumerate(names)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    store.write("duplicates.parquet", buffer.getvalue())


def test_duplicates_are_shown_in_groups_if_there_is_a_table(tables, tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    assert set(tables.by_language) == {"de", "en"}  # cached from the dataset's own store
    monkeypatch.setattr(tables.dataset, "store", store)
    assert duplicates.duplicates(tables).markup == ""
    rows = [
        ("b", "en", 0, "a", "en", 0.91, True),
        ("c", "de", 0, "a", "en", 0.8, True),
        ("e", "en", 1, "d", "en", 1.0, False),
    ]
    write_duplicates(store, rows)
    text = text_of(duplicates.duplicates(tables))
    assert "3 duplicates in 2 groups. The files unique_manifest_*.json leave out 2 videos." in text
    assert "a en 3 0.80 to 0.91 b (en, 0.91), c (de, 0.80)" in text
    assert "d en 2 1.00 e (en, 1.00)" in text
