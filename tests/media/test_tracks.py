"""The audio stream of the right language is decoded: each track of a test file is a tone of another frequency."""

import subprocess

import av
import numpy as np
import pytest
from factories import config, media_file

from audiopipe.bench.corpus.media import find_ffmpeg
from audiopipe.errors import UndecodableMedia
from audiopipe.media.decode import decode, probe
from audiopipe.media.fetch import Source
from audiopipe.types import Video

RATE = 16_000
HERTZ = (400, 900, 1700)
CODECS = {"mkv": "libopus", "mp4": "aac", "webm": "libopus", "m4a": "aac"}


def make_tracks(folder, suffix, *tracks, codec=None):
    """Make a file with a track for each (language, disposition, title), which has the tone of its position."""
    inputs, options = [], []
    time = np.arange(RATE) / RATE
    for number, (language, disposition, title) in enumerate(tracks):
        path = media_file(folder / f"{number}.wav", 0.3 * np.sin(2 * np.pi * HERTZ[number] * time)[None], RATE)
        inputs += ["-i", str(path)]
        options += ["-map", f"{number}:a", f"-disposition:a:{number}", disposition]
        options += [f"-metadata:s:a:{number}", f"language={language}"] if language else []
        options += [f"-metadata:s:a:{number}", f"title={title}", f"-metadata:s:a:{number}", f"handler_name={title}"]
    path = folder / f"tracks.{suffix}"
    command = [find_ffmpeg(), "-v", "error", "-y", *inputs, *options, "-c:a", codec or CODECS[suffix], str(path)]
    subprocess.run(command, check=True, timeout=60)
    return path


def decoded_track(path, language="en"):
    """Decode; return the number of the track whose tone it is, and the header."""
    size = path.stat().st_size
    source = Source(Video("v", language, str(path), size), path, 0, size, size, "etag")
    media = probe(source, config())
    samples = np.concatenate(list(decode(source, media, config())), axis=-1)[0].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    hertz = np.argmax(spectrum) * media.sample_rate_hz / len(samples)
    return int(np.argmin(np.abs(np.array(HERTZ) - hertz))), media


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize(("tag", "language"), [("eng", "en"), ("deu", "de"), ("ger", "de-AT"), ("zho", "zh-Hans")])
def test_the_track_of_the_language_is_decoded(tmp_path, suffix, tag, language):
    path = make_tracks(tmp_path, suffix, ("fra", "default", "x"), (tag, "0", "x"))
    number, media = decoded_track(path, language)
    assert number == 1
    assert media.track_label.startswith("2 of 2 (")
    assert media.track_note is None


CHOICES = {
    "default_of_no_language": ("en", [("", "0", "x"), ("", "default", "x")], 1),
    "default_of_unknown_language": ("und", [("fra", "0", "x"), ("eng", "default", "x")], 1),
    "first_without_a_default": ("und", [("fra", "0", "x"), ("eng", "0", "x")], 0),
    "default_among_two_of_the_language": ("en", [("eng", "0", "x"), ("eng", "default", "x")], 1),
    "no_commentary_by_flag": ("en", [("eng", "default+comment", "x"), ("eng", "0", "x")], 1),
    "no_commentary_by_title": ("en", [("eng", "default", "Director's commentary"), ("eng", "0", "Main")], 1),
    "no_described_video": ("en", [("eng", "default+visual_impaired", "x"), ("fra", "0", "x"), ("eng", "0", "x")], 2),
    "commentary_if_it_is_all": ("en", [("fra", "comment", "x"), ("eng", "comment", "x")], 1),
    "no_croatian_for_serbian": ("sr", [("hrv", "0", "x"), ("eng", "default", "x")], 1),
}


@pytest.mark.parametrize("name", CHOICES)
def test_flags_and_titles_decide_next(tmp_path, name):
    language, tracks, expected = CHOICES[name]
    assert decoded_track(make_tracks(tmp_path, "mkv", *tracks), language)[0] == expected


def test_a_note_says_that_no_track_has_the_language(tmp_path):
    path = make_tracks(tmp_path, "mkv", ("fra", "0", "x"), ("eng", "default", "x"))
    number, media = decoded_track(path, "de")
    assert number == 1
    assert media.track_note == "audio: no track in 'de' among fra, eng; track 2 of 2 (eng) is used"


def damage_tracks(path, *damaged):
    """Replace the packets of audio tracks by bytes that are not audio; their headers stay."""
    target = path.with_stem("damaged")
    with av.open(path) as source, av.open(target, "w") as output:
        copies = {stream.index: output.add_stream_from_template(stream) for stream in source.streams.audio}
        for number, copy in enumerate(copies.values()):
            copy.metadata.update(source.streams.audio[number].metadata)
            copy.disposition = source.streams.audio[number].disposition
        for packet in source.demux():
            if packet.dts is None:
                continue
            copied = av.Packet(bytes(packet.size)) if packet.stream.index in damaged else packet
            if copied is not packet:
                copied.pts, copied.dts, copied.time_base = packet.pts, packet.dts, packet.time_base
                copied.duration, copied.is_keyframe = packet.duration, True
            copied.stream = copies[packet.stream.index]
            output.mux(copied)
    return target


REPLACEMENTS = {
    "next_of_the_language": ("en", [("eng", "default"), ("fra", "0"), ("eng", "0")], (0,), 2),
    "next_without_a_language": ("und", [("", "default"), ("", "0")], (0,), 1),
    "next_where_none_has_the_language": ("de", [("fra", "default"), ("eng", "0")], (0,), 1),
    "the_first_is_sound": ("en", [("eng", "default"), ("eng", "0")], (1,), 0),
}


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_a_track_that_does_not_decode_is_replaced(tmp_path, name):
    language, tracks, damaged, expected = REPLACEMENTS[name]
    path = make_tracks(tmp_path, "mkv", *((tag, flag, "x") for tag, flag in tracks), codec="flac")
    number, media = decoded_track(damage_tracks(path, *damaged), language)
    assert number == expected
    if expected:
        assert "audio: track 1 of" in media.track_note
        assert f"does not decode; track {expected + 1} of {len(tracks)}" in media.track_note


def test_a_track_of_another_language_replaces_none(tmp_path):
    tracks = [("eng", "default", "x"), ("fra", "0", "x"), ("eng", "comment", "x")]
    path = damage_tracks(make_tracks(tmp_path, "mkv", *tracks, codec="flac"), 0)
    with pytest.raises(
        UndecodableMedia, match=r"track 1 of 3 \(eng\) does not decode; .*2 of 3 \(fra\), 3 of 3 \(eng\)"
    ):
        decoded_track(path, "en")
