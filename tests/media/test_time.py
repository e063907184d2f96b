"""Find a known tone at a known time in the clips of every container and codec, with offsets, gaps and edit lists."""

import re
import struct
import subprocess

import av
import numpy as np
import pytest
from factories import config, media_file, source_of

from audiopipe.bench.corpus.media import find_ffmpeg
from audiopipe.errors import TruncatedMedia, UndecodableMedia
from audiopipe.media.decode import decode, probe
from audiopipe.media.limits import refuse_truncated
from audiopipe.segment.cut import cut
from audiopipe.types import Span

RATE, SECONDS = 48_000, 8
ONSETS = [float(second) for second in range(SECONDS)]
VIDEO = ("-f", "lavfi", "-i", "color=s=16x16:r=10:d=12")
MPEG4, X264, VP8 = ("-c:v", "mpeg4"), ("-c:v", "libx264"), ("-c:v", "libvpx")
# name of the file, ffmpeg options, delay: the encoder's delay where the format does not store it
FORMATS = [
    ("a.webm", ("-c:a", "libopus"), 0),
    ("a.webm", ("-c:a", "libvorbis"), 0),
    ("a.opus", ("-c:a", "libopus"), 0),
    ("a.ogg", ("-c:a", "libopus"), 0),
    ("a.ogg", ("-c:a", "libvorbis"), 0),
    ("a.ogg", ("-c:a", "flac"), 0),
    ("a.m4a", ("-c:a", "aac"), 0),
    ("a.m4a", ("-c:a", "alac"), 0),
    ("a.m4a", ("-c:a", "aac", "-movflags", "+frag_keyframe+empty_moov", "-frag_duration", "500000"), 1024),
    ("a.m4a", ("-c:a", "aac", "-movflags", "+frag_keyframe+delay_moov", "-frag_duration", "500000"), 0),
    ("a.m4a", ("-c:a", "aac", "-f", "adts"), 1024),
    ("a.mp4", ("-c:a", "aac", "-f", "mpegts"), 1024),
    ("a.mp3", ("-c:a", "libmp3lame"), 0),
    ("a.mp3", ("-c:a", "libmp3lame", "-write_xing", "0"), 1105),
    ("a.flac", ("-c:a", "flac"), 0),
    ("a.wav", ("-c:a", "pcm_s16le"), 0),
    ("a.wav", ("-c:a", "pcm_s24le", "-rf64", "always"), 0),
    ("a.wav", ("-c:a", "pcm_f32le", "-f", "w64"), 0),
    *(("a.mkv", ("-c:a", codec), 0) for codec in ("aac", "libopus", "flac", "pcm_s16le", "libmp3lame", "libvorbis")),
    ("a.mkv", ("-c:a", "ac3"), 0),
]
OFFSETS = [
    ("a.mkv", (*X264, "-c:a", "libopus")),
    ("a.mkv", (*X264, "-c:a", "aac")),
    ("a.mkv", (*MPEG4, "-c:a", "flac")),
    ("a.webm", (*VP8, "-c:a", "libvorbis")),
    ("a.mp4", (*X264, "-c:a", "aac")),
    ("a.mp4", (*MPEG4, "-c:a", "aac", "-use_editlist", "1")),
    ("a.mp4", (*X264, "-c:a", "aac", "-f", "mpegts")),
]


def run_ffmpeg(*arguments):
    subprocess.run([find_ffmpeg(), "-nostdin", "-v", "error", "-y", *map(str, arguments)], check=True, timeout=60)


def make_tones(seconds=SECONDS, rate=RATE):
    """Make [1, T]: a tone of 1 kHz for the first tenth of each second."""
    t = np.arange(seconds * rate) / rate
    return (0.3 * np.sin(2 * np.pi * 1000 * t) * (t % 1 < 0.1))[None]


@pytest.fixture(scope="module")
def tones_file(tmp_path_factory):
    return media_file(tmp_path_factory.mktemp("tones") / "tones.flac", make_tones(), RATE)


