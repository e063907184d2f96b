import itertools
import re

import pytest

from audiopipe.segment.captions import read_captions
from audiopipe.types import CaptionFile, SegmentSource

KETTLE = "the<00:00:00.600><c> kettle</c><00:00:01.200><c> is</c><00:00:01.800><c> on</c>"
TEA = (
    "<00:00:03.200><c>we</c><00:00:03.500><c> wait</c><00:00:04.200><c> for</c><00:00:05.000><c> tea</c><00:00:05.400>"
)
MILK = "people<00:00:06.500><c> have</c><00:00:07.200><c> any</c><00:00:08.000><c> milk</c>"
LINES = ["the kettle is on", "we wait for tea", "people have any milk"]
# As YouTube writes them: two rows, then a flash of 10 ms with the upper row alone.
ROLL = [
    (0.25, 2.99, [" ", KETTLE]),
    (2.99, 3.0, [LINES[0], " "]),
    (3.0, 5.99, [LINES[0], TEA]),
    (5.99, 6.0, [LINES[1], " "]),
    (6.0, 8.99, [LINES[1], MILK]),
    (8.99, 9.0, [LINES[2], " "]),
]


def format_cues(cues, mark):
    return "".join(
        f"0:00:{s:06.3f} --> 0:00:{e:06.3f}\n".replace(".", mark) + "\n".join(x) + "\n\n" for s, e, x in cues
    )


def read_vtt(cues):
    return read_captions(CaptionFile(SegmentSource.VTT, ("WEBVTT\n\n" + format_cues(cues, ".")).encode()))


def read_srt(cues):
    return read_captions(CaptionFile(SegmentSource.SRT, format_cues(cues, ",").encode()))


def rows_of(spans):
    return [(round(span.start_s, 3), round(span.end_s, 3), span.text) for span in spans]


def texts_of(spans):
    return [span.text for span in spans]


def without_word_times(lines):
    return [re.sub("<[^>]*>", "", line) for line in lines]


def without_blanks(lines):
    return [line for line in without_word_times(lines) if line.strip()]


def in_one_line(lines):
    return [" ".join(without_blanks(lines))]


def test_rolling_captions_have_each_word_once_at_its_time():
    spans = read_vtt(ROLL)
    assert rows_of(spans) == [(0.25, 2.99, LINES[0]), (3.2, 5.4, LINES[1]), (6.0, 8.99, LINES[2])]
    assert spans.automatic


@pytest.mark.parametrize("convert", [without_word_times, without_blanks, in_one_line, lambda lines: lines])
@pytest.mark.parametrize("flashes", [True, False])
@pytest.mark.parametrize("read", [read_vtt, read_srt])
def test_converted_rolling_captions_have_each_word_once(read, flashes, convert):
    cues = [(start, end, convert(lines)) for start, end, lines in ROLL if flashes or end - start > 0.1]
    spans = read(cues)
    assert texts_of(spans) == LINES
    assert spans.automatic
    assert all(a.end_s <= b.start_s for a, b in itertools.pairwise(spans))


def test_a_first_line_whose_blank_was_removed_is_read():
    cues = [(start, end, [line.strip() for line in lines]) for start, end, lines in ROLL]
    assert texts_of(read_vtt(cues)) == LINES


def test_rows_that_stay_on_the_screen_end_at_the_next_start():
    spans = read_srt([(1.0, 3.0, ["a b"]), (2.0, 4.5, ["c d"]), (3.5, 6.0, ["e f"])])
    assert rows_of(spans) == [(1.0, 2.0, "a b"), (2.0, 3.5, "c d"), (3.5, 6.0, "e f")]


def test_a_row_that_grows_by_words_is_one_segment():
    cues = [(n / 2, n / 2 + 0.5, [" ".join(LINES[0].split()[: n + 1])]) for n in range(4)]
    assert rows_of(read_srt(cues)) == [(0.0, 2.0, LINES[0])]


def test_a_line_that_is_said_again_is_kept_in_ordinary_captions():
    texts = ["No.", "No.", "No, no.", "la la la", "la la la", "la la la", "Yes.", "No."]
    spans = read_srt([(n, n + 1, [text]) for n, text in enumerate(texts)])
    assert texts_of(spans) == texts
    assert not spans.automatic


def test_two_lines_of_a_chorus_are_kept():
    chorus = ["Row, row, row your boat", "gently down the stream"]
    verse = ["Merrily, merrily", "life is but a dream"]
    lines = [chorus, chorus, verse, verse, chorus]
    spans = read_srt([(2 * n, 2 * n + 2, list(pair)) for n, pair in enumerate(lines)])
    assert texts_of(spans) == [" ".join(pair) for pair in lines]


@pytest.mark.parametrize("flashes", [True, False])
def test_a_word_that_is_said_again_is_kept_in_rolling_captions(flashes):
    cues = [(0, 1, ["oh no"]), (1, 1.01, ["oh no"]), (1.01, 2, ["oh no", "no"]), (2, 2.01, ["no"])]
    cues += [(2.01, 3, ["no", "no"]), (3, 3.01, ["no"]), (3.01, 4, ["no", "stop it"])]
    spans = read_srt([cue for cue in cues if flashes or cue[1] - cue[0] > 0.1])
    assert texts_of(spans) == ["oh no", "no", "no", "stop it"]


def test_a_line_that_returns_after_a_pause_is_kept():
    repeated = [(start + 20, end + 20, without_word_times(lines)) for start, end, lines in ROLL]
    cues = [(start, end, without_word_times(lines)) for start, end, lines in ROLL] + repeated
    assert texts_of(read_srt(cues)) == LINES + LINES


def test_three_rows_roll():
    rows = ["first words here", "second words here", "third words here", "fourth words here", "fifth words here"]
    cues = [(n, n + 1, rows[max(0, n - 2) : n + 1]) for n in range(5)]
    assert texts_of(read_srt(cues)) == rows


def test_a_mark_of_music_rolls_without_words():
    cues = [
        (0, 1.99, [" ", "[Music]"]),
        (1.99, 2, ["[Music]", " "]),
        (2, 4, ["[Music]", KETTLE.replace("00:00:0", "00:00:2")]),
    ]
    spans = read_vtt(cues)
    assert [(span.text, span.sound_event) for span in spans] == [(None, True), (LINES[0], False)]
