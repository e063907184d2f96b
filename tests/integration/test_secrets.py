"""Check that neither the messages nor the files of failing runs show the keys of the environment."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from factories import inject_decoder_code
from output_factory import RUN_ID, corpus
from s3_server import BUCKET, S3Server, faulty_proxy, s3_server  # noqa: F401 - the fixture

from audiopipe.media.access import clear_cache
from audiopipe.store.objects import Store

BIN = Path(sys.executable).parent
# Characters that base64 and percent-encoding change.
CANARY = "canary/+=?secret&7f3a9c51"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def forms(secret: str) -> dict[str, bytes]:
    """Encode a secret as it may be written: plain, percent-encoded, in base64 at each of its three offsets."""
    encodings = {"plain": secret.encode(), "quoted": quote(secret, safe="").encode(), "path": quote(secret).encode()}
    encodings |= {"json": secret.replace("/", "\\/").encode(), "repr": secret.encode("unicode_escape")}
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + secret.encode())
        # Without the characters that also encode its neighbors.
        encodings[f"base64+{shift}"] = encoded[4 if shift else 0 :].rstrip(b"=")[:-1]
    return encodings


def forms_in(secret: str, text: bytes) -> list[str]:
    """Name the forms of a secret that a text contains."""
    return [form for form, data in forms(secret).items() if data in text]


def test_the_canary_is_found_in_every_form() -> None:
    for shift in range(3):
        assert forms_in(CANARY, base64.b64encode(b"x" * (shift + 3) + CANARY.encode() + b"more"))
    assert forms_in(CANARY, f"https://host/?key={quote(CANARY, safe='')}".encode()) == ["quoted"]
    assert forms_in(CANARY, f"key={CANARY}".encode())
    assert forms_in(CANARY, b"canary") == []


@pytest.fixture
def s3(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, str]]:  # noqa: F811
    """Upload a catalog to a bucket; return its top URL and an environment with its keys and canaries for the rest."""
    from s3fs import S3FileSystem

    environment = s3_server.environment()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()
    clear_cache()
    top = f"s3://{BUCKET}/secrets"
    catalog = corpus(tmp_path / "c", videos=2)
    for path in catalog.parent.rglob("*"):
        if path.is_file():
            Store(top).upload(path, f"corpus/{path.relative_to(catalog.parent)}")
    canaries = {"SUPABASE_SERVICE_KEY": CANARY, "SUPABASE_URL": "http://127.0.0.1:9", "AWS_SESSION_TOKEN": ""}
    # Files that a run leaves outside its output go here.
    folders = {
        "XDG_STATE_HOME": str(tmp_path / "state"),
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
    }
    (tmp_path / "tmp").mkdir()
    return top, {**os.environ, **environment, **canaries, **folders}


def run(top: str, folder: Path, environment: dict[str, str], *more: str) -> tuple[int, bytes]:
    """Run the command with verbose output; return its exit code and the output of all runs in `folder`."""
    job = ["--catalog", f"{top}/corpus/catalog.parquet", "--output", f"{top}/out", "--workers", "1", "--run-id", RUN_ID]
    job += ["--min-snr-db", "none", "--device", "cpu", "--retries", "0", "--max-failed-share", "1", *more]
    with (folder / "output").open("ab") as log:
        command = [str(BIN / "audiopipe"), "--verbose", "run", *job]
        code = subprocess.run(command, check=False, stdout=log, stderr=log, env=environment, timeout=250).returncode
    return code, (folder / "output").read_bytes()


PRINT_ENVIRONMENT = "os.write(stderr, repr(dict(os.environ)).encode())"


def test_no_failure_shows_a_key_in_messages_or_files(
    s3_server: S3Server,  # noqa: F811
    s3: tuple[str, dict[str, str]],
    tmp_path: Path,
) -> None:
    top, environment = s3
    wrong = {"AWS_SECRET_ACCESS_KEY": CANARY}
    assert run(top, tmp_path, environment | wrong)[0] == 2
    assert run(top, tmp_path, environment, "--ledger", "supabase://")[0] in (1, 3, 4)  # no server listens there
    with faulty_proxy(s3_server, 0.0, forbidden=b"/out/_commits") as (endpoint, _):
        refused, output = run(top, tmp_path, s3_server_environment(environment, endpoint))
    assert refused in (2, 4), output.decode()
    # A decoder that writes its whole environment to stderr and dies. The output is a new one, because the run without a
    # ledger may have finished.
    crash = inject_decoder_code(tmp_path / "crash", f"{PRINT_ENVIRONMENT}\nos.kill(os.getpid(), signal.SIGSEGV)")
    crashed, output = run(top, tmp_path, environment | crash, "--output", f"{top}/crashed")
    assert crashed == 4, output.decode()  # a known-good video crashes there too, so no video is condemned
    notebook(top, tmp_path, environment)
    texts = {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    texts |= {name: Store(top).read(name) for name in Store(top).list()}
    assert len(texts) > 20
    assert any(b"crashed with signal 11" in data for data in texts.values())
    for secret in (CANARY, s3_server.secret):
        shown = {name: forms_in(secret, data) for name, data in texts.items() if forms_in(secret, data)}
        assert shown == {}


def s3_server_environment(environment: dict[str, str], endpoint: str) -> dict[str, str]:
    return environment | {"AWS_ENDPOINT_URL_S3": endpoint}


def notebook(top: str, folder: Path, environment: dict[str, str]) -> None:
    """Execute the notebook of a run that fails, and export it as HTML."""
    papermill = [str(BIN / "papermill"), "--no-progress-bar", "notebooks/run.ipynb", str(folder / "run.ipynb")]
    values = {
        "catalog": f"{top}/corpus/catalog.parquet",
        "output": f"{top}/other",
        "cluster": "local-cpu",
        "workers": "1",
    }
    parameters = [part for name, value in values.items() for part in ("-p", name, value)]
    root = Path(__file__).parents[2]
    with (folder / "papermill").open("wb") as log:
        wrong = environment | {"AWS_SECRET_ACCESS_KEY": CANARY}
        subprocess.run([*papermill, *parameters], check=False, stdout=log, stderr=log, env=wrong, cwd=root, timeout=250)
        assert (folder / "run.ipynb").exists(), (folder / "papermill").read_text()
        html = [str(BIN / "audiopipe"), "html", str(folder / "run.ipynb"), str(folder / "run.html")]
        subprocess.run(html, check=True, stdout=log, stderr=log, env=wrong, timeout=120)
