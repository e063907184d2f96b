from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from audiopipe.errors import LedgerError
from audiopipe.ledger import LanguageTotal, Role, RunRow, RunStatus, SqliteLedger, WorkerRow, WorkerStatus, format_utc
from audiopipe.ledger import snapshot as monitor
from audiopipe.report import terminal
from audiopipe.types import DeadLetter, ShardResult

START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)
NOW = START + timedelta(minutes=20)


def result(index: int, language: str, minute: float, **changes: Any) -> ShardResult:
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
    with SqliteLedger(tmp_path / "_ledger.sqlite") as opened:
        yield opened


@pytest.fixture
def filled(ledger: SqliteLedger) -> SqliteLedger:
    """20 minutes into a run: 30 shards of German, one a half minute; two of French; one worker silent for 40 s."""
    times = START.isoformat()
    run = RunRow("run-1", "all", 1000, started_at=times, resumed_at=times, heartbeat_s=10)
    ledger.start_run(run, [LanguageTotal("de", 600, 60), LanguageTotal("fr", 400, 40)])
    for index in range(30):
        ledger.record_shard(result(index, "de", 0.5 * (index + 1), worker=f"host-{index % 2}"))
    letter = DeadLetter("vid-9", "fr", "decode", "UndecodableMedia", "evil [red]text[/red] \x1b]0;title\x07 \x1b[2J")
    ledger.record_shard(result(0, "fr", 16, videos_failed=1, dead_letters=(letter,)))
    ledger.record_shard(result(1, "fr", 19))

    def heard(seconds_ago: float) -> str:
        return (NOW - timedelta(seconds=seconds_ago)).isoformat()

    busy = {"videos_processed": 160, "videos_per_minute": 8.0, "segments_per_second": 2.7, "cpu_utilization": 91.0}
    ledger.heartbeat(
        "run-1",
        [
            WorkerRow("host-0", status=WorkerStatus.RUNNING, last_heartbeat=heard(29), **busy),  # type: ignore[arg-type]
            WorkerRow("host-1", status=WorkerStatus.RUNNING, last_heartbeat=heard(40)),
            WorkerRow("host-2", status=WorkerStatus.DONE, last_heartbeat=heard(900)),
            WorkerRow("node-0", Role.DRIVER, status=WorkerStatus.RUNNING, last_heartbeat=heard(31)),
        ],
    )
    return ledger


def text_of(ledger: SqliteLedger, width: int = 160, **arguments: Any) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(terminal.render(ledger, **arguments))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_snapshot_has_the_numbers_that_one_computes_by_hand(filled: SqliteLedger) -> None:
    seen = monitor.take_snapshot(filled, now=NOW)
    totals = seen["totals"]
    assert (totals["processed"], totals["total_videos"], totals["failed"]) == (320, 1000, 1)
    assert (totals["shards_done"], totals["total_shards"]) == (32, 100)
    assert (totals["segments"], totals["kept"], totals["audio_s"]) == (6400, 4800, 32 * 600.0)
    # 20 shards are enough to look at: from minute 6.5 on, 19 finished, 190 videos in 13.5 minutes.
    assert totals["videos_per_minute"] == pytest.approx(190 / 13.5)
    assert totals["segments_per_second"] == pytest.approx(3800 / 13.5 / 60)
    assert totals["times_real_time"] == pytest.approx(19 * 600 / 13.5 / 60)
    assert seen["eta"]["seconds"] == pytest.approx(680 / 190 * 13.5 * 60)
    assert seen["eta"]["low_s"] < seen["eta"]["seconds"] < seen["eta"]["high_s"]
    assert seen["run"]["hours_elapsed"] == pytest.approx(1 / 3)


def test_languages_have_separate_rates_and_etas(filled: SqliteLedger) -> None:
    german, french = monitor.take_snapshot(filled, now=NOW)["languages"]
    assert (german["processed"], german["rate"]) == (300, pytest.approx(170 / 13.5))
    assert (french["processed"], french["rate"]) == (20, pytest.approx(20 / 13.5))
    assert german["eta_s"] == pytest.approx(60 * 300 / (170 / 13.5))
    assert french["eta_s"] == pytest.approx(60 * 380 / (20 / 13.5))


