"""Check that a base installation suffices for a run, and that a missing extra is one line that names it.

Packages are hidden from a subprocess and its children by a `sitecustomize` module whose finder raises
ModuleNotFoundError, as an import does where a package is not installed.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
AUDIOPIPE = [sys.executable, "-m", "audiopipe.cli"]
HIDE = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {hidden!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(requirements: list[str]) -> set[str]:
    """Return the names of the distributions that requirements bring, with all that those need in turn."""
    names: set[str] = set()
    pending = [Requirement(line) for line in requirements]
    while pending:
        requirement = pending.pop()
        name = normalized(requirement.name)
        if name in names and not requirement.extras:
            continue
        names.add(name)
        try:
            lines = requires(requirement.name) or []
        except PackageNotFoundError:
            continue
        for line in map(Requirement, lines):
            extras = requirement.extras or {""}
            if line.marker is None or any(line.marker.evaluate({"extra": extra}) for extra in extras):
                pending.append(line)
    return names


def modules_beyond(requirements: list[str]) -> set[str]:
    """Return the top-level modules of this environment that the requirements do not bring."""
    base = distributions([*requirements, "audiopipe-itself"]) | {"audiopipe", "pip", "setuptools"}
    return {
        module
        for module, names in packages_distributions().items()
        if not base & {normalized(name) for name in names} and module != "_virtualenv"
    }


def run_hidden(command: list[str], hidden: set[str], folder: Path) -> subprocess.CompletedProcess[str]:
    (folder / "site").mkdir(exist_ok=True)
    (folder / "site/sitecustomize.py").write_text(HIDE.format(hidden=hidden))
    paths = [str(folder / "site"), str(ROOT)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "COLUMNS": "200"}
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=folder, env=environment)


def test_kernels_import_with_torch_and_numpy_alone(tmp_path: Path) -> None:
    hidden = modules_beyond(["torch", "numpy"])
    assert {"pydantic", "pyarrow", "dask", "av"} <= hidden
    done = run_hidden([sys.executable, "-c", "from audiopipe import kernels; print(kernels.measure)"], hidden, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_base_installation_runs_monitors_and_verifies(tmp_path: Path) -> None:
    hidden = modules_beyond(PROJECT["dependencies"])
    assert {"s3fs", "botocore", "supabase", "matplotlib", "IPython", "dask_cuda", "papermill"} <= hidden
    rng = np.random.default_rng(0)
    (tmp_path / "en").mkdir()
    for name in ("a", "b"):
        sf.write(tmp_path / f"en/{name}.wav", rng.normal(0, 0.1, 16_000 * 6), 16_000)
    job = ["run", "--catalog", str(tmp_path / "en"), "--output", "out", "--segments", "fixed", "--workers", "1"]
    done = run_hidden([*AUDIOPIPE, *job, "--min-snr-db", "none", "--device", "cpu", "--json"], hidden, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["videos"] == 2
    for command in (["monitor", "out", "--once"], ["verify", "out"], ["explain"], ["estimate"], ["notebooks", "mine"]):
        done = run_hidden([*AUDIOPIPE, *command], hidden, tmp_path)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        assert done.stdout


CATALOG = ["run", "--output", "out", "--catalog"]


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        ([*CATALOG, "s3://videos/catalog.parquet"], "s3fs", "s3"),
        ([*CATALOG, "https://example.org/catalog.parquet"], "aiohttp", "http"),
        ([*CATALOG, "supabase://videos"], "supabase", "supabase"),
        (["monitor", "--ledger", "supabase://"], "supabase", "supabase"),
        (["html", "run.ipynb", "run.html"], "nbformat", "notebooks"),
        (["bench", "kernels", "--quick"], "pyloudnorm", "bench"),
    ],
)
def test_a_missing_extra_is_one_line(command: list[str], package: str, extra: str, tmp_path: Path) -> None:
    (tmp_path / "run.ipynb").write_text("{}")
    done = run_hidden([*AUDIOPIPE, *command], {package}, tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(rf"MissingExtra: .+ needs the package {package}: pip install 'audiopipe\[{extra}\]'", line)


@pytest.mark.parametrize(
    ("code", "package", "extra"),
    [
        ("from audiopipe.report.figure import draw; draw(print)", "matplotlib", "notebooks"),
        ("import audiopipe.report.notebook", "IPython", "notebooks"),
        ("import audiopipe.report.notebook.session", "IPython", "notebooks"),
        (
            "from audiopipe.scorers.text_language import TextLanguageIdentifier; TextLanguageIdentifier()",
            *("py3langid", "transcript"),
        ),
        ("from audiopipe.bench.corpus.media import find_ffmpeg; find_ffmpeg()", "imageio_ffmpeg", "bench"),
        ("from audiopipe.cluster.connect import connect; connect('slurm', tls=False)", "dask_jobqueue", "slurm"),
        ("from audiopipe.dataset.convert import to_lhotse; to_lhotse(None)", "lhotse", "loaders"),
        ("from audiopipe.dataset.convert import to_huggingface; to_huggingface(None, [], None)", "datasets", "loaders"),
    ],
)
def test_a_missing_extra_raises_an_error_that_names_it(code: str, package: str, extra: str, tmp_path: Path) -> None:
    done = run_hidden([sys.executable, "-c", code], {package}, tmp_path)
    assert "MissingExtra: " in done.stderr
    assert done.stderr.rstrip().endswith(f"needs the package {package}: pip install 'audiopipe[{extra}]'")


def test_all_names_every_extra_and_dev_includes_all() -> None:
    extras = PROJECT["optional-dependencies"]
    (line,) = extras["all"]
    assert Requirement(line).extras == set(extras) - {"all", "dev", "docs"}
    assert {"audiopipe[all]", "audiopipe[docs]"} <= set(extras["dev"])
