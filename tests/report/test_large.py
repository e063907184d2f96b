"""Reports of 100 languages, 64 workers and 10,000 shards group what is too much to show, and stay small and fast."""

import io
import re
import time
from dataclasses import replace

import pytest
from large_run import NOW, enlarge, make_ledger
from page_text import text_of
from rich.console import Console

from audiopipe.ledger.snapshot import take_snapshot
from audiopipe.report import content, distributions, explorer, forecast, progress, quality, run_tables, timeline
from audiopipe.report.terminal import render_snapshot
from audiopipe.report.terminal_rows import fold_languages, share_rows


@pytest.fixture(scope="module")
def small_ledger(tmp_path_factory):
    """A ledger of all languages and workers, with few shards."""
    folder = tmp_path_factory.mktemp("large")
    with make_ledger(folder / "_ledger.sqlite", shards=1000):
        pass
    return str(folder)


@pytest.fixture(scope="module")
def run_report(small_ledger):
    return progress.read_run_report(small_ledger)


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    with make_ledger(tmp_path_factory.mktemp("terminal") / "_ledger.sqlite", shards=300) as ledger:
        return take_snapshot(ledger, now=NOW)


@pytest.mark.parametrize("height", [24, 40, 60])
def test_the_monitor_fits_into_the_height_of_the_terminal(snapshot, height):
    console = Console(width=120, height=height, record=True, file=io.StringIO())
    console.print(render_snapshot(snapshot, fold=True))
    text = console.export_text()
    assert len(text.splitlines()) <= max(height, 27)
    assert re.search(r"\d\d others", text)
    assert re.search(r"not shown: \d\d more workers", text)
    assert "stale" in text


def test_the_monitor_prints_every_row_once(snapshot):
    console = Console(width=120, height=24, record=True, file=io.StringIO())
    console.print(render_snapshot(snapshot))
    text = console.export_text()
    assert len(text.splitlines()) > 170
    assert "others" not in text


def test_folded_languages_sum_up_to_the_total(snapshot):
    rows = fold_languages(snapshot.languages, 10)
    assert len(rows) == 10
    assert rows[-1].language == "91 others"
    for name in ("total_videos", "processed", "failed", "segments", "kept"):
        assert sum(getattr(row, name) for row in rows) == getattr(snapshot.totals, name)
    assert fold_languages(snapshot.languages, 100) == list(snapshot.languages)


def test_rows_are_shared_between_languages_and_workers():
    assert share_rows(30, 10, 20) == (10, 20)
    assert share_rows(30, 100, 64) == (20, 10)
    assert share_rows(30, 5, 64) == (5, 25)
    assert share_rows(0, 100, 64) == (4, 4)


def test_lanes_and_their_legend_group_the_languages(run_report):
    markup = timeline.lanes(run_report).markup
    assert markup.count('class="entry"') == 12
    assert re.search(r"\d\d others", markup)
    assert len(set(re.findall(r">(node-\d\d/gpu-\d)<", markup))) >= 32


def test_a_quality_report_of_many_languages_groups_them(dataset):
    tables = enlarge(quality.read_tables(dataset), segments=3000)
    assert len(tables.by_language) > 90
    few = replace(tables)
    vars(few)["columns"] = {name: tables.columns[name] for name in ("snr_db", "loudness_lufs")}
    markup = distributions.metrics(few).markup
    assert len(set(re.findall(r">(\d\d others)<", markup))) == 1
    assert "languages with most segments have a row" in text_of(distributions.metrics(few))
    drops = quality.drops(tables)
    assert len(re.findall(r"<th[ >]", drops.markup)) <= 17
    assert " others" in text_of(drops)
    assert len(content.content(tables).markup) < 400_000


def test_the_explorer_of_a_large_dataset_embeds_a_sample(dataset):
    tables = enlarge(quality.read_tables(dataset), segments=25_000)
    markup = explorer.explorer(tables).markup
    assert len(markup) < 1_000_000
    assert "segments drawn at random" in markup
    assert markup.index("<span>en</span>") < markup.index("<span>aa</span>")


@pytest.mark.slow
def test_a_progress_report_of_ten_thousand_shards_is_fast(tmp_path):
    with make_ledger(tmp_path / "_ledger.sqlite"):
        pass
    started = time.process_time()
    run_report = progress.read_run_report(str(tmp_path))
    pieces = [
        part(run_report)
        for part in (
            *(progress.headline, run_tables.languages, run_tables.errors, timeline.stages, timeline.throughput),
            *(timeline.lanes, run_tables.workers, forecast.forecasts),
        )
    ]
    assert time.process_time() - started < 6  # 2.8 s on a quiet machine, imports of matplotlib included
    assert sum(len(piece.markup) for piece in pieces) < 2_000_000
