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

# It has no `if __name__ == "__main__":`. A worker that imported it would start a cluster itself.
CALL = """
import os
print("process", os.getpid(), flush=True)
import audiopipe

summary = audiopipe.run(catalog={catalog!r}, output={output!r}, device="cpu", workers=1, shards_in_flight=1)
print("exit code", summary.exit_code)
"""


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("script") / "c", videos=1, missing=False)


def test_a_script_without_a_main_guard_runs_a_pipeline(catalog: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(CALL.format(catalog=str(catalog), output=str(tmp_path / "out")))
    done = subprocess.run([sys.executable, str(script)], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, last = done.stdout.splitlines()
    assert first.startswith("process "), "no worker imported the script"
    assert last == "exit code 0"


def test_an_unknown_cluster_profile_is_refused_before_any_work(catalog: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown cluster profile 'slrum': did you mean 'slurm'"):
        run.run(catalog=str(catalog), output=str(tmp_path / "out"), cluster="slrum")
    assert not (tmp_path / "out").exists()


def test_a_run_takes_a_config_or_parameters_but_not_both(catalog: Path, tmp_path: Path) -> None:
    config = RunConfig.of(catalog=str(catalog), output=str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="got a RunConfig and also workers, device: pass either"):
        run.run(config, workers=2, device="cpu")
    with pytest.raises(ConfigError, match="catalog"):
        run.run(output=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
