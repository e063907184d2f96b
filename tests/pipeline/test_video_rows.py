"""Real media with real sidecars through a whole shard: what the rows of the videos say."""

import json
import subprocess
import tarfile

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from factories import config, media_file, shard_of, synthetic_speech, tar_file, tones

from audiopipe.bench.corpus.media import find_ffmpeg
from audiopipe.pipeline.shard import process_shard
from audiopipe.types import Video

COLUMNS = (
    *("audio_track", "captions", "title", "channel", "upload_date", "chapters", "info_language", "notes"),
    *("gap_s", "audio_channel"),
)
NO_RULES = {"min_loudness_lufs": None, "max_silence_ratio": None, "min_snr_db": None, "max_clipping_ratio": None}
INFO = {
    "title": "Ein Titel",
    "uploader": "Kanal",
    "upload_date": "20240229",
    "language": "de",
    "chapters": [{"start_time": 0, "end_time": 3.0, "title": "Anfang"}],
    "subtitles": {"de": [{}]},
}
CHAPTERS = '[{"start_time": 0.0, "end_time": 3.0, "title": "Anfang"}]'


def captions(*texts):
    cues = (f"00:0{i}.000 --> 00:0{i}.900\n{text}\n" for i, text in enumerate(texts))
    return ("WEBVTT\n\n" + "\n".join(cues)).encode()


def run(folder, *videos, **parameters):
    """Process a shard; return the rows of its videos, of its segments, and its sidecars by key."""
    process_shard(shard_of(videos, "de"), config(output=str(folder / "out"), **NO_RULES | parameters), "run")
    rows = [pq.read_table(folder / f"out/de/{name}_000000.parquet").to_pylist() for name in ("videos", "segments")]
    with tarfile.open(folder / "out/de/audio_000000.tar") as tar:
        bodies = [json.loads(tar.extractfile(member).read()) for member in tar if member.name.endswith(".json")]
    return *rows, {body["key"]: body for body in bodies}


def make_two_tracks(folder):
    path = folder / "two.mkv"
    inputs = [media_file(folder / f"{n}.wav", tones(4.0, 16_000, 1, n), 16_000) for n in range(2)]
    options = ["-map", "0:a", "-map", "1:a", "-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=ger"]
    command = [find_ffmpeg(), "-v", "error", "-i", inputs[0], "-i", inputs[1], *options, "-c:a", "flac", path]
    subprocess.run(command, check=True, timeout=60)
    return path.read_bytes()


@pytest.mark.parametrize("sidecar_info", [False, True])
def test_the_row_names_track_captions_and_metadata(tmp_path, sidecar_info):
    members = {
        "v.info.json": json.dumps(INFO).encode(),
        "v.live_chat.json": b'{"replay": 1}\n{"replay": 2}\n',
        "v.comments.json": b"[1, 2]",
        "v.en.vtt": captions("one", "two"),
        "v.de.vtt": captions("eins", "zwei"),
        "v.mkv": make_two_tracks(tmp_path),
    }
    video = Video("v", "de", str(tar_file(tmp_path / "v.tar", members)))
    plain = Video("p", "de", str(media_file(tmp_path / "p.wav", tones(2.0, 16_000, 1), 16_000)))
    (row, bare), segments, sidecars = run(tmp_path, video, plain, sidecar_info=sidecar_info)
    assert [row[name] for name in COLUMNS] == [
        *("2 of 2 (ger)", "v.de.vtt", "Ein Titel", "Kanal", "20240229", CHAPTERS, "de", row["notes"], 0.0, None),
    ]
    assert sorted(row["notes"].split("; ")) == [
        "ignored v.comments.json: a list or value without segment times",
        "ignored v.live_chat.json: a live chat",
    ]
    assert [bare[name] for name in COLUMNS] == ["1 of 1", *[None] * 7, 0.0, None]
    assert [segment["text"] for segment in segments] == ["eins", "zwei", None]
    names = ("title", "channel", "upload_date", "chapters", "info_language")
    for key, body in sidecars.items():
        expected = [row[name] for name in names] if key.startswith("v") else [""] * 5
        assert [body.get(name) for name in names] == (expected if sidecar_info else [None] * 5)


