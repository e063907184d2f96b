from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from audiopipe.errors import LedgerError
from audiopipe.ledger import LanguageTotal, Role, RunRow, RunStatus, SqliteLedger, WorkerRow, WorkerStatus, format_utc
from audiopipe.ledger.snapshot import RunSnapshot, take_snapshot
from audiopipe.report import terminal
from audiopipe.types import DeadLetter, ShardResult

START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
NOW = START + timedelta(minutes=20)


def result(index: int, language: str, minute: float, **changes: Any) -> ShardResult:
    """Build a shard that finishes at a minute of the run."""
    values: dict[str, Any] = {
        "shard": f"{language}-{index:06d}", "language": language, "partition": 0, "attempt": f"a{index}",
        "run_id": "run-1", "worker": "host-0", "videos": 10, "videos_failed": 0, "segments": 200,
        "segments_kept": 150, "drops": {"noisy": 50}, "audio_s": 600.0, "kept_s": 450.0, "bytes_in": 1000,
        "bytes_out": 500, "stage_s": {}, "wall_s": 3.0, "started_at": START.isoformat(),
        "finished_at": (START + timedelta(minutes=minute)).isoformat(),
    }  # fmt: skip
    return ShardResult(**{**values, **changes})


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[SqliteLedger]:
    with SqliteLedger(tmp_path / "_ledger.sqlite") as ledger:
        yield ledger


@pytest.fixture
def filled(ledger: SqliteLedger) -> SqliteLedger:
    """Record 20 minutes of a run: a German shard every 30 s, two French shards, one worker silent for 40 s."""
    times = START.isoformat()
    run = RunRow("run-1", "all", 1000, started_at=times, resumed_at=times, heartbeat_s=10)
    ledger.start_run(run, [LanguageTotal("de", 600, 60), LanguageTotal("fr", 400, 40)])
    for index in range(30):
        ledger.record_shard(result(index, "de", 0.5 * (index + 1), worker=f"host-{index % 2}"))
    letter = DeadLetter("vid-9", "fr", "decode", "UndecodableMedia", "evil [red]text[/red] \x1b]0;title\x07 \x1b[2J")
    ledger.record_shard(result(0, "fr", 16, videos_failed=1, dead_letters=(letter,)))
    ledger.record_shard(result(1, "fr", 19))

    def ago(seconds_ago: float) -> str:
        return (NOW - timedelta(seconds=seconds_ago)).isoformat()

    busy = {"videos_processed": 160, "videos_per_minute": 8.0, "segments_per_second": 2.7, "cpu_utilization": 91.0}
    ledger.heartbeat(
        "run-1",
        [
            WorkerRow("host-0", status=WorkerStatus.RUNNING, last_heartbeat=ago(29), **busy),  # type: ignore[arg-type]
            WorkerRow("host-1", status=WorkerStatus.RUNNING, last_heartbeat=ago(40)),
            WorkerRow("host-2", status=WorkerStatus.DONE, last_heartbeat=ago(900)),
            WorkerRow("node-0", Role.DRIVER, status=WorkerStatus.RUNNING, last_heartbeat=ago(31)),
        ],
    )
    return ledger


def snapshot_of(ledger: SqliteLedger, now: datetime = NOW) -> RunSnapshot:
    snapshot = take_snapshot(ledger, now=now)
    assert snapshot is not None
    return snapshot


def text_of(ledger: SqliteLedger, width: int = 160, **arguments: Any) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(terminal.render(ledger, **arguments))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_snapshot_has_the_numbers_computed_by_hand(filled: SqliteLedger) -> None:
    snapshot = snapshot_of(filled)
    totals, eta = snapshot.totals, snapshot.eta
    assert (totals.processed, totals.total_videos, totals.failed) == (320, 1000, 1)
    assert (totals.shards_done, totals.total_shards) == (32, 100)
    assert (totals.segments, totals.kept, totals.audio_s) == (6400, 4800, 32 * 600.0)
    # The window needs 20 shards, so it starts at minute 6.5; in its 13.5 minutes 19 shards with 190 videos finished.
    assert totals.videos_per_minute == pytest.approx(190 / 13.5)
    assert totals.segments_per_second == pytest.approx(3800 / 13.5 / 60)
    assert totals.times_real_time == pytest.approx(19 * 600 / 13.5 / 60)
    assert eta is not None
    assert eta.low_s is not None
    assert eta.high_s is not None
    assert eta.seconds == pytest.approx(680 / 190 * 13.5 * 60)
    assert eta.low_s < eta.seconds < eta.high_s
    assert snapshot.hours_elapsed == pytest.approx(1 / 3)


def test_languages_have_separate_rates_and_etas(filled: SqliteLedger) -> None:
    german, french = snapshot_of(filled).languages
    assert (german.processed, german.rate) == (300, pytest.approx(170 / 13.5))
    assert (french.processed, french.rate) == (20, pytest.approx(20 / 13.5))
    assert german.eta_s == pytest.approx(60 * 300 / (170 / 13.5))
    assert french.eta_s == pytest.approx(60 * 380 / (20 / 13.5))


