"""Reports printed to PDF: nothing is wider than the paper, and no figure is cut at the end of a page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from audiopipe.report import distributions, page, quality, run_tables, timeline
from audiopipe.report import progress as progress_report
from audiopipe.report.export import export_notebook
from audiopipe.report.segment_table import segment_table

CHROMIUM = shutil.which("chromium")
PAPER = {"width": 688, "height": 1017}  # CSS pixels of A4 within its margins of 14 mm
UNBREAKABLE = "figure, .sample, .cards, .verdict"
# Each edge of a piece gets a word that can be found in the PDF's text.
MARK = """
selector => [...document.querySelectorAll(selector)].map((piece, number) => {
  piece.style.position = "relative";
  for (const [edge, letter] of [["top", "a"], ["bottom", "b"]]) {
    const mark = document.createElement("span");
    mark.textContent = `Q${number}${letter}.`;
    mark.style.cssText = `position: absolute; font: 4px monospace; left: 0; ${edge}: 0`;
    piece.append(mark);
  }
}).length
"""
TOO_WIDE = """
width => [...document.querySelectorAll("main *")].filter(piece => !piece.closest("svg") && piece.checkVisibility())
  .filter(piece => piece.getBoundingClientRect().right > width + 2).map(piece => piece.outerHTML.slice(0, 90))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
]


def export_pieces(folder: Path, *pieces: page.Html) -> Path:
    """Export a notebook that has these pieces as its outputs, each below a heading."""
    cells = []
    for number, piece in enumerate(pieces):
        output = v4.new_output("display_data", {"text/html": piece._repr_html_()})
        cells += [v4.new_markdown_cell(f"## Part {number}"), v4.new_code_cell("show()", outputs=[output])]
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# Printed"), *cells]), folder / "saved.ipynb")
    return export_notebook(folder / "saved.ipynb", folder / "report.html")


def print_to_pdf(report: Path) -> tuple[list[str], int, dict[int, list[tuple[str, int]]]]:
    """Return the elements wider than the paper, the number of pieces, and for each the pages of its edges."""
    import pypdfium2
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport=PAPER)
        tab.emulate_media(media="print")
        tab.goto(report.as_uri())
        wide, count = tab.evaluate(TOO_WIDE, PAPER["width"]), tab.evaluate(MARK, UNBREAKABLE)
        data = tab.pdf(prefer_css_page_size=True, format="A4", print_background=True)
        browser.close()
    edges: dict[int, list[tuple[str, int]]] = {}
    with pypdfium2.PdfDocument(data) as pdf:
        for number in range(len(pdf)):
            text = pdf[number].get_textpage().get_text_range()
            for piece, edge in re.findall(r"Q(\d+)([ab])\.", text):
                edges.setdefault(int(piece), []).append((edge, number))
    return wide, count, edges


def test_no_plot_of_the_quality_report_is_cut(dataset: str, tmp_path: Path) -> None:
    tables = quality.read_tables(output=dataset, language="all", examples_per_kind=1, max_segments=1000, seed=0)
    numbers = (quality.headline(tables), quality.languages(tables), quality.drops(tables), quality.failures(tables))
    pieces = (*numbers, distributions.metrics(tables), segment_table(tables).page())
    assert_not_cut(export_pieces(tmp_path, *pieces), at_least=18)


def test_no_plot_of_the_progress_report_is_cut(ledger: str, tmp_path: Path) -> None:
    run_report = progress_report.read_run_report(output=ledger, ledger=None, run_id=None, usd_per_hour=None)
    pieces = (progress_report.headline(run_report), run_tables.languages(run_report), run_tables.errors(run_report))
    charts = (
        timeline.stages(run_report),
        timeline.throughput(run_report),
        timeline.lanes(run_report),
        run_tables.workers(run_report),
    )
    assert_not_cut(export_pieces(tmp_path, *pieces, *charts, run_tables.workers(run_report)), at_least=4)


def assert_not_cut(report: Path, at_least: int) -> None:
    wide, count, edges = print_to_pdf(report)
    assert wide == []
    assert count == len(edges) >= at_least
    for piece, pages in edges.items():
        assert sorted(edge for edge, _ in pages) == ["a", "b"], f"piece {piece}: {pages}"
        assert len({number for _, number in pages}) == 1, f"piece {piece} is cut: {pages}"