def test_workers_and_drivers_without_three_heartbeats_are_stale(filled: SqliteLedger) -> None:
    seen = monitor.take_snapshot(filled, now=NOW)
    assert {row["worker_id"]: row["stale"] for row in seen["workers"]} == {
        "host-0": False,
        "host-1": True,
        "host-2": False,
    }
    assert [row["stale"] for row in seen["drivers"]] == [True]
    filled.finish_run("run-1", RunStatus.FAILED)
    filled._connection.execute("UPDATE pipeline_runs SET status = 'failed'")
    assert not any(row["stale"] for row in monitor.take_snapshot(filled, now=NOW)["workers"])


def test_a_workers_history_adds_up_to_its_segments_in_the_window(filled: SqliteLedger) -> None:
    histories = {row["worker_id"]: row["history"] for row in monitor.take_snapshot(filled, now=NOW)["workers"]}
    # Of the 19 shards in the window 9 German ones are host-1's; the others, and both French ones, are host-0's.
    assert {name: sum(counts) for name, counts in histories.items()} == {"host-0": 2000, "host-1": 1800, "host-2": 0}


def test_the_snapshot_is_json_without_infinities(filled: SqliteLedger) -> None:
    seen = monitor.take_snapshot(filled, now=NOW)
    assert json.loads(json.dumps(seen, allow_nan=False)) == seen


def test_the_terminal_view_shows_the_snapshot(filled: SqliteLedger) -> None:
    text = text_of(filled, now=NOW)
    for part in ("run-1", "320 of 1,000 videos", "1 failed", "4,800 of 6,400 segments kept", "300/600", "20/400"):
        assert part in text
    assert "14.1 videos/min" in text
    assert "about 48 min to go, until 11:08 UTC (80 % likely: 37 min to " in text
    (stale,) = [line for line in text.splitlines() if "host-1" in line]
    assert "stale" in stale
    assert "40 s ago" in stale
    assert "node-0 (driver)" in text
    assert "UndecodableMedia" in text


def test_problems_are_listed_in_words(filled: SqliteLedger) -> None:
    text = text_of(filled, now=NOW)
    assert "! driver node-0 has been silent for 31 s: if its process is gone, start it again" in text
    assert "! 1 of 2 workers do not answer" in text
    assert "!" not in text_of(filled, now=NOW - timedelta(seconds=20)).replace("! ", "!").split("last errors")[0]


def test_a_run_that_ended_says_when_and_whether_to_start_it_again(filled: SqliteLedger) -> None:
    filled._connection.execute("UPDATE pipeline_runs SET status = 'incomplete', completed_at = ?", (format_utc(NOW),))
    text = text_of(filled, now=NOW + timedelta(days=2))
    assert "ended 10:20 UTC with shards left: start it again to go on" in text
    assert "to go," not in text


def test_rows_of_replaced_drivers_and_old_workers_are_hidden(filled: SqliteLedger) -> None:
    def driver(name: str, partition: int, heard: float, started: float, status: str = "running") -> list[WorkerRow]:
        times = {"last_heartbeat": ago(heard), "started_at": ago(started)}
        of = {"partition_index": partition, "partition_count": 3, "status": WorkerStatus(status)}
        return [WorkerRow(name, Role.DRIVER, **of, **times), WorkerRow(f"{name}/tcp://1.2.3.4:5", **of, **times)]

    def ago(seconds: float) -> str:
        return (NOW - timedelta(seconds=seconds)).isoformat()

    filled._connection.execute("DELETE FROM worker_progress")
    # On partition 1 a driver was killed and started again; on 2 two are at work; that of 0 is long silent.
    for rows in (driver("n1/p1/a", 1, 25, 900), driver("n1/p1/b", 1, 1, 24), driver("n2/p2/a", 2, 2, 900)):
        filled.heartbeat("run-1", rows)
    filled.heartbeat("run-1", driver("n2/p2/b", 2, 3, 500))
    filled.heartbeat("run-1", [WorkerRow("n2/p2/b/spot", last_heartbeat=ago(700), status=WorkerStatus.RUNNING)])
    filled.heartbeat("run-1", driver("n0/p0/a", 0, 2 * 3600, 3 * 3600))
    seen = monitor.take_snapshot(filled, now=NOW)
    past = {row["worker_id"] for row in (*seen["drivers"], *seen["workers"]) if row["past"]}
    assert past == {"n1/p1/a", "n1/p1/a/tcp://1.2.3.4:5", "n0/p0/a/tcp://1.2.3.4:5", "n2/p2/b/spot"}
    stale = {row["worker_id"] for row in (*seen["drivers"], *seen["workers"]) if row["stale"]}
    assert stale == {"n0/p0/a"}, "nobody took its partition"
    lines = text_of(filled, now=NOW).splitlines()
    drivers = {line.split()[0] for line in lines if "(driver)" in line}
    assert drivers == {"n0/p0/a", "n1/p1/b", "n2/p2/a", "n2/p2/b"}
    assert sum("  tcp://1.2.3.4:5" in line for line in lines) == 3
    assert any("not shown: 4 that have left" in line for line in lines)


