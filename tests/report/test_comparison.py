"""Maps, outliers, duplicates and the comparison of two runs say what the tables hold."""

import io
import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from output_factory import config, make_output

from audiopipe.report import comparison, duplicates, maps, outliers, quality
from audiopipe.report.figure import DROPPED, KEPT
from audiopipe.store.objects import Store


def words(piece):
    return re.sub(r"\s+", " ", re.sub(r"<svg.*?</svg>|<[^>]+>", " ", piece.markup, flags=re.DOTALL))


@pytest.fixture(scope="module")
def data(dataset):
    return quality.read_dataset(dataset)


@pytest.fixture(scope="module")
def both(dataset, tmp_path_factory):
    """The dataset beside one of the same corpus without the loudness limit."""
    corpus = Store(dataset).path("").rstrip("/").rsplit("/", 1)[0] + "/corpus/catalog.parquet"
    other = tmp_path_factory.mktemp("other") / "out"
    make_output(config(corpus, other))
    return quality.read_dataset(dataset, compare_with=str(other))


def test_without_another_output_there_is_no_comparison(data):
    assert comparison.comparison(data).markup == ""


def test_the_comparison_names_the_parameter_that_differs(both):
    assert "max_loudness_lufs -14.85 None" in words(comparison.comparison(both))


def test_changed_decisions_are_counted_and_named(both):
    told = words(comparison.comparison(both))
    changed = int((~both.segments["kept"]).sum())
    assert f"{len(both.segments)} segments are in both; {changed} changed their decision." in told
    assert f"kept too loud {changed} " in told
    first = both.segments[~both.segments["kept"]].iloc[0]
    assert f"{first['video_id']} {first['start_s']:.1f} to {first['end_s']:.1f} s" in told


def test_kept_counts_are_shown_with_their_difference(both):
    told = words(comparison.comparison(both))
    for name, mine in both.by_language.items():
        theirs = both.other.by_language[name]
        delta = mine.segments_kept - theirs.segments_kept
        shown = f"{delta:+d}".replace("-", "−") if delta else "·"
        assert f"{name} {mine.segments} {theirs.segments} {mine.segments_kept} {theirs.segments_kept} {shown}" in told


def test_an_output_compared_with_itself_has_no_changes(dataset):
    told = words(comparison.comparison(quality.read_dataset(dataset, compare_with=dataset)))
    assert "Both were made with the same parameters." in told
    assert "0 changed their decision" in told


def test_segments_cut_at_other_times_are_not_taken_for_the_same(both):
    moved = replace(both.other, segments=both.other.segments.assign(start_s=both.other.segments["start_s"] + 0.2))
    assert "0 segments are in both" in words(comparison.comparison(replace(both, other=moved)))


def test_a_map_of_each_pair_has_the_colors_of_kept_and_dropped(data):
    made = maps.maps(data)
    assert made.markup.count("<svg") == len(maps.PAIRS)
    assert "data:image/png" in made.markup
    values = np.array([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
    edges = [np.array([-0.5, 0.5, 1.5])] * 2
    image = maps._image(values, np.array([True, False, False]), edges)
    blue, orange = (tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)) for colour in (KEPT, DROPPED))
    assert tuple(image[0, 0, :3]) == pytest.approx(blue)
    assert tuple(image[1, 1, :3]) == pytest.approx(orange)
    assert image[0, 1, 3] == image[1, 0, 3] == 0
    assert image[1, 1, 3] == 1 > image[0, 0, 3] > 0


def test_a_map_without_values_says_so(data):
    blank = replace(data, segments=data.segments.assign(snr_db=np.nan))
    assert "no segment has both" in maps.maps(blank).markup


def test_the_segment_that_is_unlike_its_language_is_found(data):
    rows = data.segments.copy()
    rows["dc_offset"] = np.random.default_rng(0).normal(0, 1e-4, len(rows))
    odd = rows[rows["kept"]].index[0]
    rows.loc[odd, "dc_offset"] = 0.5
    told = words(outliers.outliers(replace(data, segments=rows)))
    assert "DC offset 0.500" in told
    assert "deviations above" in told
    assert rows.loc[odd, "video_id"] in told


def test_identical_segments_have_no_outliers(data):
    flat = replace(data, segments=data.segments.assign(**dict.fromkeys(outliers.WATCHED, 1.0)))
    assert "No kept segment lies" in words(outliers.outliers(flat))


def write_duplicates(store, rows):
    names = ("video_id", "language", "shard", "duplicate_of", "duplicate_of_language", "similarity", "left_out")
    table = pa.table({name: [row[place] for row in rows] for place, name in enumerate(names)})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    store.write("duplicates.parquet", sink.getvalue())


def test_duplicates_are_shown_in_groups_if_there_is_a_table(data, tmp_path):
    store = Store(str(tmp_path))
    mine = replace(data, store=store)
    assert duplicates.duplicates(mine).markup == ""
    rows = [
        ("b", "en", 0, "a", "en", 0.91, True),
        ("c", "de", 0, "a", "en", 0.8, True),
        ("e", "en", 1, "d", "en", 1.0, False),
    ]
    write_duplicates(store, rows)
    told = words(duplicates.duplicates(mine))
    assert "3 duplicates in 2 groups; 2 are left out" in told
    assert "a en 3 0.80 to 0.91 b (en, 0.91), c (de, 0.80)" in told
    assert "d en 2 1.00 e (en, 1.00)" in told
