"""environment.yml cannot be solved where no conda channel is reached; everything else about it is checked."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import rattler
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
ENVIRONMENT: dict[str, Any] = yaml.safe_load((ROOT / "environment.yml").read_text())
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONDA = [item for item in ENVIRONMENT["dependencies"] if isinstance(item, str)]
PIP: list[str] = next(item["pip"] for item in ENVIRONMENT["dependencies"] if isinstance(item, dict))
PINNED = [Requirement(item) for item in PIP if not item.startswith("--")]
CARD = [
    *("dask", "dask-cuda", "torch", "torchaudio", "numpy", "soundfile", "fsspec"),
    *("supabase", "jupyterlab", "papermill"),
]


def constraints() -> dict[str, str]:
    lines = [line.split("==") for line in (ROOT / "constraints.txt").read_text().split()]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}


@pytest.mark.parametrize("spec", CONDA)
def test_conda_understands_its_specs(spec: str) -> None:
    assert rattler.MatchSpec(spec).name is not None


def test_its_pins_are_pyprojects() -> None:
    wanted = {requirement.name: requirement for requirement in map(Requirement, PROJECT["dependencies"])}
    for pinned in PINNED:
        assert pinned == wanted[pinned.name]


def test_its_python_is_one_that_the_package_accepts() -> None:
    python = next(spec for spec in CONDA if spec.startswith("python "))
    assert PROJECT["requires-python"] in python


def test_pip_would_install_its_pip_section_with_the_constraints(tmp_path: Path) -> None:
    # conda writes these lines to a file beside environment.yml, from where it finds the constraints.
    requirements = tmp_path / "requirements.txt"
    constraints_file = str(ROOT / "constraints.txt")
    requirements.write_text("".join(f"{line}\n" for line in PIP).replace("constraints.txt", constraints_file))
    command = [sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--python", sys.executable, "-r"]
    done = subprocess.run([*command, str(requirements)], check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_dependency_has_a_constraint_and_a_reason() -> None:
    pinned = constraints()
    text = (ROOT / "pyproject.toml").read_text()
    for line in PROJECT["dependencies"]:
        requirement = Requirement(line)
        assert pinned[requirement.name.lower().replace("_", "-")] in requirement.specifier, line
        assert re.search(rf'"{re.escape(line)}",\s+# \w', text), f"{line} does not say why it is there"


@pytest.mark.parametrize("package", CARD)
def test_the_package_is_a_dependency(package: str) -> None:
    assert package in {Requirement(line).name for line in PROJECT["dependencies"]}
