import json
import os
from pathlib import Path

import pytest
from factories import media_file, tones

from audiopipe.bench import inputs as material
from audiopipe.bench import pipeline
from audiopipe.bench import results as readings
from audiopipe.bench.baselines import RIVALS
from audiopipe.estimation import load_rates


@pytest.fixture
def two_materials(tmp_path):
    signal = tones(20.0, 48_000, 2)
    return [
        material.BenchmarkInput(
            "A", media_file(tmp_path / "a.webm", signal, 48_000, "-c:a", "libopus"), 48_000, 20.0, 2
        ),
    ]


def test_every_method_is_measured_and_the_report_names_the_bottleneck(tmp_path, two_materials, monkeypatch):
    monkeypatch.setattr(pipeline, "make", lambda folder, cache, minutes: two_materials)
    one_core = {min(os.sched_getaffinity(0))}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: one_core)
    found = pipeline.bench(tmp_path, tmp_path, 1.0, rounds=1, log=lambda line: None)
    assert [r.name for r in found] == list(RIVALS)
    for reading in found:
        assert reading.audio_s == pytest.approx(20.0 if reading.name == readings.SLOW else 40.0, abs=0.2)
        assert 0 < reading.wall_s < 60
        assert reading.peak_mb > 100
    (words,) = readings.bottleneck(found)
    assert "The bottleneck is" in words
    for told in ("of the codec floor", "times one core of today's way", "of ffmpeg's C pipeline", "items waiting"):
        assert told in words
    for path in readings.save(found, tmp_path / "reports"):
        text = path.read_text()
        assert str(tmp_path) not in text
        assert os.uname().nodename not in text
    (saved,) = (tmp_path / "reports").glob("pipeline-*.json")
    body = json.loads(saved.read_text())
    assert {r["name"] for r in body["readings"]} == set(RIVALS)
    rates = load_rates(tmp_path / "reports")
    ours = next(r for r in found if r.name == readings.OURS)
    assert rates.core_x_without_gpu == pytest.approx(ours.times_real_time, abs=0.1)
    assert rates.assumed == ("core_x_with_gpu", "gpu", "gpu_x")


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core alone")
def test_a_process_with_several_cores_does_the_work_of_as_many(tmp_path, two_materials, monkeypatch):
    monkeypatch.setattr(pipeline, "_process", lambda name: (2, 2))
    reading = pipeline._measure(two_materials[0], readings.OURS, 2)
    assert reading.audio_s == pytest.approx(80.0, abs=0.2)
    assert reading.details["segments"] == 16
    assert 0 < sum(reading.details["stage_cpu_s"].values()) < reading.cpu_s / 2


def test_with_a_gpu_our_process_has_the_cores_of_a_worker(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert [pipeline._process(name) for name in (readings.FLOOR, readings.OURS)] == [(1, 1), (4, 2)]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert pipeline._process(readings.OURS) == (1, 1)


def test_a_reading_counts_videos_and_hours_as_the_plan_does():
    reading = readings.BenchmarkResult(
        "A", "x", 1, audio_s=207 * 5.0 * 2, wall_s=60.0, cpu_s=60.0, peak_mb=1.0, beside_mb=0.0
    )
    assert reading.videos_a_minute == pytest.approx(2.0)
    assert reading.segments_a_second == pytest.approx(6.9)
    assert reading.hours == pytest.approx(500_000 / 2 / 60)


def test_gpu_rates_feed_the_estimate_and_two_cores_are_shown_with_one():
    ours = {"stage_s": {"score": 2.0}, "stage_cpu_s": {"score": 1.0}, "queue_depths": {"decoded": 0.2, "scored": 3.0}}
    ways = [(readings.OURS, 1, 500.0), (readings.OURS, 2, 970.0), (readings.SLOW, 1, 100.0)]
    ways += [(readings.FLOOR, 1, 510.0), (readings.FLOOR, 2, 1000.0), (readings.CS_OWN, 1, 300.0)]
    found = [
        readings.BenchmarkResult("A", name, n, x * 10.0, 10.0, 10.0 * n, 1.0, 0.0, ours, (x, x / 2), (x / n, x / n))
        for name, n, x in ways
    ]
    rates = readings.rates(found, "some CPU, NVIDIA H200", "NVIDIA H200")
    assert (rates["core_x_with_gpu"], rates["core_x_without_gpu"]) == (500.0, None)
    assert (rates["gpu"], rates["gpu_x"]) == ("H200", 2425.0)
    one, two = readings.bottleneck(found)
    assert "1.67 (in a round 1.67, 1.67 to 1.67; by CPU time 1.67) of ffmpeg's C pipeline" in one
    assert "0.2 decoded on average, so that what comes before is the slower" in one
    assert "1.94 (in a round 1.94, 1.94 to 1.94) times one core of its own" in two
    assert "shares nothing, is 1.96 (in a round 1.96, 1.96 to 1.96) times one core" in two
    assert "9.70 (in a round 9.70, 9.70 to 9.70) times one core of today's way" in two


def test_material_is_long_real_speech_made_once(tmp_path):
    cache = Path(__file__).parents[2] / "demo/corpus/cache"
    first = material.make(tmp_path, Path(os.environ.get("AUDIOPIPE_DEMO_CACHE", cache)), minutes=0.5)
    assert [(item.seconds, item.videos, item.path.suffix) for item in first] == [(30.0, 1, ".webm"), (30.0, 1, ".m4a")]
    times = [item.path.stat().st_mtime_ns for item in first]
    again = material.make(tmp_path, tmp_path / "no-cache-needed", minutes=0.5)
    assert [item.path.stat().st_mtime_ns for item in again] == times
    assert material.make(tmp_path, tmp_path, minutes=0.5) == first
