"""Markup: what others wrote stays text, and pictures take the page's ink."""

import re

from audiopipe.report import page
from audiopipe.report.figure import INK, draw, series_colors


def test_what_others_wrote_stays_text():
    made = page.table(["<i>"], [["<script>alert(1)</script>"]])
    assert "<script>" not in made.markup
    assert "&lt;script&gt;" in made.markup


def test_a_piece_shows_as_html_in_a_notebook_and_shortly_elsewhere():
    piece = page.cards([("42", "videos")])
    assert piece._repr_html_().startswith('<div class="ap">')
    assert len(repr(piece)) < 60


def test_a_figure_uses_the_pages_colors_and_has_no_external_links():
    picture = draw(lambda axes: axes.plot([0, 1, 2], [0.0051, 0.0062, 0.0049]), 300, 150)
    assert picture.startswith("<svg ")
    assert "currentColor" in picture
    assert INK not in picture
    assert "#ffffff" not in picture
    assert "<style" not in picture
    assert not re.search(r'(?:href|src)="(?!#)', picture)


def test_a_figures_numbers_are_not_cut():
    picture = draw(lambda axes: axes.set(xlim=(0, 0.004), xticks=[0.0025], xticklabels=["0.0025"]), 300, 150)
    assert "0.0025" in picture


def test_the_same_figure_has_the_same_bytes():
    pictures = [draw(lambda axes: axes.bar([1, 2], [3, 4])) for _ in range(2)]
    assert pictures[0] == pictures[1]


def test_a_language_keeps_its_colour():
    assert series_colors(["it", "en"]) == series_colors(["en", "it"])
