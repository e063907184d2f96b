"""The progress report shows the data of the ledger."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from audiopipe.errors import ConfigError, LedgerError
from audiopipe.ledger import LanguageTotal, RunRow, RunStatus, open_ledger
from audiopipe.ledger.record import format_utc
from audiopipe.report import forecast, live, progress, run_tables, timeline


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html.markup))


@pytest.fixture(scope="module")
def run_report(ledger):
    return progress.read_run_report(ledger)


def test_the_headline_has_the_ledgers_numbers_and_a_verdict(run_report):
    text = text_of(progress.headline(run_report))
    assert f"{run_report.numbers.done} videos done" in text
    assert "Done: every planned shard is committed." in text
    assert "1 video (14 %) failed permanently" in text
    assert "1 attempt at shards had to be repeated" in text


def test_failed_videos_and_attempts_are_listed_with_examples(run_report):
    html = run_tables.errors(run_report)
    assert "<b>slow down</b>" not in html.markup
    text = text_of(html)
    assert "MissingSource 1 fetch nowhere" in text
    assert "StoreError 1 driver en-000000, attempt 1 503" in text


def test_every_language_and_worker_has_its_row(run_report):
    languages = text_of(run_tables.languages(run_report))
    assert "de" in languages
    assert "en" in languages
    assert "host/p0/1" in text_of(run_tables.workers(run_report))


def test_the_bottleneck_is_named_with_what_to_do(run_report):
    text = text_of(timeline.stages(run_report))
    assert re.search(r"(fetch|decode|fingerprint|score|encode|write|upload) is the bottleneck: \d+", text)


def test_figures_are_drawn(run_report):
    for html in (timeline.throughput(run_report), timeline.lanes(run_report), timeline.stages(run_report)):
        assert "<svg" in html.markup


def test_thousands_of_shards_of_many_workers_are_all_drawn(run_report):
    start = datetime.now(UTC) - timedelta(hours=12)
    shards = [
        replace(
            run_report.done[0],
            shard=f"en-{n:06d}",
            worker_id=f"node{n % 64 // 8}/p{n % 64 // 8}/gpu-{n % 8}",
            started_at=format_utc(start + timedelta(seconds=400 * (n // 64))),
            finished_at=format_utc(start + timedelta(seconds=400 * (n // 64) + 390)),
        )
        for n in range(5_000)
    ]
    html = timeline.lanes(replace(run_report, shards=shards)).markup
    assert len(re.findall(r"\dz[M\"]", html)) >= 5_000
    assert len(html) < 1_000_000
    assert set(re.findall(r">(node\d/gpu-\d)<", html)) == {f"node{n}/gpu-{m}" for n in range(8) for m in range(8)}
    assert "earlier ones are not" not in html


def test_a_forecast_is_drawn_for_a_session_with_enough_shards(run_report):
    start = datetime.now(UTC) - timedelta(minutes=10)
    shards = [
        replace(
            run_report.done[0], shard=f"en-{n:06d}", videos=1, finished_at=format_utc(start + timedelta(seconds=20 * n))
        )
        for n in range(1, 25)
    ]
    run = replace(
        run_report.run, total_videos=30, completed_at=None, started_at=format_utc(start), resumed_at=format_utc(start)
    )
    assert "<svg" in forecast.forecasts(replace(run_report, run=run, shards=shards)).markup


def test_too_few_shards_are_reported(run_report):
    assert "three must be committed" in text_of(forecast.forecasts(replace(run_report, shards=run_report.shards[:1])))
    assert "no shard is committed" in text_of(timeline.throughput(replace(run_report, shards=[])))


def test_an_unfinished_run_is_reported(run_report):
    run = replace(run_report.run, status=RunStatus.INCOMPLETE)
    assert "Not finished (incomplete)" in text_of(progress.headline(replace(run_report, run=run)))


def test_a_dead_driver_is_reported(run_report):
    driver = replace(run_report.snapshot.drivers[0], stale=True, age_s=400.0)
    run = replace(run_report.run, status=RunStatus.RUNNING, completed_at=None)
    dead = replace(run_report, run=run, snapshot=replace(run_report.snapshot, drivers=(driver,)))
    assert "sent no heartbeat for 6 min 40 s" in text_of(progress.headline(dead))


def test_the_cost_so_far_is_the_price_times_the_busy_hours(ledger):
    priced = progress.read_run_report(ledger, usd_per_hour=3600.0)
    assert f"${priced.busy_s:,.2f} cost so far" in text_of(progress.headline(priced))


def test_a_negative_price_is_refused(ledger):
    with pytest.raises(ConfigError, match="usd_per_hour"):
        progress.read_run_report(ledger, usd_per_hour=-1.0)


def test_the_default_run_is_not_an_annotation(tmp_path):
    with open_ledger(None, str(tmp_path)) as ledger:
        for run_id in ("r", "r-annotate-transcript-1"):
            ledger.start_run(RunRow(run_id, "all", 3), [LanguageTotal("en", 3, 1)])
            ledger.finish_run(run_id, RunStatus.DONE)
    assert progress.read_run_report(str(tmp_path)).run.run_id == "r"
    annotation = progress.read_run_report(str(tmp_path), run_id="r-annotate-transcript-1")
    assert "adds columns to the segments of another run" in text_of(progress.headline(annotation))


def test_an_output_without_a_ledger_is_refused(tmp_path):
    with pytest.raises(LedgerError, match="does not exist: start a run"):
        progress.read_run_report(str(tmp_path))
    open_ledger(None, str(tmp_path)).close()
    with pytest.raises(LedgerError, match="no run yet"):
        progress.read_run_report(str(tmp_path))


def test_the_live_progress_has_bars_numbers_and_errors(run_report):
    text = text_of(live.render_progress(run_report.snapshot))
    assert "6 / 7 videos done 100 % processed · run done" in text
    assert "MissingSource" in text
    assert "has no run yet" in text_of(live.render_progress(None))
