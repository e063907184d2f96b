"""The scorer of the guide as a package: built, installed, run on Dask workers, and read wherever columns show."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import duckdb
import pytest
from factories import config, shard_of, wav_video

from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.verify import verify
from audiopipe.errors import ScorerError
from audiopipe.pipeline.quarantine import process_isolated
from audiopipe.report.dataset_tables import read_tables
from audiopipe.report.distributions import metrics
from audiopipe.report.quality import drops

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "notebooks/guide/scorers.md").read_text()
CONDITION = "pause_ratio < 0.2"

pytestmark = pytest.mark.slow


def build_wheel(folder: Path) -> Path:
    """Build a wheel of the two files that the guide shows."""
    project = tomllib.loads(re.search(r"```toml\n(# pyproject.toml\n.*?)```", PAGE, re.DOTALL)[1])
    module = re.search(r"```python\n(# pauses.py\n.*?)```", PAGE, re.DOTALL)[1]
    name, version = project["project"]["name"].replace("-", "_"), project["project"]["version"]
    ((group, points),) = project["project"]["entry-points"].items()
    info = f"{name}-{version}.dist-info"
    files = {
        "pauses.py": module,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items()),
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Install the wheel into a folder, from which only tests of this module import."""
    folder = tmp_path_factory.mktemp("own")
    target = folder / "packages"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", str(target)]
    subprocess.run([*command, str(build_wheel(folder))], check=True)
    return target


def audiopipe(packages: Path, folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{packages}"}
    command = [sys.executable, "-P", "-m", "audiopipe.cli", *map(str, arguments)]
    return subprocess.run(command, check=False, env=environment, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def output(packages, tiny_corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    fixed = ["--catalog", tiny_corpus / "catalog.parquet", "--output", folder / "out", "--workers", 2, "--quiet"]
    chosen = ["--scorers", "signal,pauses", "--keep-if", CONDITION, "--shard-videos", 3]
    result = audiopipe(packages, folder, "run", *fixed, *chosen)
    assert result.returncode in (0, 5), result.stderr  # the corpus has many bad videos
    return folder / "out"


def test_tables_and_sidecars_have_the_column(output):
    rows = duckdb.sql(f"SELECT key, kept, drop_reason, pause_ratio FROM '{output}/*/segments_*.parquet'").fetchall()
    dropped = [row for row in rows if row[2] == CONDITION]
    assert dropped
    assert all(row[3] >= 0.2 for row in dropped)
    kept = {row[0]: row[3] for row in rows if row[1]}
    assert all(value is None or value < 0.2 for value in kept.values())
    bodies = {}
    for path in output.glob("*/audio_*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".json"):
                    body = json.load(tar.extractfile(member))
                    bodies[body["key"]] = body["pause_ratio"]
    assert bodies == {key: pytest.approx(value, rel=1e-5) for key, value in kept.items()}


def test_card_dataset_and_record_describe_the_column(output):
    description = "share of frames of 20 ms below -50 dBFS"
    assert f"| `pause_ratio` | pauses 1 | 1 | {description} |" in (output / "README.md").read_text()
    assert "    - name: pause_ratio\n      dtype: float64" in (output / "README.md").read_text()
    described = json.loads((output / "dataset.json").read_text())
    assert described["scorers"][1]["columns"][0]["description"] == description
    assert described["config"]["scorers"] == "signal-1,pauses-1"
    dataset = Dataset(str(output))
    assert dataset.score_columns[-1].name == "pause_ratio"
    segment = next(iter(dataset.filter("pause_ratio IS NOT NULL")))
    assert 0 <= segment.metrics["pause_ratio"] < 0.2
    assert verify(str(output)).findings == ()


def test_the_quality_report_draws_the_column(output):
    tables = read_tables(str(output))
    markup = metrics(tables).markup
    assert "pause ratio" in markup
    assert "share of frames of 20 ms below -50 dBFS" in markup
    assert "a part of keep_if is false" in drops(tables).markup


def test_explain_knows_scorer_and_column(packages, output):
    column = audiopipe(packages, output.parent, "explain", "pause_ratio")
    assert "share of frames of 20 ms below -50 dBFS; unit 1" in column.stdout
    assert "scorer: pauses 1" in column.stdout
    assert "pause_ratio" in audiopipe(packages, output.parent, "explain", "pauses").stdout


def test_other_scorers_and_absent_ones_are_refused(packages, output, tiny_corpus, tmp_path):
    fixed = ["run", "--catalog", tiny_corpus / "catalog.parquet", "--output", output, "--quiet", "--shard-videos", 3]
    other = audiopipe(packages, tmp_path, *fixed, "--keep-if", "snr_db > 3")
    assert other.returncode == 2
    assert "scorers: signal-1,pauses-1 there, signal-1 here" in other.stderr
    absent = audiopipe(tmp_path, tmp_path, *fixed, "--scorers", "signal,pauses", "--keep-if", CONDITION)
    assert absent.returncode == 2
    assert "unknown scorer 'pauses'" in absent.stderr


CRASHING = """
import os, signal
from audiopipe.scorers.scorer import Column, Scorer

class Pauses(Scorer):
    name, version, columns = "pauses", "1", (Column("pause_ratio", "float", "1", "none"),)

    def score(self, batch):
        os.kill(os.getpid(), signal.SIGSEGV)
"""


def test_a_scorer_that_crashes_makes_no_dead_letter(packages, tmp_path, monkeypatch):
    copy = tmp_path / "packages"
    shutil.copytree(packages, copy)
    (copy / "pauses.py").write_text(CRASHING)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{copy}")
    monkeypatch.syspath_prepend(copy)
    run = config(output=str(tmp_path / "out"), scratch=str(tmp_path), scorers="signal,pauses")
    with pytest.raises(
        ScorerError, match=r"a scorer of pauses ends its process at .*: the process ended with signal 11"
    ):
        process_isolated(shard_of([wav_video(tmp_path, "v", 5.0)]), run, "run")
    assert not (tmp_path / "out").exists()
