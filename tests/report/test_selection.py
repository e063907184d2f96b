"""Reports of a selection: before and after, its parent, and the numbers of the explorer against those of `select`."""

import re
import shutil

import pytest
from distributed import Client
from page_text import text_of

import audiopipe
from audiopipe.dataset.reader import Dataset
from audiopipe.errors import ConfigError
from audiopipe.report import comparison, explorer, quality
from audiopipe.report.frame import render_page
from audiopipe.report.selection import before_and_after, report_link

CHROMIUM = shutil.which("chromium")
WHERE = "video_id != 'video01'"


@pytest.fixture(scope="module")
def client():
    with Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0") as client:
        yield client


@pytest.fixture(scope="module")
def selected(dataset, client, tmp_path_factory):
    """The URL of a selection from the dataset."""
    dest = str(tmp_path_factory.mktemp("selection") / "dest")
    assert audiopipe.select(dataset, dest, where=WHERE, client=client).exit_code == 0
    return dest


def test_a_selection_is_compared_with_its_parent(dataset, selected):
    parent, rows = Dataset(dataset).to_pandas(), Dataset(selected).to_pandas()
    text = text_of(before_and_after(Dataset(selected)))
    for language, group in parent.groupby("language"):
        kept, taken = int(group["kept"].sum()), int((rows["language"] == language).sum())
        assert f"{language} {kept} {taken} " in text, language
    assert f"video_id != 'video01' {int((parent['video_id'] == 'video01').sum())} " in text
    page = text_of(comparison.comparison(quality.read_tables(selected)))
    assert f"Compared with {dataset}" in page
    assert f"{len(rows)} segments are in both; 0 have another decision." in page
    assert text in page


def test_a_parent_that_is_gone_leaves_no_comparison(selected, dataset, tmp_path, caplog):
    record = tmp_path / "dest" / "_run.json"
    shutil.copytree(selected, tmp_path / "dest")
    assert quality.read_tables(selected, compare_with=None).other is None
    assert quality.read_tables(dataset).other is None
    hidden = f"{dataset}-hidden"
    shutil.move(dataset, hidden)
    try:
        assert quality.read_tables(str(record.parent)).other is None
    finally:
        shutil.move(hidden, dataset)
    assert "was selected from cannot be read" in caplog.text


def test_the_output_of_a_run_has_no_before(dataset):
    assert before_and_after(Dataset(dataset)).markup == ""


def test_the_report_of_a_selection_is_linked_and_can_be_made():
    markup = report_link("out", "s3://bucket/dest/").markup
    assert '<a href="quality.html">' in markup
    assert "audiopipe report s3://bucket/dest/" in markup
    markup = report_link("out", "s3://bucket/<my dest>/").markup
    assert "audiopipe report &#x27;s3://bucket/&lt;my dest&gt;/&#x27;" in markup


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_the_explorers_numbers_are_those_of_select(dataset, client, tmp_path):
    from playwright.sync_api import sync_playwright

    tables = quality.read_tables(dataset)
    values = sorted(tables.kept["loudness_lufs"])
    page_file = tmp_path / "explorer.html"
    body = f'<div class="ap">{explorer.explorer(tables).markup}</div>'
    page_file.write_text(render_page("Explorer", body, ""), encoding="utf-8")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(page_file.as_uri())
        # A limit that is exactly a value of the table, one with an exponent, and none at all.
        steps = [("max_loudness_lufs", repr(float(values[1]))), ("max_clipping_ratio", "1e-3"), ("min_snr_db", "300")]
        for number, (parameter, limit) in enumerate(steps):
            page.fill(f"input[type=number][aria-label='{parameter} value']", limit)
            shown = page.inner_text("[data-result=selected]")
            command = page.inner_text("[data-result=select]")
            where = re.search(r"--where '(.*)'$", command)[1]
            assert f"where '{where}'" in page.inner_text("[data-result=papermill]")
            assert command.startswith(f"audiopipe select {dataset} {dataset}-selected --where ")
            if shown == "0 (0.00 h)":
                with pytest.raises(ConfigError, match="no segment"):
                    audiopipe.select(dataset, str(tmp_path / f"dest{number}"), where=where, client=client)
                continue
            audiopipe.select(dataset, str(tmp_path / f"dest{number}"), where=where, client=client)
            rows = Dataset(str(tmp_path / f"dest{number}")).to_pandas()
            assert shown == f"{len(rows)} ({rows['duration_s'].sum() / 3600:.2f} h)"
            if parameter == "max_loudness_lufs":
                assert len(rows) == (tables.kept["loudness_lufs"] <= values[1]).sum()
        browser.close()