def read_clips(path, starts, seconds=0.75):
    """Decode a file and cut a clip that starts a quarter of a second before each time; return also the gaps."""
    settings, reports, decoded = config(min_segment_s=0.1), [], []
    source = source_of(path)
    media = probe(source, settings)

    def blocks():
        for block in decode(source, media, settings, record_report=reports.append):
            decoded.append(block.shape[1])
            yield block

    spans = [Span(max(0.0, start - 0.25), start + seconds - 0.25) for start in starts]
    clips = list(cut("v", blocks(), spans, media.sample_rate_hz, settings))
    refuse_truncated(source, media, sum(decoded) / media.sample_rate_hz, settings)
    return clips, reports[0].gap_s


def find_onset(clip):
    """Return the time of the first loud sample of a clip on the file's clock."""
    pcm = clip.pcm[0] / (32768 if clip.pcm.dtype == np.int16 else 1)
    loud = np.flatnonzero(np.abs(pcm) > 0.1)
    return clip.span.start_s + loud[0] / clip.sample_rate_hz if len(loud) else None


def assert_tones_at(path, onsets, tolerance_s=1e-3):
    """Find each tone in its clip; return the duration of the gaps."""
    clips, gap_s = read_clips(path, onsets)
    measured = [find_onset(clip) for clip in clips]
    assert measured == [pytest.approx(onset, abs=tolerance_s) for onset in onsets]
    return gap_s


@pytest.mark.parametrize(("name", "options", "delay"), FORMATS)
def test_a_tone_has_its_time_in_every_format(tones_file, tmp_path, name, options, delay):
    run_ffmpeg("-i", tones_file, *options, tmp_path / name)
    gap_s = assert_tones_at(tmp_path / name, [onset + delay / RATE for onset in ONSETS])
    assert gap_s == 0


@pytest.mark.parametrize(("name", "options"), OFFSETS)
@pytest.mark.parametrize("offset_s", [0.25, 3.5, 30])
def test_audio_that_starts_late_keeps_its_time(tones_file, tmp_path, name, options, offset_s):
    video = [*VIDEO[:-1], f"{VIDEO[-1][:-2]}{offset_s + 12}"]
    run_ffmpeg(
        *video, "-itsoffset", offset_s, "-i", tones_file, "-map", "0:v", "-map", "1:a", *options, tmp_path / name
    )
    gap_s = assert_tones_at(tmp_path / name, [onset + offset_s for onset in ONSETS])
    assert gap_s == pytest.approx(offset_s, abs=0.03)  # an edit list leaves the encoder's delay in its place


@pytest.mark.parametrize(("name", "options"), [("a.mkv", ("-c:a", "libopus")), ("a.mp4", ("-c:a", "aac"))])
def test_a_picture_that_starts_late_moves_nothing(tones_file, tmp_path, name, options):
    run_ffmpeg(
        "-itsoffset", 2, *VIDEO, "-i", tones_file, "-map", "0:v", "-map", "1:a", *MPEG4, *options, tmp_path / name
    )
    assert assert_tones_at(tmp_path / name, ONSETS) == 0


@pytest.mark.parametrize(
    ("name", "options"), [("a.mp4", (*X264, "-c:a", "aac")), ("a.webm", (*VP8, "-c:a", "libopus"))]
)
def test_a_picture_that_outlasts_the_audio_is_not_truncation(tones_file, tmp_path, name, options):
    run_ffmpeg(
        *VIDEO[:-1], "color=s=16x16:r=2:d=30", "-i", tones_file, "-map", "0:v", "-map", "1:a", *options, tmp_path / name
    )
    assert assert_tones_at(tmp_path / name, ONSETS) == 0
    assert probe(source_of(tmp_path / name, duration_s=30.0), config()).declared_s == pytest.approx(8.0, abs=0.05)