def test_the_row_has_the_length_of_gaps(tmp_path):
    media_file(tmp_path / "whole.mkv", tones(6.0, 48_000, 2), 48_000, "-c:a", "flac")
    with av.open(tmp_path / "whole.mkv") as source, av.open(tmp_path / "v.mkv", "w") as target:
        stream = source.streams.audio[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None and not 2.0 < float(packet.pts * stream.time_base) < 3.5:
                packet.stream = copy
                target.mux(packet)
    (row,), _, _ = run(tmp_path, Video("v", "de", str(tmp_path / "v.mkv")))
    assert row["gap_s"] == pytest.approx(1.5, abs=0.1)
    assert row["duration_s"] == pytest.approx(6.0, abs=1e-3)
    assert row["audio_channel"] == "mean"


def test_the_row_says_why_no_captions_are_used(tmp_path):
    speech = synthetic_speech(3, 6.0)
    media_file(tmp_path / "v.webm", np.concatenate([speech, -speech]), 48_000, "-c:a", "libopus")
    for name in ("v.en.vtt", "v.fr.vtt"):
        (tmp_path / name).write_bytes(captions("one"))
    video = Video("v", "de", str(tmp_path / "v.webm"), sidecars=("v.en.vtt", "v.fr.vtt"))
    (row,), segments, _ = run(tmp_path, video, segments="auto")
    assert (row["status"], row["captions"], row["audio_channel"]) == ("done", None, "left")
    first, second = row["notes"].split("; ")
    assert first == "captions: none in 'de' among en, fr"
    assert second == "the mean of the 2 channels cancels in 100% of the sound: channel 0 is used"
    assert {segment["text"] for segment in segments} == {None}


def test_a_translation_is_used_with_a_note_and_a_text_once(tmp_path):
    audio = media_file(tmp_path / "v.opus", tones(5.0, 48_000, 1), 48_000, "-c:a", "libopus").read_bytes()
    members = {"v.opus": audio, "v.de-en.vtt": captions("eins", "zwei"), "._v.de.vtt": b"\0\5\x16\7"}
    (row,), segments, _ = run(tmp_path, Video("v", "de", str(tar_file(tmp_path / "v.tar", members))))
    assert (row["captions"], row["notes"]) == ("v.de-en.vtt", "captions: v.de-en.vtt is translated from 'en'")
    assert [segment["text"] for segment in segments] == ["eins", "zwei"]


ROLLING = """WEBVTT
Kind: captions
Language: de

00:00:00.250 --> 00:00:02.990
 \nder<00:00:00.600><c> Kessel.</c><00:00:01.200><c> wir</c><00:00:01.800><c> warten</c>

00:00:02.990 --> 00:00:03.000
der Kessel. wir warten\n\x20

00:00:03.000 --> 00:00:05.990
der Kessel. wir warten\nauf<00:00:03.500><c> Tee.</c><00:00:04.200><c> so</c><00:00:05.000><c> lange</c>

00:00:05.990 --> 00:00:06.000
auf Tee. so lange\n\x20
"""


@pytest.mark.parametrize(
    ("choice", "rolling", "manual"),
    [
        ("off", [(0.25, 2.99, "der Kessel. wir warten"), (3.0, 5.99, "auf Tee. so lange")], ["eins", "zwei."]),
        ("auto", [(0.25, 4.2, "der Kessel. wir warten auf Tee."), (4.2, 5.99, "so lange")], ["eins", "zwei."]),
        ("on", [(0.25, 4.2, "der Kessel. wir warten auf Tee."), (4.2, 5.99, "so lange")], ["eins zwei."]),
    ],
)
def test_captions_are_merged_as_the_config_says(tmp_path, choice, rolling, manual):
    audio = media_file(tmp_path / "a.opus", tones(7.0, 48_000, 1), 48_000, "-c:a", "libopus").read_bytes()
    manual_captions = captions("eins", "zwei.")
    videos = [
        Video(name, "de", str(tar_file(tmp_path / f"{name}.tar", {f"{name}.opus": audio, f"{name}.de.vtt": text})))
        for name, text in (("auto", ROLLING.encode()), ("manual", manual_captions))
    ]
    rows, segments, sidecars = run(tmp_path, *videos, merge_captions=choice)
    assert [row["captions"] for row in rows] == ["auto.de.vtt", "manual.de.vtt"]
    of_auto = [row for row in segments if row["video_id"] == "auto"]
    assert [(row["start_s"], row["end_s"], row["text"]) for row in of_auto] == rolling
    assert [row["text"] for row in segments if row["video_id"] == "manual"] == manual
    assert all(row["kept"] and row["duration_s"] == pytest.approx(row["end_s"] - row["start_s"]) for row in segments)
    assert "<00:00:01.200>" in sidecars["auto_00000"]["raw_text"]


def test_too_much_segment_time_is_refused_by_name(tmp_path):
    audio = media_file(tmp_path / "a.flac", tones(6.0, 16_000, 1), 16_000).read_bytes()
    spans = [{"start": 0.1 * n, "end": 5.0 + 0.1 * n, "text": "x"} for n in range(10)]
    members = {"v.flac": audio, "v.json": json.dumps({"segments": spans}).encode()}
    video = Video("v", "de", str(tar_file(tmp_path / "v.tar", members)))
    fine = Video("p", "de", str(media_file(tmp_path / "p.wav", tones(2.0, 16_000, 1), 16_000)))
    (row, _), segments, _ = run(tmp_path, video, fine)
    assert (row["status"], row["error_type"], row["retriable"]) == ("failed", "BadSegments", False)
    assert "10 segments have 50.0 s in total, and its audio 6.0 s" in row["error_message"]
    assert "max_segment_time_ratio (1.5)" in row["error_message"]
    assert {segment["video_id"] for segment in segments} == {"p"}
    (row, _), segments, _ = run(tmp_path / "more", video, fine, max_segment_time_ratio=10.0)
    assert (row["status"], row["segments"]) == ("done", 10)


@pytest.mark.parametrize(
    ("name", "ticks", "start_s"),
    [
        ("v.m4a", 900_000, 1.0),  # the usual start of a stream
        ("v.m4a", 180_000, 3.0),
        ("v.ts.mp4", 900_000, 1.0 + 10.0 - 1.4),  # FFmpeg's transport streams start at 1.4 s
    ],
)
def test_a_timestamp_map_moves_captions_to_the_file(tmp_path, name, ticks, start_s):
    options = ["-c:a", "aac", *(["-f", "mpegts"] if ".ts" in name else [])]
    audio = media_file(tmp_path / name, tones(14.0, 48_000, 1), 48_000, *options).read_bytes()
    text = f"WEBVTT\nX-TIMESTAMP-MAP=MPEGTS:{ticks},LOCAL:00:00:00.000\n\n00:01.000 --> 00:02.000\nwort\n"
    members = {"v.mp4": audio, "v.de.vtt": text.encode()}
    (row,), (segment,), _ = run(tmp_path, Video("v", "de", str(tar_file(tmp_path / "v.tar", members))))
    assert segment["start_s"] == pytest.approx(start_s, abs=0.03)
    moved = f"captions: X-TIMESTAMP-MAP moves them by {segment['start_s'] - 1.0:.3f} s"
    assert row["notes"] == (None if start_s == 1.0 else moved)


def test_half_of_a_file_in_opposite_phase_is_whole(tmp_path):
    """Compare a loud file whose second half cancels with its left channel alone."""
    x = synthetic_speech(5, 12.0)
    is_first = np.arange(x.shape[1]) < x.shape[1] // 2
    right = np.where(is_first, x, -x)
    for name, channels in (("half", [x, right]), ("mono", [x])):
        media_file(tmp_path / f"{name}.flac", np.concatenate(channels), 48_000)
    videos = [Video(name, "de", str(tmp_path / f"{name}.flac")) for name in ("half", "mono")]
    (row, _), segments, _ = run(tmp_path, *videos, segments="fixed", window_s=2.0)
    assert (row["status"], row["audio_channel"]) == ("done", "left")
    assert row["notes"].endswith("of the sound: channel 0 is used")
    levels = {name: [s["loudness_lufs"] for s in segments if s["video_id"] == name] for name in ("half", "mono")}
    assert levels["half"] == pytest.approx(levels["mono"], abs=0.01)
    assert len(levels["half"]) == 6


def test_a_dialog_on_two_channels_keeps_its_mean(tmp_path):
    """Note once that a part cancels where either channel alone would lose a speaker; there is no voice to find."""
    x = tones(12.0, 48_000, 1)[0]
    time = np.arange(len(x)) / 48_000
    start, first, second = time < 1.5, time < 6, time >= 6
    dialog = np.stack([x * (start | first), x * (second - 1.0 * start)])
    media_file(tmp_path / "v.flac", dialog, 48_000)
    (row,), _, _ = run(tmp_path, Video("v", "de", str(tmp_path / "v.flac")), segments="auto")
    assert (row["status"], row["audio_channel"], row["segments"]) == ("done", "mean", 3)
    assert row["notes"] == (
        "the mean of the 2 channels cancels in 12% of the sound: no channel has the sound of all, so the mean stays"
    )
