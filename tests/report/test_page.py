"""Check the pieces of pages: foreign text is escaped, and figures take the color of the page."""

import re

from audiopipe.report import page
from audiopipe.report.figure import INK, draw, series_colors


def test_foreign_text_is_escaped():
    table = page.table(["<i>"], [["<script>alert(1)</script>"]])
    assert "<script>" not in table.markup
    assert "&lt;script&gt;" in table.markup


def test_a_piece_is_html_in_a_notebook_and_short_elsewhere():
    piece = page.cards([("42", "videos")])
    assert piece._repr_html_().startswith('<div class="ap">')
    assert len(repr(piece)) < 60


def test_a_figure_uses_the_pages_colors_and_has_no_external_links():
    svg = draw(lambda axes: axes.plot([0, 1, 2], [0.0051, 0.0062, 0.0049]), 300, 150)
    assert svg.startswith("<svg ")
    assert "currentColor" in svg
    assert INK not in svg
    assert "#ffffff" not in svg
    assert "<style" not in svg
    assert not re.search(r'(?:href|src)="(?!#)', svg)


def test_a_figures_numbers_are_not_cut():
    svg = draw(lambda axes: axes.set(xlim=(0, 0.004), xticks=[0.0025], xticklabels=["0.0025"]), 300, 150)
    assert "0.0025" in svg


def test_the_same_figure_has_the_same_bytes():
    figures = [draw(lambda axes: axes.bar([1, 2], [3, 4])) for _ in range(2)]
    assert figures[0] == figures[1]


def test_a_language_keeps_its_color():
    assert series_colors(["it", "en"]) == series_colors(["en", "it"])
