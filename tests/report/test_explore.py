"""One video through every stage: what is shown is what the tables hold, and a broken video shows where it stopped."""

import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from factories import tar_file, wav_video

from audiopipe.dataset.run_record import read_run_record
from audiopipe.errors import ConfigError
from audiopipe.kernels import METRICS
from audiopipe.report import explore
from audiopipe.report.quality import digits, title
from audiopipe.report.text import number
from audiopipe.store.objects import Store

VIEWS = ("headline", "source", "waveform", "segments", "measured", "loudness", "weighting", "spectrogram", "spectrum")
VIEWS += ("noise", "resampled", "encoded", "records", "compared")


def words(piece):
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", piece.markup, flags=re.DOTALL))


def shown(seen):
    """Every view of a trace, by name."""
    return {name: words(getattr(explore, name)(seen)) for name in VIEWS}


@pytest.fixture(scope="module")
def rows(dataset):
    """The output's rows of `video01`."""
    store = Store(dataset)
    tables = [
        pq.read_table(store.fs.open(store.path(name))).to_pandas() for name in store.list() if "/segments_" in name
    ]
    (mine,) = [table for table in tables if "video01" in set(table["video_id"])]
    return mine[mine["video_id"] == "video01"].set_index("segment")


@pytest.fixture(scope="module")
def seen(dataset):
    return explore.trace_video(dataset, youtube_id="video01", segment=0)


@pytest.fixture(scope="module")
def told(seen):
    return shown(seen)


def test_the_headline_counts_what_the_table_has(told, rows):
    assert f"{int(rows['kept'].sum())} / {len(rows)} segments kept" in told["headline"]
    assert "✓ fetch ✓ decode ✓ segment ✓ score ✓ encode ✓ write" in told["headline"]


def test_every_metric_of_the_segment_equals_the_table(told, rows):
    for metric, (unit, _) in METRICS.items():
        value = number(float(rows.loc[0, metric]), digits(metric))
        assert f"{title(metric).removesuffix(f' ({unit})')} {value}" in told["measured"], metric


def test_segments_are_shown_with_limits_and_decision(told, rows):
    for number_, row in rows.iterrows():
        decision = "kept" if row["kept"] else row["drop_reason"].replace("_", " ")
        assert f"{number_} {row['start_s']:.2f} s {row['end_s']:.2f} s {decision}" in told["segments"]
    assert "≤ −14.85" in told["segments"]
    assert "the JSON beside the audio" in told["segments"]


def test_what_breaks_a_limit_is_marked(dataset, rows):
    dropped = rows[rows["drop_reason"] == "too_loud"]
    assert len(dropped)
    segment = int(dropped.index[0])
    told = shown(explore.trace_video(dataset, youtube_id="video01", segment=segment))
    loudness = number(float(dropped.loc[segment, "loudness_lufs"]), 1)
    assert f"loudness {loudness} ✕ LUFS" in told["measured"]
    assert "too loud" in told["measured"]
    assert "Nothing was encoded" in told["encoded"]


def test_the_signal_is_that_of_the_segment(seen):
    assert len(seen.signal) == round(0.8 * 16_000)
    assert np.abs(seen.signal).max() < 1
    assert seen.outline.seconds == pytest.approx(2.1, abs=0.01)
    assert max(seen.outline.high) == pytest.approx(np.abs(seen.signal).max(), abs=0.1)


def test_the_relative_gate_is_ten_lu_below_the_audible_mean():
    from audiopipe.report.explore.sound import _relative_gate

    blocks = np.repeat([-20.0, -100.0], 10)  # half of it is below the absolute gate
    assert _relative_gate(blocks, 0.1) == pytest.approx(-30.0)
    assert np.isnan(_relative_gate(np.full(5, -np.inf), 0.1))


def test_what_is_written_is_shown(dataset, rows):
    kept = rows[rows["kept"]]
    told = shown(explore.trace_video(dataset, youtube_id="video01", segment=int(kept.index[0])))
    assert "every sample comes back as it was" in told["encoded"]
    assert kept["key"].iloc[0] in told["records"]
    assert "audio_filepath" in told["records"]


def test_it_says_that_the_output_holds_the_same(told, rows):
    assert f"The same as in the output: {len(rows)} segments compared, 0 with another decision." in told["compared"]


def test_the_video_is_chosen_by_rule_where_none_is_named(dataset):
    seen = explore.trace_video(dataset)
    assert not seen.segments["kept"].all(), "one with drops has more to show"
    assert "dropped for the most reasons" in words(explore.headline(seen))


def test_a_video_that_is_not_there_says_so_at_its_stage(dataset):
    told = shown(explore.trace_video(dataset, youtube_id="nowhere"))
    assert "Stopped at fetch : MissingSource" in told["headline"]
    assert "What to do: check r2_tar_key" in told["headline"]
    assert "✕ fetch · decode" in told["headline"]
    assert "The same: the output has it as MissingSource" in told["compared"]


BROKEN = {
    "no_tar": (lambda path: path.write_bytes(b"x" * 2000), "fetch", "BadTar"),
    "no_audio": (lambda path: tar_file(path, {"a.txt": b"words"}), "fetch", "NoAudio"),
    "no_media": (lambda path: tar_file(path, {"a.webm": b"not media" * 99}), "decode", "UndecodableMedia"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_video_of_a_catalogue_shows_where_it_stopped_and_why(tmp_path, name):
    make, stage, kind = BROKEN[name]
    make(tmp_path / f"{name}.tar")
    seen = explore.trace_video(None, catalog=str(tmp_path))
    told = shown(seen)
    assert f"Stopped at {stage} : {kind}" in told["headline"]
    assert "What to do" in told["headline"]


def test_unreadable_times_stop_it_after_the_waveform(tmp_path):
    wav_video(tmp_path, "video", json=b"{broken")
    told = shown(explore.trace_video(None, catalog=str(tmp_path)))
    assert "Stopped at segment : BadSegments" in told["headline"]
    assert "✓ fetch ✓ decode ✕ segment" in told["headline"]
    assert "Waveform 3.0 s decoded" in told["waveform"]


def test_looking_leaves_the_output_as_it_was(dataset):
    before = Store(dataset).list()
    explore.trace_video(dataset, youtube_id="video02")
    assert Store(dataset).list() == before
    assert read_run_record(Store(dataset)).run_id == "tests"


def test_a_video_or_segment_that_is_not_there_is_refused(dataset, tmp_path):
    with pytest.raises(ConfigError, match="youtube_id' 'nobody'"):
        explore.trace_video(dataset, youtube_id="nobody")
    with pytest.raises(ConfigError, match="segment' 7: the video has segments 0 to 1"):
        explore.trace_video(dataset, youtube_id="video01", segment=7)
    with pytest.raises(ConfigError, match="give one of them"):
        explore.trace_video(None)
    wav_video(tmp_path, "video")
    with pytest.raises(ConfigError, match="no such video"):
        explore.trace_video(None, catalog=str(tmp_path), youtube_id="nobody")