def test_of_very_many_workers_the_silent_ones_are_shown_first(filled: SqliteLedger) -> None:
    rows = [WorkerRow(f"big/{n:03d}", status=WorkerStatus.RUNNING, last_heartbeat=NOW.isoformat()) for n in range(90)]
    rows[77] = replace(rows[77], last_heartbeat=(NOW - timedelta(seconds=50)).isoformat())
    filled._connection.execute("DELETE FROM worker_progress")
    filled.heartbeat("run-1", rows)
    text = text_of(filled, now=NOW)
    assert "big/077" in text
    assert "not shown: 66 more workers" in text


def test_untrusted_text_is_shown_without_markup_or_escapes(filled: SqliteLedger) -> None:
    text = text_of(filled, now=NOW)
    assert "evil [red]text[/red]" in text
    assert "\x1b" not in text
    assert "\x07" not in text


def test_a_narrow_terminal_still_gets_a_picture(filled: SqliteLedger) -> None:
    lines = text_of(filled, width=60, now=NOW).splitlines()
    assert lines
    assert max(map(len, lines)) <= 60
    assert not any("…" in line for line in text_of(filled, width=80, now=NOW).splitlines())


def test_an_empty_ledger_and_an_empty_run_are_shown_too(ledger: SqliteLedger) -> None:
    assert monitor.take_snapshot(ledger) == {"run": None}
    assert "No run" in text_of(ledger)
    ledger.start_run(RunRow("run-1", "de", 0), [])
    seen = monitor.take_snapshot(ledger)
    assert (seen["totals"]["processed"], seen["totals"]["videos_per_minute"]) == (0, 0)
    assert "0 of 0 videos" in text_of(ledger)
    with pytest.raises(LedgerError, match="no run 'other'"):
        monitor.take_snapshot(ledger, "other")


def test_an_ended_run_has_no_eta_and_its_watcher_stops(filled: SqliteLedger) -> None:
    filled.heartbeat("run-1", [WorkerRow("node-0", Role.DRIVER, status=WorkerStatus.DONE)])
    filled.finish_run("run-1", RunStatus.DONE)
    assert monitor.take_snapshot(filled)["eta"] is None
    console = Console(file=io.StringIO(), width=160)
    terminal.watch(filled, console=console)
    assert isinstance(console.file, io.StringIO)
    assert "incomplete" in console.file.getvalue()


def test_a_watcher_outlives_an_outage_and_keeps_the_last_picture(
    filled: SqliteLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def flaky(*arguments: Any) -> Any:
        looks.append(1)
        if len(looks) == 2:
            raise LedgerError("the server does not answer")
        if len(looks) == 3:
            filled.heartbeat("run-1", [WorkerRow("node-0", Role.DRIVER, status=WorkerStatus.DONE)])
            filled.finish_run("run-1", RunStatus.FAILED)
        return real(*arguments)

    real = monitor.take_snapshot
    monkeypatch.setattr(terminal, "take_snapshot", flaky)
    console = Console(file=io.StringIO(), width=160, force_terminal=True)
    terminal.watch(filled, every_s=0.001, console=console)
    assert isinstance(console.file, io.StringIO)
    before, after = console.file.getvalue().split("the server does not answer")
    assert "320 of 1,000 videos" in before
    assert "failed" in after
    assert len(looks) == 3


def test_every_number_can_be_looked_up_while_the_driver_writes(filled: SqliteLedger) -> None:
    with SqliteLedger(filled.path, create=False) as reader:
        assert monitor.take_snapshot(reader)["totals"]["processed"] == 320
        filled.record_shard(result(5, "fr", 19.5))
        assert monitor.take_snapshot(reader)["totals"]["processed"] == 330
