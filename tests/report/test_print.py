"""Reports printed to PDF: nothing runs over the edge of the paper, and no figure is cut by the end of a page."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from audiopipe.report import distributions, page, quality, run_tables, timeline
from audiopipe.report import progress as progress_report
from audiopipe.report.export import export

CHROMIUM = shutil.which("chromium")
PAPER = {"width": 688, "height": 1017}  # CSS pixels of A4 within its margins of 14 mm
WHOLE = "figure, .sample, .cards, .verdict"
# An edge of each piece gets a word that a PDF's text can be searched for.
MARK = """
whole => [...document.querySelectorAll(whole)].map((piece, number) => {
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
width => [...document.querySelectorAll("main *")].filter(piece => !piece.closest("svg"))
  .filter(piece => piece.getBoundingClientRect().right > width + 2).map(piece => piece.outerHTML.slice(0, 90))
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
]


def saved(folder: Path, *pieces: page.Html) -> Path:
    """A notebook with these pieces as its outputs, each below a heading."""
    cells = []
    for number, piece in enumerate(pieces):
        shown = v4.new_output("display_data", {"text/html": piece._repr_html_()})
        cells += [v4.new_markdown_cell(f"## Part {number}"), v4.new_code_cell("show()", outputs=[shown])]
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# Printed"), *cells]), folder / "saved.ipynb")
    return export(folder / "saved.ipynb", folder / "report.html")


def printed(report: Path) -> tuple[list[str], int, dict[int, list[tuple[str, int]]]]:
    """What is wider than the paper; how many pieces there are; for each, its edges and the pages that they are on."""
    import pypdfium2
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport=PAPER)
        tab.emulate_media(media="print")
        tab.goto(report.as_uri())
        wide, count = tab.evaluate(TOO_WIDE, PAPER["width"]), tab.evaluate(MARK, WHOLE)
        data = tab.pdf(prefer_css_page_size=True, format="A4", print_background=True)
        browser.close()
    found: dict[int, list[tuple[str, int]]] = {}
    with pypdfium2.PdfDocument(data) as pdf:
        for number in range(len(pdf)):
            text = pdf[number].get_textpage().get_text_range()
            for piece, edge in re.findall(r"Q(\d+)([ab])\.", text):
                found.setdefault(int(piece), []).append((edge, number))
    return wide, count, found


def test_no_plot_of_the_quality_report_is_cut(dataset: str, tmp_path: Path) -> None:
    data = quality.read_dataset(output=dataset, language="all", examples_per_kind=1, max_segments=1000, seed=0)
    pieces = (quality.headline(data), quality.languages(data), quality.drops(data), distributions.metrics(data))
    assert_whole(saved(tmp_path, *pieces, quality.failures(data)), at_least=18)


def test_no_plot_of_the_progress_report_is_cut(ledger: str, tmp_path: Path) -> None:
    seen = progress_report.read_run_report(output=ledger, ledger=None, run_id=None, usd_per_hour=None)
    pieces = (progress_report.headline(seen), run_tables.languages(seen), run_tables.troubles(seen))
    drawn = (timeline.stages(seen), timeline.throughput(seen), timeline.lanes(seen), run_tables.workers(seen))
    assert_whole(saved(tmp_path, *pieces, *drawn), at_least=4)


def assert_whole(report: Path, at_least: int) -> None:
    wide, count, found = printed(report)
    assert wide == []
    assert count == len(found) >= at_least
    for piece, edges in found.items():
        assert sorted(edge for edge, _ in edges) == ["a", "b"], f"piece {piece}: {edges}"
        assert len({number for _, number in edges}) == 1, f"piece {piece} is cut: {edges}"
