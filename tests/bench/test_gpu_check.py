import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import psutil
import pytest
from waiting import wait_until

from audiopipe.bench import gpu_parts
from audiopipe.bench.gpu_check import PLAN, PlannedPart, run_gpu_check
from audiopipe.bench.inputs import make_speech
from audiopipe.bench.scorer_inputs import make_scores, read_scores

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("AUDIOPIPE_DEMO_CACHE", ROOT / "demo/corpus/cache"))
SCORED_S = (0.57, 0.58)  # segments whose frames repeat are quick to rate
PART = """
import json, subprocess, sys, time
name, audio, out = sys.argv[1:]
def write(is_met):
    row = {"label": "speed", "value": "7", "target": ">= 8", "is_met": is_met}
    open(f"{out}/{name}.json", "w").write(json.dumps([row]))
if name == "good": write(True)
if name == "slow": write(False)
if name == "broken": sys.exit("no such device")
if name == "stuck":
    write(True)
    child = subprocess.Popen(["sleep", "600"])
    open(f"{out}/child", "w").write(str(child.pid))
    time.sleep(600)
"""


def test_the_parts_take_eight_minutes_and_tests_are_one():
    assert sum(part.limit_s for part in PLAN) <= 480
    assert {part.name for part in PLAN} == {*gpu_parts.PARTS, "tests"}


def test_a_part_that_hangs_or_fails_costs_only_itself(tmp_path):
    program, out = tmp_path / "part.py", tmp_path / "out"
    program.write_text(PART)
    plan = [PlannedPart(name, name.title(), limit_s) for name, limit_s in (("broken", 60), ("stuck", 4), ("slow", 60))]
    results = run_gpu_check(tmp_path, out, (sys.executable, str(program)), [*plan, PlannedPart("good", "Good", 60)])
    outcomes = {result.part.name: result.outcome for result in results}
    assert outcomes == {
        "broken": "failed",
        "stuck": "ran out of time",
        "slow": "missed a target",
        "good": "passed",
    }
    assert [row.value for row in results[1].rows] == ["7"], "a part cut short keeps its rows"
    wait_until(lambda: not psutil.pid_exists(int((out / "child").read_text())), "the child of a part is alive")
    report = (out / "report.md").read_text()
    assert "| Slow | missed a target |" in report
    assert "| speed | 7 | >= 8 | missed |" in report
    assert "no such device" in (out / "log.txt").read_text()
    assert len(json.loads((out / "results.json").read_text())) == 4
    assert sorted(path.name for path in out.iterdir()) == ["child", "log.txt", "report.md", "results.json"]


def test_a_machine_without_duckdb_or_extras_has_all_it_imports():
    """Check the wheels for such a machine: they leave out what only the end of a run or an extra needs."""
    script = (ROOT / "cluster/gpu_check.sh").read_text()
    wheels = set(re.search(r"WHEELS=\((.*?)\)", script, re.DOTALL).group(1).split())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = {re.match(r"[\w-]+", requirement).group().lower() for requirement in project["dependencies"]}
    on_the_machine = {"torch", "numpy", "numba", "pandas", "pyarrow", "fsspec"}
    assert base - wheels == on_the_machine | {"duckdb", "bokeh", "silero-vad"}
    assert "silero_vad/data/silero_vad.jit" in script, "a part of this package is brought along, as it is large"
    blocked = {"duckdb", "bokeh", "librosa", "soxr", "pyloudnorm", "imageio_ffmpeg", "papermill", "supabase", "s3fs"}
    blocked |= {"onnxruntime", "speechmos", "requests"}
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
import audiopipe.bench.gpu_parts, audiopipe.bench.gpu_check
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("name", gpu_parts.PARTS)
def test_every_part_runs_on_a_fake_gpu(tmp_path, name):
    make_speech(tmp_path, CACHE, 20.0)
    make_scores(tmp_path, CACHE, SCORED_S)
    command = [sys.executable, ROOT / "tests/rehearse_gpu_part.py", name, tmp_path, tmp_path]
    done = subprocess.run(command, check=False, timeout=280, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads((tmp_path / f"{name}.json").read_text())
    assert rows
    if name in ("parity", "repeat", "memory"):
        assert not [row for row in rows if row["is_met"] is False]


@pytest.mark.slow
def test_rated_segments_are_written_for_a_machine_without_speechmos(tmp_path):
    make_scores(tmp_path, CACHE, SCORED_S)
    rated = read_scores(tmp_path)
    assert [len(segment) for segment in rated.segments] == [9_120, 9_280]
    assert rated.ratings.shape == (2, 4)
    assert 1 < rated.ratings.min() < rated.ratings.max() < 5
