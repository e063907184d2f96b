"""Call the driver from a script, as a user does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from output_factory import corpus

from audiopipe.config import RunConfig
from audiopipe.driver import run
from audiopipe.errors import ConfigError

CALL = """
from audiopipe.driver.run import run

{guard}
    summary = run(catalog={catalog!r}, output={output!r}, device="cpu", workers=1, shards_in_flight=1)
    print("exit code", summary.exit_code)
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("script") / "c", videos=1, missing=False)


def execute(catalog: Path, folder: Path, guard: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(CALL.format(guard=guard, catalog=str(catalog), output=str(folder / "out")))
    return subprocess.run([sys.executable, str(script)], check=False, capture_output=True, text=True, timeout=120)


def test_a_guarded_script_runs_a_pipeline(catalog: Path, tmp_path: Path) -> None:
    done = execute(catalog, tmp_path, 'if __name__ == "__main__":')
    assert done.returncode == 0, done.stderr
    assert done.stdout == "exit code 0\n"


def test_a_script_without_a_main_guard_fails_with_the_remedy(catalog: Path, tmp_path: Path) -> None:
    done = execute(catalog, tmp_path, "if True:")
    assert done.returncode == 1
    assert "ConfigError: a worker process ran into this call while it imported your script" in done.stderr
    assert 'put the call under if __name__ == "__main__":' in done.stderr.splitlines()[-1]
    assert not list((tmp_path / "out").glob("_commits/*"))


def test_a_run_takes_a_config_or_parameters_but_not_both(catalog: Path, tmp_path: Path) -> None:
    config = RunConfig.of(catalog=str(catalog), output=str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="got a RunConfig and also workers, device: pass either"):
        run.run(config, workers=2, device="cpu")
    with pytest.raises(ConfigError, match="catalog"):
        run.run(output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
