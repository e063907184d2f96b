"""The soak: its judgment of pace and memory, its page, and a short form of it on real servers."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from output_factory import corpus

from audiopipe.bench.soak.checks import Check, check_restarts, check_retired, find_retired
from audiopipe.bench.soak.faults import FaultEvent
from audiopipe.bench.soak.inputs import SoakInput, source_of
from audiopipe.bench.soak.result import SoakResult, measure_growth
from audiopipe.bench.soak.run import SoakSettings, run_soak
from audiopipe.bench.soak.sampler import MemorySeries, Sample, Sampler
from audiopipe.bench.soak.save import save_result
from audiopipe.errors import ConfigError

HOUR = 3600.0


def series(start_mb: float, end_mb: float, until_s: float = HOUR, noise_mb: float = 8.0) -> MemorySeries:
    at_s = np.arange(0.0, until_s, 15.0)
    noise = np.random.default_rng(0).normal(0, noise_mb, len(at_s))
    rss_mb = start_mb + (end_mb - start_mb) * at_s / until_s + noise
    return MemorySeries(at_s.tolist(), rss_mb.tolist())


def soak(last_quarter: float = 1.0, **memory: MemorySeries) -> SoakResult:
    """Make an hour of 60 videos per minute on one core; in the last quarter the pace is `last_quarter` of that."""
    at_s = np.arange(0.0, HOUR + 1, 15.0)
    pace = np.where(at_s > 0.75 * HOUR, last_quarter, 1.0) * 15.0
    videos = np.cumsum(pace).round().astype(int).tolist()
    samples = [Sample(t, count, 0.8 * t, t, 100 + 1.5 * t, 2.0) for t, count in zip(at_s.tolist(), videos, strict=True)]
    return SoakResult(
        machine={"cpu": "x", "cores": "2"},
        minutes=60.0,
        cycle_s=300.0,
        videos=videos[-1],
        shards=videos[-1] // 4,
        is_complete=False,
        window=(0.0, HOUR),
        reference_rate=70.0,
        samples=samples,
        memory={"steady worker": series(900, 905), "S3 server": series(100, 900)} | memory,
        events=[FaultEvent(90.0, "Supabase stops", "Supabase"), FaultEvent(120.0, "disk full", "disk-1")],
        s3_requests=1000,
        s3_faults={"500": 10, "slow": 9},
        retired={"disk-1": "BrokenWorker: scratch folder"},
        omitted=[],
        checks=[Check("nothing lost, nothing twice", True, "3,600 videos")],
    )


def failures(result: SoakResult) -> list[str]:
    return [check.name for check in result.verdicts() if not check.is_met]


def test_a_steady_soak_passes() -> None:
    assert failures(soak()) == []
    assert soak().pace("videos_per_minute") == pytest.approx(1.0, abs=0.02)
    assert [round(quarter["other_cores"], 1) for quarter in soak().quarters()] == [0.5] * 4


def test_a_pace_that_decays_fails() -> None:
    (name,) = failures(soak(last_quarter=0.9))
    assert name.startswith("pace of the last quarter")


def test_a_process_that_grows_fails_and_is_named() -> None:
    result = soak(driver=series(300, 420))
    (name,) = failures(result)
    assert name.startswith("memory of every process flat")
    assert "driver +" in result.verdicts()[-1].detail


def test_a_restarted_worker_has_another_series(tmp_path: Path) -> None:
    sampler = Sampler(dict, lambda name: True, tmp_path / "ledger", 0.0, 1.0)
    labels = [sampler._label("steady worker", pid) for pid in (7, 7, 9, 9)]
    assert labels == ["steady worker", "steady worker", "steady worker #2", "steady worker #2"]
    sampler.memory = {label: MemorySeries() for label in (*labels, "spot-1 worker #2")}
    assert not check_restarts(sampler.restarted(("steady", "slow"))).is_met
    assert check_restarts([]).is_met


def test_a_short_soak_and_a_replaced_worker_are_not_judged() -> None:
    short = replace(soak(0.5, driver=series(300, 900)), window=(0.0, 600.0))
    assert failures(short) == []
    assert not short.is_judged
    assert measure_growth("spot-1 worker", series(100, 900, until_s=HOUR / 2), (0.0, HOUR)) is None


def test_the_page_shows_verdict_and_numbers_survive(tmp_path: Path) -> None:
    result = soak(0.9, **{"spot-1 worker": series(500, 700, until_s=600)})
    page, data = save_result(result, tmp_path)
    text = page.read_text()
    assert "failed 1 checks" in text
    assert "steady worker" in text
    assert text.count("<svg") == 6
    assert SoakResult.from_dict(json.loads(data.read_text())).to_dict() == result.to_dict()


def test_the_catalog_repeats_whole_shards(tmp_path: Path) -> None:
    catalog = corpus(tmp_path / "c", videos=5, missing=False)
    source = SoakInput.of(catalog, shard_videos=2)
    assert source.rows["language"].to_pylist() == ["de", "de", "en", "en"]
    assert source.ids(2) == sorted(source.ids(2))
    assert [source_of(video) for video in source.ids(2)] == ["0000", "0001", "0002", "0003"] * 2
    with pytest.raises(ConfigError, match="no language has 9 finished videos"):
        SoakInput.of(catalog, shard_videos=9)


def test_a_healthy_worker_may_not_be_retired() -> None:
    log = "worker disk-3 is retired: BrokenWorker: full\nworker steady is retired: WorkerFailure: x\n"
    retired = find_retired(log)
    assert retired == {"disk-3": "BrokenWorker: full", "steady": "WorkerFailure: x"}
    assert check_retired({"disk-3": "full"}, ("clock", "disk")).is_met
    assert not check_retired(retired, ("clock", "disk")).is_met


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs node and npm for the Supabase server")
def test_a_short_soak_loses_nothing(tmp_path: Path) -> None:
    catalog = corpus(tmp_path / "c", videos=8, missing=False)
    lines: list[str] = []
    folder = tmp_path / "soak"
    folder.mkdir()
    settings = SoakSettings(minutes=0.3, shard_videos=2, cycle_s=12.0)
    result = run_soak(catalog, folder, settings, lines.append)
    assert failures(result) == []
    assert result.shards > 0
    assert not result.is_complete
    kinds = {event.kind for event in result.events}
    assert {"Supabase stops", "S3 server restarts", "worker killed"} <= kinds
    assert {"driver", "scheduler", "steady worker", "soak"} <= result.memory.keys()
