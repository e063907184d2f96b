"""Check the page around a report: verdict, contents and provenance, and tables that sort and filter in a browser."""

from __future__ import annotations

import re
import shutil

import nbformat
import pytest
from nbformat import v4

from audiopipe.config import RunConfig
from audiopipe.report import frame, page
from audiopipe.report.export import export_notebook
from audiopipe.report.settings import settings

CHROMIUM = shutil.which("chromium")


def render(*pieces: str) -> str:
    """Render a page with each piece below a heading, and return its body."""
    body = "<h1>Title</h1>" + "".join(f"<h2>Part {number}</h2>{piece}" for number, piece in enumerate(pieces))
    return frame.render_page("Title", body, frame.provenance()).partition("<main>")[2]


def test_the_contents_lead_to_every_heading() -> None:
    html = render("a", "b", "c <i>d</i>")
    links = re.findall(r'<a href="#([^"]+)">(.+?)</a>', html)
    assert [text for _, text in links] == ["Part 0", "Part 1", "Part 2"]
    assert [name for name, _ in links] == re.findall(r'<h2 id="([^"]+)">', html)
    assert "<nav" not in render("a", "b"), "two headings need no contents"


def test_the_last_verdict_on_a_page_is_repeated_at_its_top() -> None:
    first, last = page.verdict("good", ["So far."]).markup, page.verdict("bad", ["Not finished.", "Do this."]).markup
    html = render(first, last)
    assert html.index("Do this.") < html.index("Part 0") < html.index("So far.")
    assert html.count("Not finished.") == 2


def test_a_verdict_at_the_top_is_shown_once() -> None:
    html = frame.render_page("T", f"<h1>T</h1>{page.verdict('good', ['Done.']).markup}<h2>More</h2>", "")
    assert html.count("Done.") == 1


def test_a_page_states_its_source_date_duration_and_versions(tmp_path) -> None:
    metadata = {"start_time": "2026-01-02T03:04:05.6+00:00", "duration": 75.2, "parameters": {"output": "<out>"}}
    notebook = v4.new_notebook(cells=[v4.new_markdown_cell("# T")], metadata={"papermill": metadata})
    nbformat.write(notebook, tmp_path / "quality.ipynb")
    html = export_notebook(tmp_path / "quality.ipynb", tmp_path / "q.html").read_text(encoding="utf-8")
    footer = (
        "quality.ipynb · executed 2026-01-02 03:04 UTC in 1 min 15 s · with <code>output=&lt;out&gt;</code></footer>"
    )
    assert footer in html


def test_changed_parameters_come_first_and_are_named() -> None:
    config = RunConfig.of(catalog="c", output="o", min_snr_db=12.5)
    markup = settings(config.output_fields(), config.digest).markup
    assert "1 parameter not at the default: <code>min_snr_db=12.5</code>" in markup
    assert markup.index(">12.5<") < markup.index(">shard_videos<")
    assert config.digest in markup
    assert "all at their defaults" in settings(RunConfig.of(catalog="c", output="o").output_fields(), "d").markup


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_a_click_sorts_a_table_by_value_and_long_tables_filter(tmp_path) -> None:
    from playwright.sync_api import sync_playwright

    rows = [
        ["b", "1 min 5 s", "1.2 GB", "10 / 12"],
        ["d", "42 s", "900 MB", "9"],
        ["a", "2 h 10 min", "70.1 kB", "1,000"],
        ["c", "–", "2 B", "−3"],
    ]
    table = page.table(["name", "took", "size", "kept"], rows, "l")
    long = page.table(["n"], [[f"row {number}"] for number in range(20)], total=["all"])
    cells = [
        v4.new_code_cell(
            "x", outputs=[v4.new_output("display_data", {"text/html": page.join(table, long)._repr_html_()})]
        )
    ]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "saved.ipynb")
    html = export_notebook(tmp_path / "saved.ipynb", tmp_path / "page.html")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page()
        tab.goto(html.as_uri())

        def order(heading: str) -> str:
            tab.click(f"th:text-is('{heading}')")
            return "".join(tab.locator("table").first.locator("tbody tr td:first-child").all_inner_texts())

        assert order("took") == "dbac"
        assert order("took") == "abdc"
        assert order("size") == "cadb"
        assert order("kept") == "cdba"
        assert order("name") == "abcd"
        tab.fill("input[type=search]", "row 1")
        assert tab.locator("table").last.locator("tbody tr:visible").count() == 12
        assert tab.locator("table").last.locator("tbody tr:visible").last.inner_text() == "all"
        browser.close()
