"""Check the format of numbers, durations and sizes."""

import math

import pytest

from audiopipe.report.text import format_bytes, format_duration, format_number, format_percent, pluralize


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (12345, 0, "12,345"),
        (-0.0004, 3, "0.000"),
        (-2.5, 1, "−2.5"),
        (math.nan, 0, "–"),
        (-math.inf, 1, "−∞"),
        (None, 0, "–"),
    ],
)
def test_numbers(value, digits, text):
    assert format_number(value, digits) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 9, "0 %"),
        (9, 9, "100 %"),
        (1, 100_000, "< 0.1 %"),
        (99_999, 100_000, "> 99.9 %"),
        (1, 4, "25 %"),
        (1, 0, "–"),
    ],
)
def test_a_share_is_never_rounded_to_nothing_or_all(part, whole, text):
    assert format_percent(part, whole) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (59.6, "1 min"), (42, "42 s"), (185, "3 min 5 s"), (7800, "2 h 10 min"), (97_200, "1 d 3 h")],
)
def test_durations_have_two_units_at_most(seconds, text):
    assert format_duration(seconds) == text


def test_sizes_and_plurals():
    assert [format_bytes(0), format_bytes(999), format_bytes(1_500), format_bytes(71_200_000), format_bytes(10e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "71.2 MB",
        "10.0 TB",
    ]
    assert [pluralize(1, "video"), pluralize(2, "video")] == ["1 video", "2 videos"]
