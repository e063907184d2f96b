"""Check the export of a saved notebook as one page that needs no network."""

from html import escape as html_of

import nbformat
import pytest
from nbformat import v4

from audiopipe.errors import LedgerError
from audiopipe.report import page
from audiopipe.report.export import export_notebook, read_cell_text


@pytest.fixture
def saved(tmp_path):
    """Return a function that writes a notebook with one cell that has these outputs."""

    def write(*outputs, tags=()):
        cell = v4.new_code_cell("secret_code()", outputs=list(outputs), metadata={"tags": list(tags)})
        hidden = v4.new_markdown_cell("only in the Lab", metadata={"tags": ["lab-only"]})
        nb = v4.new_notebook(
            cells=[v4.new_markdown_cell("# A <title>"), hidden, cell, v4.new_markdown_cell("## After")]
        )
        path = tmp_path / "saved.ipynb"
        nbformat.write(nb, path)
        return path

    return write


def export_html(notebook):
    return export_notebook(notebook, notebook.parent / "deep" / "report.html").read_text(encoding="utf-8")


def test_a_page_has_text_and_pictures_and_no_code(saved):
    html = export_html(saved(v4.new_output("display_data", {"text/html": page.note("a figure")._repr_html_()})))
    assert "a figure" in html
    assert "## After" not in html
    assert "After" in html
    assert "secret_code" not in html
    assert "only in the Lab" not in html


def test_the_title_is_the_notebooks_first_heading_as_text(saved):
    assert "<title>A &lt;title&gt; · audiopipe</title>" in export_html(saved())


def test_the_page_has_the_style_sheet_once(saved):
    piece = page.with_styles(page.note("x"))._repr_html_()
    html = export_html(saved(*[v4.new_output("display_data", {"text/html": piece})] * 3))
    assert html.count("<style>") == 1


def test_terminal_output_and_plain_results_stay_text(saved):
    stream = v4.new_output("stream", name="stdout", text="\x1b[31mred\x1b[0m <b>\n")
    html = export_html(saved(stream, v4.new_output("execute_result", {"text/plain": "<Client>"}, execution_count=1)))
    assert "&lt;b&gt;" in html
    assert "&lt;Client&gt;" in html
    assert "\x1b" not in html


def test_a_page_ends_with_the_error_in_words(saved):
    error = v4.new_output("error", ename="LedgerError", evalue="no <run>", traceback=["\x1b[31mTrace\x1b[0m"])
    html = export_html(saved(error))
    assert "LedgerError" in html
    assert "no &lt;run&gt;" in html
    assert f"What to do: {html_of(LedgerError.remedy)}" in html
    assert "Trace" not in html, "the message is enough"
    assert "After" not in html


def test_an_unexpected_error_shows_where_it_was_raised(saved):
    html = export_html(saved(v4.new_output("error", ename="KeyError", evalue="x", traceback=["\x1b[31mTrace\x1b[0m"])))
    assert "KeyError" in html
    assert "Trace" in html


def test_the_text_of_a_tagged_cell_is_what_it_printed(saved):
    printed = v4.new_output("stream", name="stdout", text="videos  3\nsegments 4\n")
    noise = v4.new_output("stream", name="stderr", text="warning")
    notebook = saved(printed, noise, tags=["summary"])
    assert read_cell_text(notebook, "summary") == "videos  3\nsegments 4"
    assert read_cell_text(notebook, "other") == ""
