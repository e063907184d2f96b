"""Commands that need no audio start without PyTorch and Dask, whose imports take seconds."""

import subprocess
import sys
from pathlib import Path

import pytest

# Run the command in a process that cannot import what the first argument lists.
LIGHT = """
import sys
heavy = sys.argv.pop(1).split(",")
class Heavy:
    def find_spec(self, name, path=None, target=None):
        if name in heavy:
            raise RuntimeError(f"{name} is imported")
sys.meta_path.insert(0, Heavy())
from audiopipe.cli import main
main()
"""
HEAVY = "torch,dask,distributed"
TABLES = f"{HEAVY},numpy,pandas,pyarrow,duckdb,fsspec,matplotlib,IPython"


def test_the_command_runs_without_its_script_on_the_path() -> None:
    command = [sys.executable, "-m", "audiopipe", "explain", "dead letter"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "failed permanently" in done.stdout


def start(heavy: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where `heavy` packages cannot be imported."""
    command = [sys.executable, "-P", "-c", LIGHT, heavy, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["explain"], ["explain", "snr_db"], ["statu"]])
def test_help_and_glossary_import_nothing_heavy(arguments: list[str]) -> None:
    done = start(TABLES, *arguments)
    assert done.returncode == (2 if arguments == ["statu"] else 0), done.stderr


def test_a_wrong_catalog_is_named_before_heavy_imports(tmp_path: Path) -> None:
    catalog = tmp_path / "videos.csv"
    catalog.write_text("youtube_id,language,status,r2_tar_key\na,en,COMPLETED,a.tar\n", encoding="utf-8")
    for arguments, text in (
        (["--catalog", str(tmp_path / "nope.parquet")], "nope.parquet cannot be read"),
        (["--catalog", str(catalog), "--language", "enn"], "did you mean 'en'?"),
        (["--catalog", str(catalog), "--cluster", "slrum"], "did you mean 'slurm'?"),
    ):
        done = start(f"{HEAVY},duckdb", "run", "--output", str(tmp_path / "out"), *arguments)
        assert (done.returncode, text in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["resume", "retry", "extend", "select", "annotate", "verify", "gc", "export"])
def test_a_missing_output_is_named_before_heavy_imports(command: str, tmp_path: Path) -> None:
    output = str(tmp_path / "nowhere")
    rest = {"select": [f"{output}-2"], "annotate": ["--list"], "export": [f"{output}-2"]}
    done = start(HEAVY, command, output, *rest.get(command, []))
    assert (done.returncode, "has no _run.json" in done.stderr) == (1, True), done.stderr
