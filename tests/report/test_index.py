"""Check that the index of a folder of reports lists every run once, and that its links lead to the pages."""

import re
from urllib.parse import unquote

import nbformat
import pytest
from nbformat import v4

from audiopipe.report import page
from audiopipe.report.export import export_notebook


@pytest.fixture
def reports(tmp_path):
    """Return a function that exports a page with metadata to `reports/` and returns the index."""

    def write(name, heading, **metadata):
        output = v4.new_output("display_data", {"text/html": page.embed_metadata(metadata)._repr_html_()})
        cells = [v4.new_markdown_cell(f"# {heading}"), v4.new_code_cell("x", outputs=[output])]
        nbformat.write(v4.new_notebook(cells=cells), tmp_path / "saved.ipynb")
        export_notebook(tmp_path / "saved.ipynb", tmp_path / "reports" / name)
        return (tmp_path / "reports" / "index.html").read_text(encoding="utf-8")

    return write


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL))


def test_reports_of_a_run_share_its_row_with_the_last_state(reports):
    reports("progress.html", "Progress report", run_id="r1", state="running", started="2026-01-02T03:04:05", at="2")
    reports("run.html", "Run", run_id="r1", state="done", ended="2026-01-02T05:00:00", at="3", videos=1200, failed=7)
    html = reports("quality.html", "Quality report", run_id="r1", segments=200, kept=150, hours_kept=1.5, at="1")
    assert "3 reports of 1 run" in text_of(html)
    row = "r1 ✓ done 2026-01-02 03:04 2026-01-02 05:00 1,200 7 150 / 200 (75 %) 1.50"
    assert f"{row} Progress report · Quality report · Run" in text_of(html)


def test_the_newest_run_comes_first_reports_without_a_run_last(reports):
    reports("old.html", "Run", run_id="old", started="2025-01-01T00:00:00")
    reports("bench.html", "Benchmarks")
    text = text_of(reports("new.html", "Run", run_id="new", started="2026-01-01T00:00:00"))
    assert text.index("new –") < text.index("old –") < text.index("Benchmarks")


def test_relative_links_lead_to_pages_of_any_name(reports, tmp_path):
    html = reports("a b#1?.html", "Run <1>", run_id="<i>")
    links = re.findall(r'<a href="([^"]*)"', html)
    assert [(tmp_path / "reports" / unquote(link)).is_file() for link in links] == [True]
    assert "<i>" not in html
    assert "Run &lt;1&gt;" in html


def test_the_index_omits_itself_and_pages_of_other_programs(reports, tmp_path):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "other.html").write_text("<h1>another program</h1>")
    html = reports("run.html", "Run", run_id="r")
    assert reports("run.html", "Run", run_id="r") == html
    assert "other.html" not in html
    assert "1 report of 1 run" in text_of(html)


def test_a_page_elsewhere_makes_no_index(tmp_path):
    nbformat.write(v4.new_notebook(), tmp_path / "saved.ipynb")
    export_notebook(tmp_path / "saved.ipynb", tmp_path / "page.html")
    assert not (tmp_path / "index.html").exists()
