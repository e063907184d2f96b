import json
import os
from pathlib import Path

import pytest
from making import media_file, tones

from audiopipe.bench import material, pipeline, readings
from audiopipe.bench.rivals import RIVALS


@pytest.fixture
def two_materials(tmp_path):
    signal = tones(20.0, 48_000, 2)
    return [
        material.Material("A", media_file(tmp_path / "a.webm", signal, 48_000, "-c:a", "libopus"), 48_000, 20.0, 2),
    ]


def test_every_way_is_measured_and_the_report_says_what_holds_ours_back(tmp_path, two_materials, monkeypatch):
    monkeypatch.setattr(pipeline, "make", lambda folder, cache, minutes: two_materials)
    one_core = {min(os.sched_getaffinity(0))}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: one_core)
    found = pipeline.bench(tmp_path, tmp_path, 1.0, rounds=1, say=lambda line: None)
    assert [r.name for r in found] == list(RIVALS)
    for reading in found:
        assert reading.audio_s == pytest.approx(20.0 if reading.name == readings.SLOW else 40.0, abs=0.2)
        assert 0 < reading.wall_s < 60
        assert reading.peak_mb > 100
    (words,) = readings.bottleneck(found)
    assert "The bottleneck is" in words
    assert "of the codec floor" in words
    for path in readings.save(found, tmp_path / "reports"):
        text = path.read_text()
        assert str(tmp_path) not in text
        assert os.uname().nodename not in text
    body = json.loads((tmp_path / "reports/pipeline-cpu.json").read_text())
    assert {r["name"] for r in body["readings"]} == set(RIVALS)


def test_a_reading_counts_videos_and_hours_as_the_plan_does():
    reading = readings.Reading("A", "x", 1, audio_s=207 * 5.0 * 2, wall_s=60.0, cpu_s=60.0, peak_mb=1.0, beside_mb=0.0)
    assert reading.videos_a_minute == pytest.approx(2.0)
    assert reading.segments_a_second == pytest.approx(6.9)
    assert reading.hours == pytest.approx(500_000 / 2 / 60)


def test_material_is_long_real_speech_made_once(tmp_path):
    cache = Path(__file__).parents[1] / "demo/corpus/cache"
    first = material.make(tmp_path, Path(os.environ.get("AUDIOPIPE_DEMO_CACHE", cache)), minutes=0.5)
    assert [(item.seconds, item.videos, item.path.suffix) for item in first] == [(30.0, 1, ".webm"), (30.0, 1, ".m4a")]
    times = [item.path.stat().st_mtime_ns for item in first]
    again = material.make(tmp_path, tmp_path / "no-cache-needed", minutes=0.5)
    assert [item.path.stat().st_mtime_ns for item in again] == times
    assert material.make(tmp_path, tmp_path, minutes=0.5) == first
