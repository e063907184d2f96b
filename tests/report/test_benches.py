"""The benchmarks' report reads what the benchmarks save, and says which bars are met."""

import html
import json
import os
import re

import pytest

from audiopipe.bench import kernels, scale
from audiopipe.bench import results as readings
from audiopipe.bench.rerun import measure_again
from audiopipe.errors import ConfigError
from audiopipe.report import benches

GPU = [
    {"what": "(b) pinned host to results on the host, segments/s", "value": "13,107"},
    {"what": "(b) share of the pinned copy rate", "value": "0.712"},
]
MACHINE = {"cpu": "Some CPU", "cores": "2", "gpu": "none", "load": "0.1", "torch": "2.11"}
STAGES = {
    "stage_s": {"decode": 1.0, "score": 1.0},
    "stage_cpu_s": {"decode": 1.0, "score": 1.0},
    "queue_depths": {"decoded": 1},
}


def words(piece):
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<style>.*?</style>|<[^>]+>", " ", piece.markup, flags=re.DOTALL)))


def kernel_row(contender, ms):
    return kernels.Row("integrated_loudness", contender, 10, 48_000, 16, 1, ms, round(ms / 1.5, 2))


def reading(name, cores, wall_s):
    return readings.BenchmarkResult("opus", name, cores, 1000.0, wall_s, wall_s * cores, 400.0, 20.0, STAGES)


@pytest.fixture
def saved(tmp_path):
    """A folder with one file of each bench, written by the benches themselves."""
    rows = [kernel_row("audiopipe", 1.5), kernel_row("libebur128", 4.5), kernel_row("pyloudnorm", 15.0)]
    kernels.save_results(tmp_path, MACHINE, rows, GPU, [])
    ways = [("audiopipe", 1, 4.0), ("audiopipe", 2, 2.1), ("codec floor", 1, 2.0), ("today's sequential way", 1, 10.0)]
    found = [reading(*way) for way in [*ways, ("codec floor", 2, 1.0), ("ffmpeg's C pipeline", 1, 5.0)]]
    readings.save(found, tmp_path)
    scale.save(scale.ScaleReading("SQLite", 500_000, 12, 7824, 20.0, 8.6, 1333.0, 5.7, 70.0, 60.0), tmp_path)
    return benches.read_results(str(tmp_path))


def test_each_bar_is_judged_by_what_was_measured(saved):
    told = words(benches.bars(saved))
    assert "≥ 7.00 times as fast 10.0 times as fast ✓ met" in told
    assert "≥ 1.00 times as fast 3.00 times as fast ✓ met" in told
    assert "≥ 12,000 segments/s 13,107 segments/s ✓ met" in told
    assert "≥ 0.80 of the copy rate 0.71 of the copy rate ✕ missed" in told
    assert "≥ 3.00 times as fast on one core 2.50 times as fast on one core ✕ missed" in told
    assert "≥ 0.95 of linear 0.95 of linear ✓ met" in told
    assert "< 14.4 min 20.0 min ✕ missed" in told
    assert "< 2,000 MB 1,333 MB ✓ met" in told


def test_the_headline_counts_the_bars_and_names_the_missed(saved):
    told = words(benches.headline(saved))
    assert "6 / 9 measured bars are met" in told
    assert "2 bars were not measured" in told
    assert "3 bars missed: the same, of what the bus can copy;" in told


def test_tables_and_pictures_have_what_the_files_have(saved):
    kernels_ = benches.kernels(saved)
    assert "<svg" in kernels_.markup
    assert "integrated_loudness pyloudnorm 10 s at 48 kHz 16 1 15.000 10.00" in words(kernels_)
    # 1000 s in 4 s: 250 times real time, of segments of 5 s, 207 a video
    assert "opus audiopipe 1 250 50 14.5 575" in words(benches.pipeline(saved))
    assert "SQLite 500,000 7,824 20.00 min 1,333 MB 70 ms" in words(benches.scale(saved))


def test_history_lists_every_file_the_newest_first(saved, tmp_path):
    (old,) = tmp_path.glob("scale-*.json")
    os.utime(old, (1e9, 1e9))
    told = words(benches.history(benches.read_results(str(tmp_path))))
    assert told.index("kernels") < told.index("2001-09-09 01:46 scale")
    assert "LUFS 10.0 times as fast as pyloudnorm" in told
    assert "476 x real time at best" in told


def test_the_date_in_a_file_precedes_its_modification_time(saved, tmp_path):
    (path,) = tmp_path.glob("scale-*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "date": "2025-02-03T04:05:06+00:00"}))
    assert "2025-02-03 04:05 scale" in words(benches.history(benches.read_results(str(tmp_path))))


def test_an_empty_folder_names_the_command_to_run(tmp_path):
    empty = benches.read_results(str(tmp_path))
    for view in (benches.headline, benches.bars, benches.kernels, benches.pipeline, benches.scale, benches.history):
        assert view(empty).markup
    assert "audiopipe bench pipeline --save" in words(benches.pipeline(empty))
    assert "Nothing was measured yet" in words(benches.headline(empty))


def test_one_machines_files_can_be_chosen(saved, tmp_path):
    assert benches.read_results(str(tmp_path), machine="some cpu").files
    assert not benches.read_results(str(tmp_path), machine="H200").readings


def test_a_file_that_is_no_benchmark_is_refused_by_name(tmp_path):
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"other\.json is not a saved benchmark"):
        benches.read_results(str(tmp_path))
    with pytest.raises(ConfigError, match="no such folder"):
        benches.read_results(str(tmp_path / "nowhere"))


def test_measuring_again_refuses_what_it_does_not_know(tmp_path):
    measure_again("none", str(tmp_path))
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="none, kernels, pipeline or scale"):
        measure_again("kernel", str(tmp_path))