def test_a_picture_outlasts_audio_without_a_duration(tones_file, tmp_path):
    path = tmp_path / "a.webm"
    run_ffmpeg(
        *VIDEO[:-1],
        "color=s=16x16:r=2:d=30",
        "-i",
        tones_file,
        "-map",
        "0:v",
        "-map",
        "1:a",
        *VP8,
        "-c:a",
        "libopus",
        path,
    )
    whole = path.read_bytes().replace(b"DURATION", b"DURATIOX")  # other writers have no such tag
    path.write_bytes(whole)
    assert assert_tones_at(path, ONSETS) == 0
    path.write_bytes(whole[: whole.index(b"\x1f\x43\xb6\x75") + len(whole) // 3])
    with pytest.raises(TruncatedMedia, match=r"of 30\.0 s"):
        read_clips(path, [1.0])


def remux(source, target, keep, shift=lambda time_s: 0.0, **options):
    """Copy the packets of the audio for which `keep(seconds)` is true, with their timestamps shifted."""
    with av.open(source) as container, av.open(target, "w", **options) as output:
        stream = container.streams.audio[0]
        copied = output.add_stream_from_template(stream)
        packets = [packet for packet in container.demux(stream) if packet.dts is not None]
        first_s = float(packets[0].pts * stream.time_base)
        for packet in packets:
            time_s = float(packet.pts * stream.time_base) - first_s
            if keep(time_s):
                ticks = round(shift(time_s) / stream.time_base)
                packet.pts += ticks
                packet.dts += ticks
                packet.stream = copied
                output.mux(packet)
    return target


@pytest.mark.parametrize(
    ("name", "codec", "delay"),
    [
        *(("a.webm", "libopus", 0), ("a.mkv", "aac", 0), ("a.mkv", "flac", 0), ("a.mkv", "pcm_s16le", 0)),
        *(("a.m4a", "aac", 0), ("a.mp4", "aac", 1024)),
    ],
)
def test_lost_packets_become_silence_of_their_length(tones_file, tmp_path, name, codec, delay):
    options = ["-f", "mpegts"] if delay else []
    run_ffmpeg("-i", tones_file, "-c:a", codec, *options, tmp_path / f"whole_{name}")
    is_lost = lambda time_s: 2.6 < time_s < 4.3 or 7.3 < time_s < 7.6  # noqa: E731 - near the end, too
    path = remux(
        tmp_path / f"whole_{name}",
        tmp_path / name,
        lambda time_s: not is_lost(time_s),
        format="mpegts" if delay else None,
    )
    gap_s = assert_tones_at(path, [onset + delay / RATE for onset in (0, 1, 2, 5, 6, 7)])
    assert gap_s == pytest.approx(2.0, abs=0.1)
    (clip,), _ = read_clips(path, [3.5])
    assert np.abs(clip.pcm).max() == 0


def test_the_end_of_a_file_with_a_gap_is_in_its_place(tmp_path):
    whole = media_file(tmp_path / "whole.mkv", make_tones(4), RATE, "-c:a", "libopus")
    path = remux(whole, tmp_path / "a.mkv", lambda time_s: not 3.2 < time_s < 3.8, lambda time_s: 1.3 * (time_s > 3.5))
    clips, gap_s = read_clips(path, [3.0, 5.25], 0.5)
    assert gap_s == pytest.approx(1.9, abs=0.05)
    assert clips[1].span.end_s == pytest.approx(5.3, abs=0.05)


@pytest.mark.parametrize(("jitter_s", "expected_gap_s"), [(0.015, 0.0), (0.04, 0.04)])
def test_jitter_under_twenty_milliseconds_is_left_alone(tmp_path, jitter_s, expected_gap_s):
    whole = media_file(tmp_path / "whole.mkv", make_tones(4), RATE, "-c:a", "flac")
    path = remux(whole, tmp_path / "a.mkv", lambda _: True, lambda time_s: jitter_s * (time_s > 2))
    _, gap_s = read_clips(path, [1.0])
    assert gap_s == pytest.approx(expected_gap_s, abs=2e-3)


def test_repeated_audio_is_trimmed(tmp_path):
    options = ("-c:a", "pcm_s16le", "-cluster_time_limit", "1000")
    path = media_file(tmp_path / "a.mkv", make_tones(6), RATE, *options)
    data, cluster, moved = bytearray(path.read_bytes()), b"\x1f\x43\xb6\x75", []
    for at in [match.end() for match in re.finditer(re.escape(cluster), data)]:
        field = data.index(b"\xe7\x82", at, at + 40) + 2 if b"\xe7\x82" in data[at : at + 40] else None
        if field and (start_ms := int.from_bytes(data[field : field + 2])) > 2500:
            data[field : field + 2] = (start_ms - 500).to_bytes(2)
            moved.append(start_ms / 1000)
    path.write_bytes(data)
    assert 2.5 < moved[0] < 4  # half a second is trimmed there
    assert assert_tones_at(path, [0, 1, 2, *(second - 0.5 for second in (4, 5))]) == 0


def test_two_transport_streams_in_one_file_follow_each_other(tmp_path):
    parts = [media_file(tmp_path / f"{s}.ts", make_tones(s), RATE, "-c:a", "aac") for s in (3, 4)]
    path = tmp_path / "a.mp4"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    assert assert_tones_at(path, range(7), 0.07) == 0  # each part has the encoder's delay


@pytest.mark.parametrize("codec", ["libopus", "libvorbis", "flac"])
def test_the_links_of_a_chained_ogg_are_whole(tmp_path, codec):
    links = [(3, 1, 48_000), (2, 2, 48_000), (4, 1, 24_000), (2, 1, 48_000)]
    path = tmp_path / "a.ogg"
    with path.open("wb") as file:
        for seconds, channels, rate in links:
            part = media_file(tmp_path / "link.ogg", make_tones(seconds, rate).repeat(channels, 0), rate, "-c:a", codec)
            file.write(part.read_bytes())
    clips, _ = read_clips(path, range(11))
    assert [find_onset(clip) for clip in clips] == [pytest.approx(second, abs=1e-3) for second in range(11)]


def test_an_ogg_file_of_very_many_links_is_refused(tmp_path):
    link = media_file(tmp_path / "a.ogg", make_tones(1), RATE, "-c:a", "libopus", "-b:a", "16k").read_bytes()
    (tmp_path / "a.ogg").write_bytes(link * 201)
    with pytest.raises(UndecodableMedia, match="a chain of 201 Ogg files"):
        probe(source_of(tmp_path / "a.ogg"), config())


@pytest.mark.parametrize("size", [0, 2 * RATE * 2, 0x7FFFF000, 0xFFFFFFFF])
def test_a_wav_with_a_wrong_size_is_read_to_its_end(tmp_path, size):
    path = media_file(tmp_path / "a.wav", make_tones(), RATE)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"data") + 4, size)
    path.write_bytes(data)
    assert assert_tones_at(path, ONSETS) == 0
    assert read_clips(path, [0.0], 20)[0][0].span.end_s == SECONDS


