"""Figures carry their values: a page shows them under the pointer and saves them."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from page_text import text_of

from audiopipe.report import distributions, frame, page, quality
from audiopipe.report.chart_data import Band, Bins, Cells, Items, Points
from audiopipe.report.figure import OUTLINE, _shorten_outline, draw
from audiopipe.report.groups import largest
from audiopipe.report.ridges import Sample, draw_histograms
from audiopipe.report.sample_rates import SampleRates

CHROMIUM = shutil.which("chromium")
EDGES = np.linspace(0.0, 4.0, 5)


def read_values(markup):
    """Return the values of the first figure of a piece."""
    return json.loads(re.search(r'<script type="application/json" class="chart">(.*?)</script>', markup)[1])


@pytest.fixture(scope="module")
def chart():
    """A histogram of six segments in three languages, of which two share a row."""
    language = pd.Series(["en", "en", "en", "de", "</script>", "fr"])
    values = np.array([0.5, 1.5, 1.6, 2.5, 9.0, np.nan])
    kept = np.array([True, True, False, True, True, True])
    groups = largest({"en": 3, "de": 1, "</script>": 1, "fr": 1}, 3)
    return draw_histograms(Sample(values, language, kept), groups, EDGES, "length (s)", "s")


def test_a_histogram_carries_the_counts_of_its_bins(chart):
    values = read_values(chart)
    assert values["rows"] == ["all", "</script>", "en", "2 others"]
    assert values["edges"] == [0, 1, 2, 3, 4]
    assert values["series"]["kept"] == [[1, 1, 1, 1], [0, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0]]
    assert values["series"]["dropped"] == [[0, 1, 0, 0], [0] * 4, [0, 1, 0, 0], [0] * 4]


def test_the_bands_of_a_figure_lie_below_each_other(chart):
    values = read_values(chart)
    (_, _, width, height) = map(float, re.search(r'viewBox="([^"]+)"', chart)[1].split())
    ends = [end for band in values["bands"] for end in band]
    assert ends == sorted(ends)
    assert 0 <= ends[0] < ends[-1] <= height
    assert 0 < values["frame"]["x"][0] < values["frame"]["x"][1] <= width
    assert (values["frame"]["from"], values["frame"]["to"]) == (0, 4)


def test_a_histogram_has_an_axis_of_counts(chart):
    assert ">segments<" in chart
    assert re.search(r">2<.*>segments<", chart.partition("<script")[0], re.DOTALL)


def test_values_that_json_lacks_become_null():
    data = Points("x", [0.0, 1.0], {"y": [np.nan, 1 / 3]})
    assert read_values(draw(lambda axes: axes.plot([0, 1], [0, 1]), data=data))["series"] == {"y": [None, 0.333333]}


def test_the_outline_of_steps_is_written_in_short():
    steps = 'd="M 10.04 20 L 10.04 20 L 16.5 20 L 20.25 20 L 20.25 9.96 L 30 5 L 30 5 z M 1 1 L 1 1 z "'
    assert OUTLINE.sub(_shorten_outline, steps) == 'd="M10 20H20.2V10L30 5z"'
    curve = 'd="M 1 1 C 2 2 3 3 4 4"'
    assert OUTLINE.sub(_shorten_outline, curve) == curve


def test_the_largest_groups_keep_their_names():
    assert largest({"b": 1, "a": 2}, 2).names == ["a", "b"]
    groups = largest({"a": 1, "b": 9, "c": 5, "d": 7, "e": 5}, 4)
    assert groups.names == ["b", "c", "d", "2 others"]
    assert groups.hidden == ["a", "e"]
    assert [groups.label(name) for name in "ab"] == ["2 others", "b"]


def test_metrics_name_the_sample_rate_of_their_measurement(dataset):
    tables = quality.read_tables(dataset)
    rates = SampleRates(tables)
    assert rates.describe("snr_db") == "measured at the source's sample rate; "
    assert rates.describe("unknown") == ""
    assert re.fullmatch(r"The sample rate .* is [\d.]+ kHz in 100 % of the segments\.", rates.describe_sources())
    text = text_of(distributions.metrics(tables))
    drawn = tables.segments[list(tables.metrics)].notna().any().sum()
    assert text.count("measured at the source's sample rate") == drawn > 10


FIGURES = {
    "bins": Bins("s", EDGES, ["row"], {"kept": [[1, 2, 3, 4]]}, [Band(0, 1, 0)]),
    "points": Points("limit", EDGES, {"kept (%)": EDGES * 10}),
    "items": Items(("shard", "duration (s)"), [(0, 2.0, 3.0, ("=en-1", 7.5))], [Band(0, 1, 0)], ["gpu-0"], "worker"),
    "cells": Cells("SNR", "loudness", EDGES, [0.0, 0.5, 1.0], ("kept", "dropped"), [[2, 0, 5, 6], [2, 1, 0, 1]]),
}
TIPS = {
    "bins": "row s: 2 to 3 kept: 3",
    "points": "limit: 2 kept (%): 20",
    "items": "=en-1 worker: gpu-0 duration (s): 7.5",
    "cells": "SNR: 2 to 3 loudness: 0 to 0.5 kept: 5 dropped: 6",
}
TABLES = {
    "bins": "language,s from,to,kept\nrow,0,1,1\nrow,1,2,2\nrow,2,3,3\nrow,3,4,4\n",
    "points": "limit,kept (%)\n0,0\n1,10\n2,20\n3,30\n4,40\n",
    "items": "worker,shard,duration (s)\ngpu-0,'=en-1,7.5\n",
    "cells": "SNR from,to,loudness from,to,kept,dropped\n2,3,0,0.5,5,6\n2,3,0.5,1,0,1\n",
}


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_and_saves_the_values(tmp_path):
    from playwright.sync_api import sync_playwright

    figures = [
        page.figure(draw(lambda axes: axes.set(xlim=(0, 4), ylim=(0, 1)), data=data), name)
        for name, data in FIGURES.items()
    ]
    body = "".join(f'<div class="ap">{figure.markup}</div>' for figure in figures)
    (tmp_path / "page.html").write_text(frame.render_page("Figures", body, ""), encoding="utf-8")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": 1000, "height": 800})
        errors: list[str] = []
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto(f"file://{tmp_path / 'page.html'}")
        for name, data in FIGURES.items():
            figure = tab.locator("figure.chart", has=tab.locator("b", has_text=name))
            figure.scroll_into_view_if_needed()
            box, values = figure.locator("svg").bounding_box(), read_values(figure.inner_html())
            scale = box["width"] / 460
            (left, right), (top, bottom) = values["frame"]["x"], values["bands"][0]
            x = box["x"] + scale * (left + (right - left) * 0.55)
            tab.mouse.move(x, box["y"] + scale * (top + 0.9 * (bottom - top)))
            lines = tab.locator("[role=tooltip] > *").all_inner_texts()
            assert " ".join(lines) == TIPS[name], data
            with tab.expect_download() as saved:
                figure.get_by_role("button", name="CSV").click()
            assert saved.value.suggested_filename == f"{name}.csv"
            assert Path(saved.value.path()).read_text(encoding="utf-8-sig") == TABLES[name]
        with tab.expect_download() as saved:
            figure.get_by_role("button", name="PNG").click()
        assert Path(saved.value.path()).read_bytes().startswith(b"\x89PNG")
        browser.close()
    assert not errors
