"""Run the commands and the Python of README and guide, on the tiny corpus instead of the demo corpus."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import click
import pytest
from guide import ROOT, SCRIPTS, TEXT, commands, runnable

from audiopipe.cli import main

MAKEFILE = (ROOT / "Makefile").read_text()
CLUSTER_SCRIPTS = "".join(path.read_text() for path in (ROOT / "cluster").glob("*.sh"))
WORKS = ("run", "resume", "retry", "extend")


@pytest.fixture(scope="module")
def replacements(tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Map the paths of the pages to those of this test."""
    folder = tmp_path_factory.mktemp("readme")
    make_recordings(tiny_corpus, folder / "recordings")
    return {
        "s3://videos/catalog.parquet": str(tiny_corpus / "catalog.parquet"),
        "s3://videos/": f"{tiny_corpus}/",
        "s3://bucket/new": str(tiny_corpus),
        "s3://speech/en": str(folder / "bucket"),
        "demo/corpus/catalog.parquet": str(tiny_corpus / "catalog.parquet"),
        "/data/": f"{folder}/",
        "run-2026-11.ipynb": str(folder / "run.ipynb"),
        "en,fr,it": "en",
        "en,fr": "en",
    }


def make_recordings(corpus: Path, folder: Path) -> None:
    """Make a folder of two bare audio files."""
    folder.mkdir()
    good = [video for video in json.loads((corpus / "truth.json").read_text()) if video["good"]]
    for video in good[:2]:
        with tarfile.open(corpus / "videos" / video["language"] / f"{video['id']}.tar") as tar:
            (audio,) = (member for member in tar if member.name.endswith(f".{video['container']}"))
            tar.extract(audio, folder, filter="data")


def replace_all(text: str, replacements: dict[str, str]) -> str:
    for old, new in replacements.items():
        text = text.replace(old, new)
    return text


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a process that imports this package and writes to no cache of the user."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "HF_HOME": str(folder), "HF_HUB_OFFLINE": "1"}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([a-z-]+)", TEXT))))
def test_every_make_target_exists(target: str) -> None:
    assert re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("option", sorted(set(re.findall(r"`--([a-z][a-z-]+)", TEXT)) - {"help"}))
def test_every_option_exists(option: str) -> None:
    leaves = [*main.commands.values(), *main.commands["bench"].commands.values()]
    flags = {flag for command in leaves for item in command.params for flag in item.opts}
    assert f"--{option}" in flags or f"--{option}" in CLUSTER_SCRIPTS


def test_every_command_is_accepted_by_its_parser() -> None:
    lines = [shlex.split(line) for line in commands("sh", "bash") if line.startswith("audiopipe ")]
    assert len(lines) >= 40
    for _, name, *arguments in lines:
        command = main.get_command(click.Context(main), name)
        assert command is not None, name
        if not isinstance(command, click.Group):
            command.make_parser(click.Context(command)).parse_args(arguments)


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_piece_of_python_compiles(script: str) -> None:
    compile(script, "page", "exec")


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"(?<![\w/])(?:audiopipe|cluster|reports)/[\w/.-]+\.\w+", TEXT)))
)
def test_every_file_it_names_exists(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_and_every_piece_of_python_runs(replacements: dict[str, str], tmp_path: Path) -> None:
    items: list[tuple[str, list[str], int]] = []
    for text in runnable():
        words = [] if "\n" in text else shlex.split(text)
        # The corpus has many broken videos; the recordings have none.
        has_failures = words[:1] == ["audiopipe"] and words[1] in WORKS and "/data/recordings" not in words
        body = text if words else replace_all(text, replacements)
        code = 0 if not has_failures else 3 if "--max-failed-share" in words else 5
        items.append((body, [replace_all(word, replacements) for word in words], code))
    command = [sys.executable, str(ROOT / "tests/run_pages.py")]
    done = subprocess.run(
        command,
        input=json.dumps(items),
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(tmp_path),
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


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
