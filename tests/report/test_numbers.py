"""A number that several pages show is equal on all of them: run, progress, quality, terminal, summary and card."""

import json
import re

import pytest
from page_text import text_of
from rich.console import Console

from audiopipe.dataset.commit import read_commits
from audiopipe.dataset.totals import Totals, effective_results
from audiopipe.driver.run import RunSummary
from audiopipe.ledger import RunStatus, open_ledger
from audiopipe.ledger.rates import measure_busy_time
from audiopipe.ledger.snapshot import take_snapshot
from audiopipe.plan.plan import load_plan
from audiopipe.report import comparison, distributions, live, progress, quality, terminal
from audiopipe.report.numbers import RunNumbers
from audiopipe.report.summary import summary_lines
from audiopipe.store.objects import Store


@pytest.fixture(scope="module")
def pages(ledger):
    """The text of every page that shows the numbers of the run."""
    store = Store(ledger)
    total = Totals.of(effective_results(read_commits(store), load_plan(store)).values())
    summary = RunSummary("tests", ledger, RunStatus.DONE, total, total, total.shards, {}, 1234.0)
    with open_ledger(None, ledger, create=False) as source:
        snapshot = take_snapshot(source)
    console = Console(width=140, record=True)
    console.print(terminal.render_snapshot(snapshot))
    pieces = {
        "run": live.render_result(summary),
        "live": live.render_progress(snapshot),
        "progress": progress.headline(progress.read_run_report(ledger)),
        "quality": quality.headline(quality.read_tables(ledger)),
    }
    texts = {name: text_of(piece) for name, piece in pieces.items()}
    texts["terminal"], texts["summary"] = console.export_text(), "\n".join(summary_lines(summary))
    return texts | {"dataset.json": store.read("dataset.json").decode(), "card": store.read("README.md").decode()}


@pytest.fixture(scope="module")
def numbers(ledger):
    return progress.read_run_report(ledger).numbers


def test_every_page_has_the_same_videos_done_and_failed(pages, numbers):
    assert (numbers.videos_done, numbers.videos_failed, numbers.videos) == (6, 1, 7)
    for name in ("run", "live", "progress", "quality"):
        assert "6 / 7 videos done" in pages[name], name
        assert "1 videos failed permanently" in pages[name], name
    assert "6 / 7 videos done (100 % processed)" in pages["terminal"]
    assert "6 done, 1 failed" in pages["summary"]
    total = json.loads(pages["dataset.json"])["total"]
    assert total["videos"] - total["videos_failed"] == 6
    assert "| de | 3 / 3 | " in pages["card"]
    assert "| en | 3 / 4 | " in pages["card"]


def test_every_page_has_the_same_speed(pages, numbers):
    assert numbers.busy_s > 0
    for name in ("run", "live", "progress", "terminal", "summary"):
        assert f"{numbers.times_real_time} real time" in pages[name], name


def test_every_page_has_the_same_hours_and_shares(pages, numbers):
    for name in ("run", "progress", "quality"):
        assert f"{numbers.hours_kept} h kept of {numbers.hours} h" in pages[name], name
        assert f"{numbers.kept_share} kept of {numbers.segments} segments" in pages[name], name
    assert f"{numbers.kept} segments kept ({numbers.kept_share})" in pages["terminal"]
    assert f"{numbers.segments_kept} kept ({numbers.kept_share})" in pages["summary"]


def test_commits_and_ledger_agree(ledger, numbers):
    assert quality.read_tables(ledger).numbers == numbers


def test_every_table_has_the_same_medians(dataset):
    tables = quality.read_tables(dataset, compare_with=dataset)
    snr = tables.kept["snr_db"].median()
    text = f"{snr:.1f}".replace("-", "−")
    assert re.search(rf"all .*\s{text}\s", text_of(quality.languages(tables)))
    assert f"median of the kept {text}" in text_of(distributions.metrics(tables))
    assert f"medians {text} and {text}" in text_of(comparison.charts(tables))


def test_pauses_between_shards_are_not_working_time():
    minutes = [("00", "10"), ("05", "12"), (None, "20"), ("30", "31"), ("06", "07")]
    spans = [(start and f"2026-01-01T00:{start}:00Z", f"2026-01-01T00:{end}:00Z") for start, end in minutes]
    assert measure_busy_time(spans) == 13 * 60
    assert measure_busy_time([]) == 0


def test_a_page_rounds_no_share_to_all_or_none():
    numbers = RunNumbers(100_000, 99_999, 1, 10, 10, 3600.0, 3600.0, 60.0)
    assert (numbers.processed_share, numbers.failed_share, numbers.kept_share) == ("> 99.9 %", "< 0.1 %", "100 %")
    assert (numbers.done, numbers.times_real_time) == ("99,998 / 100,000", "60 x")
