"""A canary in the addresses of a catalog's rows and in the environment is in no file, log, notebook or output."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from factories import inject_decoder_code
from private_server import CANARY, files_with_canary, private_catalog, private_server

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SECRETS = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "SUPABASE_SERVICE_KEY", "GITHUB_TOKEN", "HF_TOKEN")
PARAMETERS = {"cluster": "local-cpu", "workers": "1", "device": "cpu", "max_failed_share": "1", "retries": "0"}


def test_a_canary_in_every_place_shows_nowhere(tmp_path: Path) -> None:
    results = tmp_path / "results"
    for folder in ("home", "state", "tmp"):
        (results / folder).mkdir(parents=True)
    crash = inject_decoder_code(
        tmp_path / "crash", "os.write(stderr, repr(dict(os.environ)).encode())\nos.kill(os.getpid(), signal.SIGSEGV)"
    )
    folders = {"HOME": "home", "XDG_STATE_HOME": "state", "TMPDIR": "tmp"}
    environment = {**os.environ, **dict.fromkeys(SECRETS, CANARY)}
    environment |= {name: str(results / folder) for name, folder in folders.items()}

    def execute(name: str, *command: str, **more: str) -> int:
        with (results / f"{name}.log").open("wb") as log:
            done = subprocess.run(
                [str(BIN / command[0]), *command[1:]],
                check=False, stdout=log, stderr=log, env=environment | more, cwd=ROOT, timeout=300,
            )  # fmt: skip
        return done.returncode

    with private_server(tmp_path / "source") as host:
        catalog = private_catalog(tmp_path / "source", host)
        options = [part for name, value in PARAMETERS.items() for part in (f"--{name.replace('_', '-')}", value)]
        run = ["audiopipe", "--verbose", "run", "--catalog", str(catalog), *options]
        assert execute("run", *run, "--output", str(results / "out")) == 3
        assert execute("crash", *run, "--output", str(results / "crashed"), **crash) in (3, 4)
        # Every kind of failure of a place: a wrong password, and a server that is gone.
        wrong = private_catalog(tmp_path / "wrong", host, CANARY[::-1] + "canary7f3a9c51")
        assert execute("refused", *run[:4], str(wrong), *options, "--output", str(results / "refused")) in (2, 3, 4)
        values = {"catalog": str(catalog), "output": str(results / "notebook"), **PARAMETERS}
        parameters = [part for name, value in values.items() for part in ("-p", name, value)]
        notebook = [str(ROOT / "notebooks/run.ipynb"), str(results / "run.ipynb")]
        assert execute("papermill", "papermill", "--no-progress-bar", *notebook, *parameters) == 0
        assert execute("export", "audiopipe", "html", str(results / "run.ipynb"), str(results / "run.html")) == 0
    assert execute("gone", *run, "--output", str(results / "gone")) in (2, 3, 4)
    for command in (["verify"], ["monitor", "--once"]):
        execute(command[0], "audiopipe", "--verbose", *command, str(results / "out"))
    assert len(list(results.rglob("*"))) > 50
    assert {name: len(body) for name, body in files_with_canary(results).items()} == {}
    assert not [path for path in results.rglob("*.log") if b"canary7f3a9c51" in path.read_bytes()]