def test_workers_and_drivers_without_three_heartbeats_are_stale(filled: SqliteLedger) -> None:
    snapshot = snapshot_of(filled)
    stale = {worker.worker_id: worker.stale for worker in snapshot.workers}
    assert stale == {"host-0": False, "host-1": True, "host-2": False}
    assert [driver.stale for driver in snapshot.drivers] == [True]
    filled.finish_run("run-1", RunStatus.FAILED)
    filled._connection.execute("UPDATE pipeline_runs SET status = 'failed'")
    assert not any(worker.stale for worker in snapshot_of(filled).workers)


def test_a_workers_history_sums_to_its_segments_in_the_window(filled: SqliteLedger) -> None:
    histories = {worker.worker_id: worker.history for worker in snapshot_of(filled).workers}
    # Of the 19 shards in the window, host-1 finished 9 German ones and host-0 the others, including both French ones.
    assert {name: sum(counts) for name, counts in histories.items()} == {"host-0": 2000, "host-1": 1800, "host-2": 0}


def test_a_snapshot_is_json_without_infinities(filled: SqliteLedger) -> None:
    snapshot = snapshot_of(filled)
    decoded = json.loads(json.dumps(snapshot.as_json(), allow_nan=False))
    assert list(decoded) == [
        "at", "run", "totals", "window_s", "eta", "languages", "drivers", "workers", "errors"
    ]  # fmt: skip
    assert decoded["run"] == {**snapshot.run.as_row(), "hours_elapsed": snapshot.hours_elapsed}
    assert decoded["totals"] == asdict(snapshot.totals)
    assert set(decoded["eta"]) == {"seconds", "low_s", "high_s"}
    assert [row["eta_s"] for row in decoded["languages"]] == [language.eta_s for language in snapshot.languages]
    assert set(decoded["workers"][0]) > {"worker_id", "videos_processed", "age_s", "stale", "past", "driver", "history"}
    assert decoded["errors"] == [error.as_row() for error in snapshot.errors]


def test_the_terminal_view_shows_the_snapshot(filled: SqliteLedger) -> None:
    text = text_of(filled, now=NOW)
    for part in (
        "run-1",
        "319 / 1,000 videos done",
        "1 failed",
        "4,800 / 6,400 segments kept",
        "300 / 600",
        "19 / 400",
    ):
        assert part in text
    assert "14.1 videos/min" in text
    assert "ETA 11:08 UTC, in about 48 min (80 % interval: 37 min to " in text
    (stale,) = [line for line in text.splitlines() if "host-1" in line]
    assert "stale" in stale
    assert "40 s ago" in stale
    assert "node-0 (driver)" in text
    assert "UndecodableMedia" in text


def test_problems_are_listed_in_words(filled: SqliteLedger) -> None:
    text = text_of(filled, now=NOW)
    assert "! driver node-0 has sent no heartbeat for 31 s: if its process has died, run it again to resume" in text
    assert "! 1 of 2 workers have stopped sending heartbeats" in text
    assert "!" not in text_of(filled, now=NOW - timedelta(seconds=20)).replace("! ", "!").split("last errors")[0]


def test_an_ended_run_shows_its_end_and_whether_to_resume_it(filled: SqliteLedger) -> None:
    filled._connection.execute("UPDATE pipeline_runs SET status = 'incomplete', completed_at = ?", (format_utc(NOW),))
    text = text_of(filled, now=NOW + timedelta(days=2))
    assert "ended 10:20 UTC with shards missing: run it again to resume" in text
    assert "ETA" not in text


def test_rows_of_replaced_drivers_and_old_workers_are_hidden(filled: SqliteLedger) -> None:
    def driver(name: str, partition: int, age_s: float, started_s: float) -> list[WorkerRow]:
        driver = WorkerRow(
            name, Role.DRIVER, partition, 3,
            status=WorkerStatus.RUNNING, last_heartbeat=ago(age_s), started_at=ago(started_s),
        )  # fmt: skip
        return [driver, replace(driver, worker_id=f"{name}/tcp://1.2.3.4:5", role=Role.WORKER)]

    def ago(seconds: float) -> str:
        return (NOW - timedelta(seconds=seconds)).isoformat()

    filled._connection.execute("DELETE FROM worker_progress")
    # On partition 1 a driver was killed and started again; partition 2 has two drivers; that of partition 0 is silent.
    for rows in (driver("n1/p1/a", 1, 25, 900), driver("n1/p1/b", 1, 1, 24), driver("n2/p2/a", 2, 2, 900)):
        filled.heartbeat("run-1", rows)
    filled.heartbeat("run-1", driver("n2/p2/b", 2, 3, 500))
    filled.heartbeat("run-1", [WorkerRow("n2/p2/b/spot", last_heartbeat=ago(700), status=WorkerStatus.RUNNING)])
    filled.heartbeat("run-1", driver("n0/p0/a", 0, 2 * 3600, 3 * 3600))
    snapshot = snapshot_of(filled)
    reporters = (*snapshot.drivers, *snapshot.workers)
    past = {reporter.worker_id for reporter in reporters if reporter.past}
    assert past == {"n1/p1/a", "n1/p1/a/tcp://1.2.3.4:5", "n0/p0/a/tcp://1.2.3.4:5", "n2/p2/b/spot"}
    stale = {reporter.worker_id for reporter in reporters if reporter.stale}
    assert stale == {"n0/p0/a"}, "its partition has no newer driver"
    lines = text_of(filled, now=NOW).splitlines()
    drivers = {line.split()[0] for line in lines if "(driver)" in line}
    assert drivers == {"n0/p0/a", "n1/p1/b", "n2/p2/a", "n2/p2/b"}
    assert sum("  tcp://1.2.3.4:5" in line for line in lines) == 3
    assert any("not shown: 4 that have left" in line for line in lines)