def test_a_wav_that_is_cut_short_is_truncated(tmp_path):
    path = media_file(tmp_path / "a.wav", make_tones(), RATE)
    path.write_bytes(path.read_bytes()[:400_000])
    with pytest.raises(TruncatedMedia, match=r"after 4\.2 of 8\.0 s"):
        read_clips(path, [0.0])


def test_chunks_after_the_samples_of_a_wav_are_not_samples(tmp_path):
    path = media_file(tmp_path / "a.wav", make_tones(), RATE)
    data = path.read_bytes()
    path.write_bytes(data + b"LIST" + struct.pack("<I", 8000) + b"\x7f" * 8000)
    assert read_clips(path, [0.0], 20)[0][0].span.end_s == SECONDS


@pytest.mark.parametrize(
    ("options", "message"),
    [(("-f", "aiff"), "AIFF"), (("-f", "caf"), "Core Audio"), (("-c:a", "aac", "-f", "flv"), "Flash Video"),
     (("-f", "avi"), "AVI")],
)  # fmt: skip
def test_a_format_that_is_not_read_is_named(tones_file, tmp_path, options, message):
    run_ffmpeg("-i", tones_file, *options, tmp_path / "a.mp4")
    with pytest.raises(UndecodableMedia, match=f"its content is {message}"):
        probe(source_of(tmp_path / "a.mp4"), config())


@pytest.mark.parametrize(("name", "options"), [("a.webm", ("-c:a", "libopus")), ("a.m4a", ("-c:a", "aac"))])
@pytest.mark.parametrize("seconds", [60, pytest.param(3600, marks=pytest.mark.slow)])
def test_the_last_clip_of_a_long_file_has_no_drift(tmp_path, name, options, seconds):
    path = media_file(tmp_path / name, make_tones(seconds, 16_000), 16_000, "-ar", "48000", *options)
    lost = seconds / 2
    path = remux(path, tmp_path / f"cut_{name}", lambda time_s: not lost + 0.5 < time_s < lost + 1.5)
    assert_tones_at(path, [1, lost, lost + 2, seconds - 1])
