"""Run the commands and the Python of the README, on the tiny corpus instead of the demo corpus."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from audiopipe.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
MAKEFILE = (ROOT / "Makefile").read_text()
WORKS = [["audiopipe", name] for name in ("run", "resume", "retry", "extend")]


def commands() -> list[str]:
    lines = [line.partition("#")[0].strip() for kind, body in BLOCKS if kind == "sh" for line in body.splitlines()]
    return [line for line in lines if line]


def scripts() -> list[str]:
    """Return the blocks of Python."""
    return [body for kind, body in BLOCKS if kind == "python"]


@pytest.fixture(scope="module")
def replacements(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Map the paths of the README to those of this test."""
    folder = tmp_path_factory.mktemp("readme")
    return {
        "s3://videos/catalog.parquet": str(tiny_corpus / "catalog.parquet"),
        "s3://videos/": f"{tiny_corpus}/",
        "s3://bucket/new": str(tiny_corpus),
        "s3://speech/en": str(folder / "bucket"),
        "/data/strict": str(folder / "strict"),
        "demo/corpus/catalog.parquet": str(tiny_corpus / "catalog.parquet"),
        "/data/notebooks": str(folder / "notebooks"),
        "/data/parquet": str(folder / "parquet"),
        "/data/speech": str(folder / "speech"),
        "run-2026-11.ipynb": str(folder / "run.ipynb"),
        "quality-2026-11.ipynb": str(folder / "quality.ipynb"),
        "en,fr,it": "en",
        "en,fr": "en",
    }


def replace_all(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("target", re.findall(r"`?make ([a-z-]+)", README))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("option", sorted(set(re.findall(r"--([a-z][a-z-]+)", README)) - {"help"}))
def test_every_option_exists(option: str) -> None:
    assert f"--{option}" in {
        flag for command in main.commands.values() for item in command.params for flag in item.opts
    }


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"(?<!/)(?:audiopipe|reports|notebooks)/[\w/.-]+\.\w+", README)))
)
def test_every_file_it_names_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_and_every_piece_of_python_runs(replacements: dict[str, str], tmp_path: Path) -> None:
    bin_folder = Path(sys.executable).parent
    # test_environment.py and test_extras.py check the installation.
    ran = [command for command in commands() if not command.startswith(("make ", "pip "))]
    assert {command.split()[0] for command in ran} == {"papermill", "audiopipe"}
    for command in ran:
        program, *arguments = replace_all(command, replacements).split()
        done = subprocess.run(
            [str(bin_folder / program), *arguments], check=False, capture_output=True, text=True, cwd=ROOT
        )
        # The corpus has many broken videos.
        expected = 5 if command.split()[:2] in WORKS else 0
        assert done.returncode == expected, f"{command}\n{done.stdout}\n{done.stderr}"
    for number, script in enumerate(scripts()):
        file = tmp_path / f"script_{number}.py"
        file.write_text(replace_all(script, replacements))
        done = subprocess.run([sys.executable, str(file)], check=False, capture_output=True, text=True)
        assert done.returncode == 0, f"{script}\n{done.stderr}"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_make_demo_makes_the_reports_that_it_promises(tmp_path: Path) -> None:
    """Run it in a copy of the repository that shares the installed packages and the downloaded speech."""
    for name in ("audiopipe", "notebooks", "reports"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    if (ROOT / "demo/corpus/cache").is_dir():
        (tmp_path / "demo/corpus").mkdir(parents=True)
        (tmp_path / "demo/corpus/cache").symlink_to(ROOT / "demo/corpus/cache")
    command = ["make", "--assume-old=.venv/.ready", "demo"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    for name in ("run", "progress", "quality"):
        assert (tmp_path / f"demo/reports/{name}.html").stat().st_size > 10_000
    assert "demo/reports/index.html" in done.stdout
    index = (tmp_path / "demo/reports/index.html").read_text()
    assert "3 reports of 1 run" in index
    assert "30 videos, 12 bad ones" in done.stdout
    assert "IPKernelApp" not in done.stderr
