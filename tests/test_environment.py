"""Check pyproject.toml, constraints.txt, environment.yml and the wheel against each other.

environment.yml cannot be solved where no conda channel is reachable; everything else about it is checked.
"""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import rattler
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT: dict[str, Any] = tomllib.loads(PYPROJECT)["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
ENVIRONMENT: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text())
CONDA = [item for item in ENVIRONMENT["dependencies"] if isinstance(item, str)]
PIP: list[str] = next(item["pip"] for item in ENVIRONMENT["dependencies"] if isinstance(item, dict))
PINNED = [Requirement(item) for item in PIP if not item.startswith("--")]
# All but what only developers need: what `pip install 'audiopipe[all]'` brings.
DEPENDENCIES = [
    line
    for lines in (PROJECT["dependencies"], *(lines for name, lines in EXTRAS.items() if name != "dev"))
    for line in lines
    if not line.startswith("audiopipe[")
]
CARD = [
    *("dask", "dask-cuda", "torch", "torchaudio", "numpy", "soundfile", "fsspec"),
    *("supabase", "jupyterlab", "papermill"),
]


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def constraints() -> dict[str, str]:
    lines = [line.split("==") for line in (ROOT / "constraints.txt").read_text().split()]
    return {normalized(name): version for name, version in lines}


@pytest.mark.parametrize("spec", CONDA)
def test_conda_understands_the_spec(spec: str) -> None:
    assert rattler.MatchSpec(spec).name is not None


def test_environment_pins_equal_pyprojects() -> None:
    wanted = {requirement.name: requirement for requirement in map(Requirement, DEPENDENCIES)}
    for pinned in PINNED:
        assert pinned == wanted[pinned.name]


def test_environment_installs_all_extras() -> None:
    assert "--editable .[all]" in PIP


def test_its_python_is_accepted_by_the_package() -> None:
    python = next(spec for spec in CONDA if spec.startswith("python "))
    assert PROJECT["requires-python"] in python


def test_its_pip_section_installs_with_the_constraints(tmp_path: Path) -> None:
    # conda writes these lines to a file next to environment.yml, from where it finds the constraints.
    requirements = tmp_path / "requirements.txt"
    constraints_file = str(ROOT / "constraints.txt")
    requirements.write_text("".join(f"{line}\n" for line in PIP).replace("constraints.txt", constraints_file))
    command = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--python", sys.executable, "-r"]
    done = subprocess.run([*command, str(requirements)], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("line", DEPENDENCIES)
def test_a_dependency_has_a_constraint_and_a_reason(line: str) -> None:
    requirement = Requirement(line)
    assert constraints()[normalized(requirement.name)] in requirement.specifier
    assert re.search(rf'"{re.escape(line)}",\s+# \w', PYPROJECT), f"pyproject.toml does not say why {line} is there"


@pytest.mark.parametrize("package", CARD)
def test_the_card_package_is_a_dependency(package: str) -> None:
    assert package in {Requirement(line).name for line in DEPENDENCIES}


def test_the_wheel_has_all_data_files(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("audiopipe", "cluster", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    build = "from setuptools.build_meta import build_wheel; build_wheel('wheels')"
    (tmp_path / "wheels").mkdir()
    subprocess.run([sys.executable, "-c", build], check=True, cwd=tmp_path, capture_output=True)
    (wheel,) = (tmp_path / "wheels").glob("audiopipe-*.whl")
    packaged = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "audiopipe"
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    files += (package / "notebooks").glob("*.ipynb")  # rglob does not follow links to folders
    assert {f"audiopipe/{path.relative_to(package)}" for path in files} <= packaged
