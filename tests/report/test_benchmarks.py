"""The benchmark report: values as saved, targets met or missed, errors for files of other kinds."""

import json
import os
from pathlib import Path

import pytest
from page_text import text_of

from audiopipe.bench import kernels, scale, scorers
from audiopipe.bench import results as bench_results
from audiopipe.bench.gpu import GpuResult
from audiopipe.bench.machine import Machine
from audiopipe.bench.rerun import rerun_benchmark
from audiopipe.bench.task import Outcome
from audiopipe.errors import ConfigError
from audiopipe.report import benchmarks

GPU = [
    GpuResult("(b) pinned host to results on the host, segments/s", "13,107"),
    GpuResult("(b) share of the pinned copy rate", "0.712"),
]
MACHINE = Machine("Some CPU", 2, "AVX512", None, 0.1, "2.11")
OUTCOME = Outcome(1000.0, 200, {"decode": 1.0, "score": 1.0}, {"decode": 1.0, "score": 1.0}, {"decoded": 1.0})


def kernel_row(contender, ms):
    return kernels.KernelResult("integrated_loudness", contender, 10, 48_000, 16, 1, ms, round(ms / 1.5, 2))


def pipeline_result(name, cores, wall_s):
    return bench_results.BenchmarkResult("opus", name, cores, 1000.0, wall_s, wall_s * cores, 400.0, 20.0, OUTCOME)


@pytest.fixture
def results(tmp_path):
    """A folder with one file of each benchmark, written by the benchmarks' own functions."""
    rows = [kernel_row("audiopipe", 1.5), kernel_row("libebur128", 4.5), kernel_row("pyloudnorm", 15.0)]
    kernels.save_results(tmp_path, MACHINE, rows, GPU, [])
    audiopipe = [("audiopipe", 1, 4.0), ("audiopipe", 2, 2.1), ("audiopipe run", 1, 4.0)]
    floor = [("codec floor", 1, 2.0), ("codec floor", 2, 1.0)]
    baselines = [("sequential", 1, 10.0), ("ffmpeg", 1, 5.0)]
    bench_results.save_results([pipeline_result(*row) for row in [*audiopipe, *floor, *baselines]], tmp_path)
    scorer_rows = [("dnsmos", "audiopipe", 800.0, 1.0), ("dnsmos", "speechmos", 2800.0, 3.5)]
    rated = [scorers.ScorerResult(task, name, 30.0, 1, "cpu", *numbers) for task, name, *numbers in scorer_rows]
    scorers.save_results(tmp_path, MACHINE, rated)
    scale.save(scale.ScaleResult("SQLite", 500_000, 12, 7824, 20.0, 8.6, 1333.0, 5.7, 70.0, 60.0), tmp_path)
    return benchmarks.read_results(str(tmp_path))


def test_each_target_is_compared_with_the_measured_value(results):
    text = text_of(benchmarks.targets(results))
    assert "≥ 7.00 times as fast 10.0 times as fast ✓ met" in text
    assert "≥ 1.00 times as fast 3.00 times as fast ✓ met" in text
    assert "≥ 12,000 segments/s 13,107 segments/s ✓ met" in text
    assert "≥ 0.80 of the copy rate 0.71 of the copy rate ✕ missed" in text
    assert "≥ 3.00 times as fast 2.50 times as fast ✕ missed" in text
    assert "≥ 1.20 times as fast 1.25 times as fast ✓ met" in text
    assert "≥ 0.64 of the floor 0.50 of the floor ✕ missed" in text
    assert "≥ 0.95 of linear 0.95 of linear ✓ met" in text
    assert "< 14.4 min 20.0 min ✕ missed" in text
    assert "< 2,000 MB 1,333 MB ✓ met" in text


def test_headline_counts_targets_and_names_the_missed_ones(results):
    text = text_of(benchmarks.headline(results))
    assert "7 / 11 measured targets are met" in text
    assert "6 targets were not measured" in text
    assert "4 targets missed: all metrics and resampling on a GPU, relative to the copy alone;" in text


def test_tables_and_charts_have_the_saved_values(results):
    piece = benchmarks.kernels(results)
    assert "<svg" in piece.markup
    assert "10 s at 48 kHz, batches of 16, 1 thread" in text_of(piece)
    assert "integrated_loudness pyloudnorm 10 s at 48 kHz 16 1 15.000 10.00" in text_of(piece)
    # 1000 s in 4 s are 250 times real time; a segment has 5 s and a video 207 segments.
    assert "opus audiopipe 1 250 50 14.5 575" in text_of(benchmarks.pipeline(results))
    assert "dnsmos speechmos 30 s 1 cpu 2,800.00 0.4 11 3.50" in text_of(benchmarks.scorers(results))
    assert "SQLite 500,000 7,824 20.00 min 1,333 MB 70 ms" in text_of(benchmarks.scale(results))


def test_history_lists_every_file_newest_first(results, tmp_path):
    (oldest,) = tmp_path.glob("scale-*.json")
    os.utime(oldest, (1e9, 1e9))
    text = text_of(benchmarks.history(benchmarks.read_results(str(tmp_path))))
    assert text.index("kernels") < text.index("2001-09-09 01:46 scale")
    assert "LUFS 10.0 times as fast as pyloudnorm" in text
    assert "476 x real time at best" in text


def test_date_in_a_file_overrides_its_modification_time(results, tmp_path):
    (path,) = tmp_path.glob("scale-*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "date": "2025-02-03T04:05:06+00:00"}))
    assert "2025-02-03 04:05 scale" in text_of(benchmarks.history(benchmarks.read_results(str(tmp_path))))


def test_empty_folder_says_which_command_to_run(tmp_path):
    empty = benchmarks.read_results(str(tmp_path))
    views = (benchmarks.headline, benchmarks.targets, benchmarks.kernels, benchmarks.pipeline, benchmarks.scale)
    for view in (*views, benchmarks.history):
        assert view(empty).markup
    assert "audiopipe bench pipeline --save" in text_of(benchmarks.pipeline(empty))
    assert "No target is measured yet" in text_of(benchmarks.headline(empty))


def test_results_of_one_machine_can_be_selected(results, tmp_path):
    assert benchmarks.read_results(str(tmp_path), machine="some cpu").files
    assert not benchmarks.read_results(str(tmp_path), machine="H200").pipeline_files


def test_every_saved_file_of_this_repository_is_read():
    folder = Path(__file__).parents[2] / "reports" / "benchmarks"
    assert {file.benchmark for file in benchmarks.read_results(str(folder)).files} >= {"kernels", "pipeline", "scale"}


def test_other_json_files_are_refused_by_name(tmp_path):
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"other\.json is not a saved benchmark"):
        benchmarks.read_results(str(tmp_path))
    with pytest.raises(ConfigError, match="no such folder"):
        benchmarks.read_results(str(tmp_path / "missing"))


def test_unknown_benchmark_to_rerun_is_refused(tmp_path):
    rerun_benchmark("none", str(tmp_path))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="none, kernels, pipeline, scorers or scale"):
        rerun_benchmark("kernel", str(tmp_path))
