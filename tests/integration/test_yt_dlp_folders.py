"""Run fifty videos as yt-dlp leaves them: each has its own language's captions, each word once, the right track."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from output_factory import config, make_output
from yt_dlp_folders import SECONDS, Expected, make_catalog

RULES = {"min_loudness_lufs": None, "max_silence_ratio": None, "max_clipping_ratio": None}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Expected]]:
    folder = tmp_path_factory.mktemp("yt_dlp")
    expected = make_catalog(folder / "videos", folder)
    parameters = {"shard_videos": 10, "segments": "auto", "duplicate_similarity": None, **RULES}
    make_output(config(folder / "videos", folder / "out", **parameters))
    return folder / "out", expected


def read_rows(folder: Path, kind: str) -> list[dict[str, object]]:
    return [row for path in sorted(folder.glob(f"*/{kind}_*.parquet")) for row in pq.read_table(path).to_pylist()]


def test_every_folder_gives_what_it_should(output: tuple[Path, dict[str, Expected]]) -> None:
    folder, expected = output
    videos = {str(row["video_id"]): row for row in read_rows(folder, "videos")}
    segments = sorted(read_rows(folder, "segments"), key=lambda row: (row["video_id"], row["segment"]))
    assert videos.keys() == expected.keys()
    assert len(expected) == 50
    differences = []
    for video_id, wanted in expected.items():
        row = videos[video_id]
        texts = [segment["text"] for segment in segments if segment["video_id"] == video_id]
        actual = (row["status"], row["error_type"], row["captions"], row["title"], tuple(dict.fromkeys(texts)))
        right = (wanted.status, wanted.error, wanted.captions, wanted.title, tuple(wanted.texts))
        if wanted.status == "failed":
            actual, right = actual[:2], right[:2]
        has_note = wanted.note is None or wanted.note in str(row["notes"])
        has_track = wanted.status == "failed" or str(row["audio_track"]).startswith(wanted.track)
        once = wanted.texts == (None,) or len(texts) == len(wanted.texts)
        if actual != right or not (has_note and has_track and once):
            differences.append((video_id, actual, right, row["audio_track"], row["notes"], row["error_message"], texts))
    assert not differences, "\n".join(map(str, differences))


def test_segments_are_where_the_captions_say(output: tuple[Path, dict[str, Expected]]) -> None:
    folder, expected = output
    with_text = [row for row in read_rows(folder, "segments") if row["text"] is not None]
    assert len(with_text) > 100
    for row in with_text:
        position = list(expected[str(row["video_id"])].texts).index(str(row["text"]))
        assert row["start_s"] == pytest.approx(2 * position + 0.2, abs=0.01), row
        # The last one of YouTube's formats stays on the screen when the audio has ended.
        end_s = 2 * position + 2.0 if row["end_s"] != pytest.approx(SECONDS, abs=0.1) else SECONDS
        assert row["end_s"] == pytest.approx(end_s, abs=0.25), row
        assert row["kept"], row
