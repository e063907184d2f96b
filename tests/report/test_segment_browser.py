"""The segment table in a browser: what it shows and plays is what its command and its CSV select."""

from __future__ import annotations

import csv
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from selection_factory import make_samples
from waiting import wait_until

from audiopipe.conditions import parse_condition
from audiopipe.dataset.reader import Dataset
from audiopipe.report import distributions, maps, quality
from audiopipe.report.frame import render_page
from audiopipe.report.segment_table import segment_table

CHROMIUM = shutil.which("chromium")
BROWSER = ("--no-sandbox", "--disable-gpu", "--autoplay-policy=no-user-gesture-required")
PLAYS = "() => document.querySelector('.browse audio')?.currentTime > 0.05"
HAS_ROWS = "() => document.querySelector('tr.segment') !== null"
DRAWN = "() => { const canvas = document.querySelector('.browse canvas'); return canvas && canvas.width > 300 }"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed"),
]


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return make_samples(str(tmp_path_factory.mktemp("samples") / "out")).root


@pytest.fixture(scope="module")
def page_file(output, tmp_path_factory):
    """The table of an output as a page that is opened from a file."""
    path = tmp_path_factory.mktemp("page") / "segments.html"
    piece = segment_table(quality.read_tables(output)).page()
    path.write_text(render_page("Segments", f"<h1>Segments</h1>{piece._repr_html_()}", ""), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(BROWSER))
        yield browser
        browser.close()


@pytest.fixture
def page(browser, page_file):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request", lambda request: request.url.startswith(("file:", "data:", "blob:")) or problems.append(request.url)
    )
    page.goto(page_file.as_uri())
    page.wait_for_function(HAS_ROWS)  # a handle of an element, as wait_for_selector returns, would keep it in memory
    yield page
    assert problems == []
    page.close()


def add_filter(page, column, **limits):
    page.select_option("select[aria-label='Add a filter']", column)
    for name, value in limits.items():
        page.fill(f"fieldset >> nth=-1 >> input[placeholder='{name}']", value)


def where_of(page):
    """Return the condition of the command that the page shows."""
    return shlex.split(page.inner_text(".browse pre code"))[-1]


def wait_for_count(page, count):
    page.wait_for_function(
        "count => document.querySelector('.browse .status').textContent.startsWith(`${count} segment`)", arg=str(count)
    )


def download_keys(page, folder):
    with page.expect_download() as download:
        page.click("text=/Download .* keys/")
    path = Path(folder) / "keys.csv"
    download.value.save_as(path)
    with path.open(encoding="utf-8", newline="") as file:
        return [row["key"] for row in csv.DictReader(file)]


def test_the_command_selects_the_keys_of_the_table(page, output, tmp_path):
    rows = Dataset(output).to_pandas()
    page.fill("input[type=search]", "TEXT 1")
    add_filter(page, "snr_db", min="20", max="95.5")
    page.click("th[data-column=snr_db] button")
    chosen = rows[rows["kept"] & rows["text"].str.contains("text 1") & rows["snr_db"].between(20, 95.5)]
    assert 0 < len(chosen) < len(rows)
    wait_for_count(page, len(chosen))
    page.wait_for_selector("th[aria-sort=descending]")
    shown = page.locator("tr.segment td:nth-child(7)").all_inner_texts()
    assert shown == [f"{value:.1f}" for value in sorted(chosen["snr_db"], reverse=True)][:25]
    assert page.locator("mark").first.inner_text() == "text 1"
    page.click("tr.segment .play")
    page.wait_for_function(PLAYS)
    page.wait_for_function(DRAWN)
    assert sorted(download_keys(page, tmp_path)) == sorted(chosen["key"])
    command = shlex.split(page.inner_text(".browse pre code"))
    assert command[:3] == ["audiopipe", "select", output]
    program = [sys.executable, "-m", "audiopipe.cli", "select", output, str(tmp_path / "dest"), *command[4:]]
    subprocess.run([*program, "--workers", "1"], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    selected = Dataset(str(tmp_path / "dest")).to_pandas()
    assert sorted(selected["key"]) == sorted(chosen["key"])


@pytest.mark.parametrize("kept", [True, False])
def test_filters_count_what_the_condition_selects(page, output, kept):
    """Compare the filters of a page with DuckDB's, at values that are exactly in the table, and with missing ones."""
    dataset = Dataset(output)
    if not kept:
        page.click("button[aria-label='Remove the filter of kept']")
    value = repr(float(dataset.to_pandas(where="kept")["snr_db"].iloc[7]))
    steps = [
        lambda: add_filter(page, "snr_db", min=value),
        lambda: add_filter(page, "tar_offset", max="3e3"),
        lambda: page.check("fieldset:has(input[aria-label='tar offset max']) input[type=checkbox]"),
        lambda: (add_filter(page, "speaker"), page.check("fieldset >> nth=-1 >> label:has-text('speaker 1')")),
        lambda: page.click(".bars >> nth=0 >> span >> nth=-1"),
        lambda: page.fill("input[type=search]", "x'"),
    ]
    counts = []
    for step in steps:
        before = page.inner_text(".browse pre code")
        step()
        page.wait_for_function("text => document.querySelector('.browse pre code').textContent !== text", arg=before)
        expected = len(dataset.to_pandas(where=where_of(page)))
        wait_for_count(page, expected)
        counts.append(expected)
    assert counts[-1] == 0
    assert "OR tar_offset IS NULL" in where_of(page)
    page.click("text=Reset")
    wait_for_count(page, 64)
    assert where_of(page) == "kept"


def test_the_keyboard_moves_plays_and_turns_pages(page):
    page.focus("tr.segment .play")
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "Enter"):
        page.keyboard.press(key)
    page.wait_for_function(PLAYS)
    button = page.locator("tr.segment .play").nth(1)
    assert button.get_attribute("aria-expanded") == "true"
    assert re.fullmatch(r"Play \S+_0000\d", button.get_attribute("aria-label"))
    page.keyboard.press("Enter")
    page.wait_for_selector("tr.more", state="detached")
    first = page.locator("tr.segment .play").first.get_attribute("aria-label")
    page.focus("button[aria-label='Next page']")
    page.keyboard.press("Enter")
    page.wait_for_function("label => document.querySelector('.play').ariaLabel !== label", arg=first)
    assert page.locator(".pager span").inner_text() == "26 to 50 of 64"
    assert page.locator("[role=status]").get_attribute("aria-live") == "polite"


