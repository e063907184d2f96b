"""Count the requests of a small run to a real S3 server, against what the estimate assumes."""

import json
from pathlib import Path

import pytest

from audiopipe.bench import store_scale
from audiopipe.estimation import costs


@pytest.fixture(scope="module")
def result() -> store_scale.StoreResult:
    return store_scale.bench(videos=0, real_videos=6, languages=2, workers=1, latency_ms=2)


@pytest.mark.slow
def test_the_estimate_counts_the_requests_of_a_run(result: store_scale.StoreResult) -> None:
    (run,) = result.runs
    assert (run.times.videos, run.times.videos_failed, run.times.shards) == (6, 0, 2)
    assert {name: run.per_video(name) for name in ("GET", "HEAD", "LIST", "PUT")} == {
        "GET": 1,
        "HEAD": 1,
        "LIST": 0,
        "PUT": 0,
    }
    assert run.per_video("GET") + run.per_video("HEAD") == costs.READS_PER_VIDEO
    assert run.per_shard("GET") + run.per_shard("HEAD") == costs.READS_PER_SHARD
    assert sum(run.per_shard(name) for name in ("PUT", "COPY", "LIST", "MULTIPART")) == costs.WRITES_PER_SHARD
    final = run.requests["finalize"]
    assert final.count("GET", "dataset") + final.count("GET", "_commits") >= 2 * costs.FINAL_READS_PER_SHARD


@pytest.mark.slow
def test_a_driver_with_nothing_to_do_reads_no_shard(result: store_scale.StoreResult, tmp_path: Path) -> None:
    (run,) = result.runs
    resumed = run.requests["resume"]
    assert resumed.count("GET", "dataset") < 10, "the description, and not the tables of the shards"
    assert sum(number for kind, number in resumed.by_kind.items() if kind.split()[0] == "PUT") == 3, "checks only"
    assert run.resumed.peak_mb < 400, "a driver does not import PyTorch"
    markdown, data = store_scale.save(result, tmp_path)
    assert "| second driver, nothing to do: seconds (CPU) |" in markdown.read_text(encoding="utf-8")
    assert json.loads(data.read_text(encoding="utf-8"))["runs"][0]["per_video"] == {"GET": 1.0, "HEAD": 1.0}