def test_stale_workers_are_shown_first(filled: SqliteLedger) -> None:
    rows = [WorkerRow(f"big/{n:03d}", status=WorkerStatus.RUNNING, last_heartbeat=NOW.isoformat()) for n in range(90)]
    rows[77] = replace(rows[77], last_heartbeat=(NOW - timedelta(seconds=50)).isoformat())
    filled._connection.execute("DELETE FROM worker_progress")
    filled.heartbeat("run-1", rows)
    assert "not shown" not in text_of(filled, now=NOW)
    console = Console(width=120, height=32, record=True, file=io.StringIO())
    console.print(terminal.render(filled, now=NOW, fold=True))
    text = console.export_text()
    assert "big/077" in text
    assert re.search(r"not shown: \d\d more workers; audiopipe monitor --once prints all rows", text)
    assert len(text.splitlines()) <= 32


def test_untrusted_text_is_shown_without_markup_or_escapes(filled: SqliteLedger) -> None:
    text = text_of(filled, now=NOW)
    assert "evil [red]text[/red]" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_the_view_fits_a_narrow_terminal(filled: SqliteLedger) -> None:
    lines = text_of(filled, width=60, now=NOW).splitlines()
    assert lines
    assert max(map(len, lines)) <= 60
    assert not any("…" in line for line in text_of(filled, width=80, now=NOW).splitlines())


def test_an_empty_ledger_and_an_empty_run_are_shown(ledger: SqliteLedger) -> None:
    assert take_snapshot(ledger) is None
    assert "No run" in text_of(ledger)
    ledger.start_run(RunRow("run-1", "de", 0), [])
    totals = snapshot_of(ledger, datetime.now(UTC)).totals
    assert (totals.processed, totals.videos_per_minute) == (0, 0)
    assert "0 / 0 videos done" in text_of(ledger)
    with pytest.raises(LedgerError, match="no run 'other'"):
        take_snapshot(ledger, "other")


def test_an_ended_run_has_no_eta_and_stops_the_watcher(filled: SqliteLedger) -> None:
    filled.heartbeat("run-1", [WorkerRow("node-0", Role.DRIVER, status=WorkerStatus.DONE)])
    filled.finish_run("run-1", RunStatus.DONE)
    assert snapshot_of(filled, datetime.now(UTC)).eta is None
    console = Console(file=io.StringIO(), width=160)
    terminal.watch(filled, console=console)
    assert isinstance(console.file, io.StringIO)
    assert "incomplete" in console.file.getvalue()


def test_the_watcher_survives_an_outage_of_the_ledger(filled: SqliteLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str | None] = []

    def flaky_snapshot(ledger: SqliteLedger, run_id: str | None = None) -> RunSnapshot | None:
        calls.append(run_id)
        if len(calls) == 2:
            raise LedgerError("the server does not answer")
        if len(calls) == 3:
            filled.heartbeat("run-1", [WorkerRow("node-0", Role.DRIVER, status=WorkerStatus.DONE)])
            filled.finish_run("run-1", RunStatus.FAILED)
        return take_snapshot(ledger, run_id)

    monkeypatch.setattr(terminal, "take_snapshot", flaky_snapshot)
    console = Console(file=io.StringIO(), width=160, force_terminal=True)
    terminal.watch(filled, every_s=0.001, console=console)
    assert isinstance(console.file, io.StringIO)
    before, after = console.file.getvalue().split("the server does not answer")
    assert "319 / 1,000 videos done" in before
    assert "failed" in after
    assert calls == [None, "run-1", "run-1"]


def test_a_snapshot_can_be_taken_while_the_driver_writes(filled: SqliteLedger) -> None:
    with SqliteLedger(filled.path, create=False) as reader:
        assert snapshot_of(reader).totals.processed == 320
        filled.record_shard(result(5, "fr", 19.5))
        assert snapshot_of(reader).totals.processed == 330
