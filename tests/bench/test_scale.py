import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from audiopipe.bench import scale


@pytest.mark.slow
def test_planning_scheduling_and_recording_are_timed(tmp_path: Path) -> None:
    result = scale.bench(2_000, 12, workers=1)
    assert (result.videos, result.ledger) == (2_000, "SQLite")
    assert result.shards == 12 * 3  # 167 videos of each language, 64 a shard
    assert 0 < result.minutes < 2
    assert result.driver_mb > 50
    assert result.database_mb > 0.01
    assert 0 < result.monitor_ms <= result.monitor_median_ms < 5_000
    for path in scale.save(result, tmp_path):
        text = path.read_text()
        assert str(tmp_path) not in text
        assert os.uname().nodename not in text
    assert json.loads((tmp_path / "scale-sqlite.json").read_text())["shards"] == 36
    assert "| snapshot for the monitor, best and median |" in (tmp_path / "scale-sqlite.md").read_text()


def test_a_ledger_that_counts_wrongly_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = SimpleNamespace(totals=SimpleNamespace(processed=9))
    monkeypatch.setattr(scale, "take_snapshot", lambda ledger: snapshot)
    with pytest.raises(RuntimeError, match="counts 9 of 10 videos"):
        scale.bench(10, 2, workers=1)
