"""The audio stream of the right language is decoded: each track of a test file is a tone of another frequency."""

import subprocess

import numpy as np
import pytest
from factories import config, media_file

from audiopipe.bench.corpus.media import find_ffmpeg
from audiopipe.media.decode import decode, probe
from audiopipe.media.fetch import Source
from audiopipe.types import Video

RATE = 16_000
HERTZ = (400, 900, 1700)
CODECS = {"mkv": "libopus", "mp4": "aac", "webm": "libopus", "m4a": "aac"}


def make_tracks(folder, suffix, *tracks):
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
    command = [find_ffmpeg(), "-v", "error", "-y", *inputs, *options, "-c:a", CODECS[suffix], str(path)]
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
