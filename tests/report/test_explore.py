"""The explore report: it shows what the tables hold, and for a broken video where it stopped."""

import numpy as np
import pytest
from factories import tar_file, wav_video
from page_text import text_of

from audiopipe.dataset.reader import Dataset
from audiopipe.errors import ConfigError
from audiopipe.kernels import METRICS
from audiopipe.report import explore
from audiopipe.report.explore.waveforms import _relative_gate
from audiopipe.report.metric_labels import format_metric, metric_name
from audiopipe.report.text import format_number
from audiopipe.store.objects import Store

VIEWS = (
    *("headline", "source", "waveform", "segments", "metrics", "loudness", "k_weighting"),
    *("spectrogram", "spectrum", "noise_floor", "resampling", "encoding", "records", "comparison"),
)


def view_texts(trace):
    """Return the text of every view of a trace by the view's name."""
    return {name: text_of(getattr(explore, name)(trace), with_figures=True) for name in VIEWS}


@pytest.fixture(scope="module")
def rows(dataset):
    """The output's rows of `video01` by segment number."""
    return Dataset(dataset).to_pandas(where="video_id = 'video01'").set_index("segment")


@pytest.fixture(scope="module")
def trace(dataset):
    return explore.trace_video(dataset, youtube_id="video01", segment=0)


@pytest.fixture(scope="module")
def texts(trace):
    return view_texts(trace)


def test_headline_counts_the_segments_of_the_table(texts, rows):
    assert f"{int(rows['kept'].sum())} / {len(rows)} segments kept" in texts["headline"]
    assert "✓ fetch ✓ decode ✓ segment ✓ score ✓ encode ✓ write" in texts["headline"]


def test_every_metric_of_the_segment_equals_the_table(texts, rows):
    for metric in METRICS:
        value = format_metric(metric, float(rows.loc[0, metric]))
        assert f"{metric_name(metric)} {value}" in texts["metrics"], metric


def test_segments_are_shown_with_limits_and_decision(texts, rows):
    for segment, row in rows.iterrows():
        decision = "kept" if row["kept"] else row["drop_reason"].replace("_", " ")
        assert f"{segment} {row['start_s']:.2f} s {row['end_s']:.2f} s {decision}" in texts["segments"]
    assert "≤ −14.85" in texts["segments"]
    assert "the JSON of the video" in texts["segments"]


def test_values_outside_a_limit_are_marked(dataset, rows):
    dropped = rows[rows["drop_reason"] == "too_loud"]
    assert len(dropped)
    segment = int(dropped.index[0])
    texts = view_texts(explore.trace_video(dataset, youtube_id="video01", segment=segment))
    loudness = format_number(float(dropped.loc[segment, "loudness_lufs"]), 1)
    assert f"loudness {loudness} ✕ LUFS" in texts["metrics"]
    assert "too loud" in texts["metrics"]
    assert "Nothing was encoded" in texts["encoding"]


def test_the_signal_is_that_of_the_segment(trace):
    assert len(trace.signal) == round(0.8 * 16_000)
    assert np.abs(trace.signal).max() < 1
    assert trace.envelope.seconds == pytest.approx(2.1, abs=0.01)
    assert max(trace.envelope.high) == pytest.approx(np.abs(trace.signal).max(), abs=0.1)


def test_relative_gate_is_ten_lu_below_the_audible_mean():
    blocks = np.repeat([-20.0, -100.0], 10)  # half of it is below the absolute gate
    assert _relative_gate(blocks, 0.1) == pytest.approx(-30.0)
    assert np.isnan(_relative_gate(np.full(5, -np.inf), 0.1))


def test_the_encoded_segment_and_its_records_are_shown(dataset, rows):
    kept = rows[rows["kept"]]
    texts = view_texts(explore.trace_video(dataset, youtube_id="video01", segment=int(kept.index[0])))
    assert "lossless: every sample is equal" in texts["encoding"]
    assert kept["key"].iloc[0] in texts["records"]
    assert "audio_filepath" in texts["records"]


def test_the_comparison_finds_the_same_result_in_the_output(texts, rows):
    expected = f"Same result as in the output: {len(rows)} segments compared, 0 with another decision."
    assert expected in texts["comparison"]


def test_without_an_id_the_video_with_most_drop_reasons_is_chosen(dataset):
    trace = explore.trace_video(dataset)
    assert not trace.segments["kept"].all()
    assert "dropped for the most reasons" in text_of(explore.headline(trace))


def test_a_missing_video_stops_at_fetch(dataset):
    texts = view_texts(explore.trace_video(dataset, youtube_id="nowhere"))
    assert "Stopped at fetch : MissingSource" in texts["headline"]
    assert "What to do: check r2_tar_key" in texts["headline"]
    assert "✕ fetch · decode" in texts["headline"]
    assert "Same result: in the output the video is MissingSource" in texts["comparison"]


BROKEN = {
    "no_tar": (lambda path: path.write_bytes(b"x" * 2000), "fetch", "BadTar"),
    "no_audio": (lambda path: tar_file(path, {"a.txt": b"words"}), "fetch", "NoAudio"),
    "no_media": (lambda path: tar_file(path, {"a.webm": b"not media" * 99}), "decode", "UndecodableMedia"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_video_of_a_catalog_names_stage_and_error(tmp_path, name):
    make, stage, error_type = BROKEN[name]
    make(tmp_path / f"{name}.tar")
    texts = view_texts(explore.trace_video(None, catalog=str(tmp_path)))
    assert f"Stopped at {stage} : {error_type}" in texts["headline"]
    assert "What to do" in texts["headline"]


def test_unreadable_times_stop_it_after_the_waveform(tmp_path):
    wav_video(tmp_path, "video", json=b"{broken")
    texts = view_texts(explore.trace_video(None, catalog=str(tmp_path)))
    assert "Stopped at segment : BadSegments" in texts["headline"]
    assert "✓ fetch ✓ decode ✕ segment" in texts["headline"]
    assert "Waveform 3.0 s decoded" in texts["waveform"]


def test_exploring_does_not_change_the_output(dataset):
    before = Store(dataset).list()
    explore.trace_video(dataset, youtube_id="video02")
    assert Store(dataset).list() == before
    assert Dataset(dataset).run.run_id == "tests"


def test_an_unknown_video_or_segment_is_refused(dataset, tmp_path):
    with pytest.raises(ConfigError, match="youtube_id' 'unknown'"):
        explore.trace_video(dataset, youtube_id="unknown")
    with pytest.raises(ConfigError, match="segment' 7: the video has segments 0 to 1"):
        explore.trace_video(dataset, youtube_id="video01", segment=7)
    with pytest.raises(ConfigError, match="set one of them"):
        explore.trace_video(None)
    wav_video(tmp_path, "video")
    with pytest.raises(ConfigError, match="no such video"):
        explore.trace_video(None, catalog=str(tmp_path), youtube_id="unknown")
