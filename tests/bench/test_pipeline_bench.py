import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from factories import media_file, tones

from audiopipe.bench import pipeline, results
from audiopipe.bench.baselines import METHODS
from audiopipe.bench.inputs import BenchmarkInput, make_inputs
from audiopipe.bench.machine import Machine
from audiopipe.bench.results import BenchmarkResult
from audiopipe.bench.task import Outcome
from audiopipe.estimation import load_rates


@pytest.fixture
def inputs(tmp_path):
    path = media_file(tmp_path / "a.webm", tones(20.0, 48_000, 2), 48_000, "-c:a", "libopus")
    return [BenchmarkInput("A", path, 48_000, 20.0, 2)]


@pytest.mark.slow
def test_every_method_is_measured_and_the_bottleneck_named(tmp_path, inputs, monkeypatch):
    one_core = {min(os.sched_getaffinity(0))}
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: one_core)
    # The command's start-up takes longer than this work.
    methods = [method for method in METHODS if method != results.COMMAND]
    monkeypatch.setattr(pipeline, "METHODS", methods)
    measured = pipeline.run_benchmark(inputs, rounds=1, log=lambda line: None)
    assert [result.method for result in measured] == methods
    with_ffmpeg = {result.method for result in measured if result.program}
    assert with_ffmpeg == {results.DECODE, results.FLOOR, results.FFMPEG}
    for result in measured:
        assert result.audio_s == pytest.approx(20.0 if result.method == results.SEQUENTIAL else 40.0, abs=0.2)
        assert 0 < result.wall_s < 60
        assert result.peak_mb > 100
    (line,) = results.describe_bottleneck(measured)
    assert "The bottleneck is" in line
    for text in ("of the codec floor", "times sequential code on one core", "of ffmpeg's C code", "items waiting"):
        assert text in line
    for path in results.save_results(measured, tmp_path / "reports"):
        text = path.read_text()
        assert str(tmp_path) not in text
        assert os.uname().nodename not in text
    (saved,) = (tmp_path / "reports").glob("pipeline-*.json")
    body = json.loads(saved.read_text())
    assert {row["method"] for row in body["results"]} == set(methods)
    rates = load_rates(tmp_path / "reports")
    audiopipe = next(result for result in measured if result.method == results.AUDIOPIPE)
    assert rates.core_x_without_gpu == pytest.approx(audiopipe.speed, abs=0.1)
    assert rates.assumed == ("core_x_with_gpu", "gpu", "gpu_x")


@pytest.mark.slow
def test_the_command_is_measured_without_its_start(inputs):
    long = replace(inputs[0], videos=90)
    command, pipeline_alone = (pipeline._measure(long, method, 1) for method in (results.COMMAND, results.AUDIOPIPE))
    assert command.audio_s == pipeline_alone.audio_s == pytest.approx(1800.0, abs=1.0)
    assert 0.5 * pipeline_alone.cpu_s < command.cpu_s < 3 * pipeline_alone.cpu_s
    fast, slow = (replace(result, speeds=(1.0,), cpu_speeds=(1.0,)) for result in (command, pipeline_alone))
    floor = replace(slow, method=results.FLOOR)
    (line,) = results.describe_bottleneck([slow, fast, floor])
    assert "of it through the command" in line


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core alone")
@pytest.mark.slow
def test_a_process_with_two_cores_does_the_work_of_two(inputs, monkeypatch):
    monkeypatch.setattr(pipeline, "_process_size", lambda method, cores: (2, 2))
    result = pipeline._measure(inputs[0], results.AUDIOPIPE, 2)
    assert result.audio_s == pytest.approx(80.0, abs=0.2)
    assert result.outcome.segments == 16
    assert 0 < sum(result.outcome.stage_cpu_s.values()) < result.cpu_s / 2


def test_with_a_gpu_our_process_has_the_cores_of_a_worker(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert [pipeline._process_size(method, 8) for method in (results.FLOOR, results.AUDIOPIPE)] == [(1, 1), (4, 2)]
    assert pipeline._process_size(results.COMMAND, 8) == (8, 1)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert pipeline._process_size(results.AUDIOPIPE, 8) == (1, 1)


def test_a_result_counts_videos_and_hours_as_the_estimate_does():
    result = BenchmarkResult("A", "x", 1, audio_s=207 * 5.0 * 2, wall_s=60.0, cpu_s=60.0, peak_mb=1.0, growth_mb=0.0)
    assert result.videos_per_min == pytest.approx(2.0)
    assert result.segments_per_s == pytest.approx(6.9)
    assert result.hours == pytest.approx(500_000 / 2 / 60)


@pytest.mark.parametrize(("method", "speed"), [(results.AUDIOPIPE, 90.0), (results.COMMAND, 30.0)])
def test_noise_that_shortens_a_difference_does_not_count(method, speed):
    rounds = [BenchmarkResult("A", method, 1, 90.0, wall_s, wall_s, 1.0, 0.0) for wall_s in (4.0, 1.0, 3.0)]
    chosen = pipeline._choose_round(rounds)
    assert chosen.speed == speed
    assert chosen.speeds == (22.5, 90.0, 30.0)


def test_gpu_rates_feed_the_estimate_and_two_cores_are_shown_with_one():
    outcome = Outcome(0.0, 0, {"score": 2.0}, {"score": 1.0}, {"decoded": 0.2, "scored": 3.0})
    speeds = [(results.AUDIOPIPE, 1, 500.0), (results.AUDIOPIPE, 2, 970.0), (results.SEQUENTIAL, 1, 100.0)]
    speeds += [(results.FLOOR, 1, 510.0), (results.FLOOR, 2, 1000.0), (results.FFMPEG, 1, 300.0)]
    measured = [
        BenchmarkResult("A", method, n, x * 10.0, 10.0, 10.0 * n, 1.0, 0.0, outcome, (x, x / 2), (x / n, x / n))
        for method, n, x in speeds
    ]
    rates = results.to_rates(measured, Machine("some CPU", 2, "AVX512", "NVIDIA H200", 0.0, "2.11"))
    assert rates.machine == "some CPU, NVIDIA H200"
    assert (rates.core_x_with_gpu, rates.core_x_without_gpu) == (500.0, None)
    assert (rates.gpu, rates.gpu_x) == ("H200", 2425.0)
    one_core, two_cores = results.describe_bottleneck(measured)
    assert "1.67 (in a round 1.67, 1.67 to 1.67; by CPU time 1.67) of ffmpeg's C code" in one_core
    assert "0.2 decoded on average, so that the stage before this queue is slower" in one_core
    assert "1.94 (in a round 1.94, 1.94 to 1.94) times audiopipe on one core" in two_cores
    assert "shares nothing, is 1.96 (in a round 1.96, 1.96 to 1.96) times one core" in two_cores
    assert "9.70 (in a round 9.70, 9.70 to 9.70) times sequential code on one core" in two_cores


def test_inputs_are_long_real_speech_made_once(tmp_path):
    cache = Path(__file__).parents[2] / "demo/corpus/cache"
    first = make_inputs(tmp_path, Path(os.environ.get("AUDIOPIPE_DEMO_CACHE", cache)), minutes=0.5)
    assert [(item.seconds, item.videos, item.path.suffix) for item in first] == [(30.0, 1, ".webm"), (30.0, 1, ".m4a")]
    times = [item.path.stat().st_mtime_ns for item in first]
    second = make_inputs(tmp_path, tmp_path / "no-cache-needed", minutes=0.5)
    assert [item.path.stat().st_mtime_ns for item in second] == times
    assert second == first
