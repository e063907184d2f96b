"""The progress report says what the ledger knows."""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from audiopipe.errors import ConfigError, LedgerError
from audiopipe.ledger import RunStatus, open_ledger
from audiopipe.ledger.record import format_utc
from audiopipe.report import forecast, live, progress, run_tables, timeline


def words(piece):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", piece.markup))


@pytest.fixture(scope="module")
def seen(ledger):
    return progress.read_run_report(ledger)


def test_the_headline_has_the_ledgers_numbers_and_a_verdict(seen):
    told = words(progress.headline(seen))
    assert f"{seen.run.total_videos} of {seen.run.total_videos} videos done" in told
    assert "Done: every planned shard is committed." in told
    assert "1 video (14 %) cannot be processed" in told
    assert "1 attempt at shards had to be repeated" in told


def test_failed_videos_and_attempts_are_listed_with_examples(seen):
    made = run_tables.troubles(seen)
    assert "<b>slow down</b>" not in made.markup
    told = words(made)
    assert "MissingSource 1 fetch nowhere" in told
    assert "StoreError 1 driver en-000000, try 1 503" in told


def test_every_language_and_worker_has_its_row(seen):
    languages = words(run_tables.languages(seen))
    assert "de" in languages
    assert "en" in languages
    assert "host/p0/1" in words(run_tables.workers(seen))


def test_the_bottleneck_is_named_with_what_to_do(seen):
    told = words(timeline.stages(seen))
    assert re.search(r"(fetch|decode|score|encode|write|upload) is the bottleneck: \d+", told)


def test_pictures_are_drawn(seen):
    for made in (timeline.throughput(seen), timeline.lanes(seen), timeline.stages(seen)):
        assert "<svg" in made.markup


def test_thousands_of_shards_of_many_workers_are_all_drawn(seen):
    start = datetime.now(UTC) - timedelta(hours=12)
    shards = [
        replace(
            seen.done[0],
            shard=f"en-{n:06d}",
            worker_id=f"node{n % 64 // 8}/p{n % 64 // 8}/gpu-{n % 8}",
            started_at=format_utc(start + timedelta(seconds=400 * (n // 64))),
            finished_at=format_utc(start + timedelta(seconds=400 * (n // 64) + 390)),
        )
        for n in range(5_000)
    ]
    made = timeline.lanes(replace(seen, shards=shards)).markup
    assert made.count("z ") >= 5_000
    assert len(made) < 1_000_000
    assert set(re.findall(r">(node\d/gpu-\d)<", made)) == {f"node{n}/gpu-{m}" for n in range(8) for m in range(8)}
    assert "earlier ones are not" not in made


def test_a_forecast_is_drawn_for_a_session_with_enough_shards(seen):
    start = datetime.now(UTC) - timedelta(minutes=10)
    shards = [
        replace(seen.done[0], shard=f"en-{n:06d}", videos=1, finished_at=format_utc(start + timedelta(seconds=20 * n)))
        for n in range(1, 25)
    ]
    run = replace(
        seen.run, total_videos=30, completed_at=None, started_at=format_utc(start), resumed_at=format_utc(start)
    )
    assert "<svg" in forecast.forecasts(replace(seen, run=run, shards=shards)).markup


def test_too_few_shards_say_so(seen):
    assert "three must be committed" in words(forecast.forecasts(replace(seen, shards=seen.shards[:1])))
    assert "no shard is committed" in words(timeline.throughput(replace(seen, shards=[])))


def test_an_unfinished_run_is_called_that(seen):
    run = replace(seen.run, status=RunStatus.INCOMPLETE)
    assert "Not finished (incomplete)" in words(progress.headline(replace(seen, run=run)))


def test_a_dead_driver_is_reported(seen):
    drivers = [{**seen.snapshot["drivers"][0], "stale": True, "age_s": 400.0}]
    run = replace(seen.run, status=RunStatus.RUNNING, completed_at=None)
    dead = replace(seen, run=run, snapshot={**seen.snapshot, "drivers": drivers})
    assert "not been heard of for 6 min 40 s" in words(progress.headline(dead))


def test_the_cost_so_far_is_the_price_times_the_hours_of_work(ledger):
    told = progress.read_run_report(ledger, usd_per_hour=3600.0)
    assert f"${told.sessions_s:,.2f} cost so far" in words(progress.headline(told))


def test_a_negative_price_is_refused(ledger):
    with pytest.raises(ConfigError, match="usd_per_hour"):
        progress.read_run_report(ledger, usd_per_hour=-1.0)


def test_an_output_without_a_ledger_is_refused(tmp_path):
    with pytest.raises(LedgerError, match="there is no ledger"):
        progress.read_run_report(str(tmp_path))
    open_ledger(None, str(tmp_path)).close()
    with pytest.raises(LedgerError, match="no run yet"):
        progress.read_run_report(str(tmp_path))


def test_the_live_area_has_bars_numbers_and_errors(seen):
    told = words(live.area(seen.snapshot))
    assert f"{seen.run.total_videos} / {seen.run.total_videos} videos · done" in told
    assert "MissingSource" in told
    assert "does not know the run yet" in words(live.area({"run": None}))