def test_a_segment_without_audio_says_how_to_get_it(page, output):
    page.click("text=Random order")
    page.click("button[aria-label='Last page']")
    page.click("button[aria-label^='Show '] >> nth=0")
    key = page.locator("tr.open .play").get_attribute("aria-label").removeprefix("Show ")
    assert f'audiopipe.Dataset("{output}")["{key}"].audio' in page.inner_text(".detail")
    page.check("label:has-text('with audio') input")
    wait_for_count(page, 60)
    assert not page.locator("button[aria-label^='Show ']").count()


def test_a_table_that_a_notebook_replaced_is_freed(page):
    page.click("tr.segment .play")
    page.wait_for_function(PLAYS)
    page.evaluate("() => { window.table = new WeakRef(document.querySelector('.browse')) }")
    page.evaluate("() => document.querySelector('.browse').parentElement.replaceChildren()")
    page.mouse.click(5, 5)
    session = page.context.new_cdp_session(page)

    def is_freed():
        # What the page still has at work, such as the decoding of the clip, holds the table for a while.
        session.send("HeapProfiler.collectGarbage")
        return page.evaluate("() => window.table.deref() === undefined")

    wait_until(is_freed, poll_s=0.2)


def test_an_insecure_page_copies_the_command_too(page):
    page.evaluate("() => Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.click("text=Copy the command")
    page.wait_for_selector("text=Copied")
    assert page.evaluate("getSelection().toString()") == page.inner_text(".browse pre code")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_overflow(browser, page_file, scheme):
    page = browser.new_page(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page.goto(page_file.as_uri())
    page.click("tr.segment .play")
    page.click("summary:text('Columns')")
    add_filter(page, "speaker")
    page.wait_for_function(DRAWN)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    detail = page.locator(".detail").bounding_box()
    assert detail["x"] >= 0
    assert detail["x"] + detail["width"] <= 390
    page.close()


# The place in the window of a cell or of a bar that has segments, from the values of a figure.
PLACE = """
([title, kind]) => {
  const figure = [...document.querySelectorAll("figure.chart")].find((figure) => figure.innerText.startsWith(title));
  const data = JSON.parse(figure.querySelector("script.chart").textContent), { x, from, to } = data.frame;
  figure.scrollIntoView({ block: "center" });
  const svg = figure.querySelector("svg"), box = svg.getBoundingClientRect();
  const scale = box.width / svg.viewBox.baseVal.width;
  const middle = (edges, index) => (edges[index] + edges[index + 1]) / 2, [top, bottom] = data.bands[0];
  const [column, row] = kind === "cells" ? data.cells.find((cell) => cell[2]) :
    [data.series.kept[0].findIndex(Boolean), null];
  const value = middle(kind === "cells" ? data.x_edges : data.edges, column);
  const low = kind === "cells" ? data.y_edges[0] : 0, high = kind === "cells" ? data.y_edges.at(-1) : 1;
  const y = kind === "cells" ? bottom - (middle(data.y_edges, row) - low) / (high - low) * (bottom - top) : bottom - 3;
  return [box.left + scale * (x[0] + (value - from) / (to - from) * (x[1] - x[0])), box.top + scale * y];
}
"""


def test_a_click_on_a_figure_plays_its_segments(browser, dataset, tmp_path):
    tables = quality.read_tables(dataset)
    # The other figures are like these, and each takes its time to draw.
    vars(tables)["columns"] = {name: tables.columns[name] for name in ("snr_db", "loudness_lufs")}
    pieces = (maps.maps(tables), distributions.metrics(tables), segment_table(tables))
    body = "".join(piece._repr_html_() for piece in pieces)
    (tmp_path / "page.html").write_text(render_page("Segments", body, ""), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_selector("tr.segment")
    for title, kind, columns in (
        ("SNR and loudness", "cells", {"snr_db", "loudness_lufs"}),
        ("SNR (dB)", "bins", {"snr_db"}),
    ):
        page.mouse.click(*page.evaluate(PLACE, [title, kind]))
        page.wait_for_function(PLAYS)
        condition = parse_condition(where_of(page), tables.dataset.column_types)
        assert set(condition.columns) == columns
        wait_for_count(page, len(Dataset(dataset).to_pandas(where=condition.text)))
        assert "nearest" not in page.inner_text("[role=status]")
    page.close()
