"""Scheduled runs: the files of `cluster/schedule`, and real runs, also two at once."""

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import nbformat
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner
from nbformat import v4
from output_factory import config, content, corpus, make_output
from waiting import wait_until

from audiopipe.cli import main
from audiopipe.config import RunConfig
from audiopipe.errors import ConfigError
from audiopipe.report.notebook.record import read_exit_code
from audiopipe.report.notebook.session import RunIncomplete, Stopped, TooManyFailed

ROOT = Path(__file__).parents[2]
SCHEDULE = ROOT / "cluster" / "schedule"
PARAMETERS = sorted((SCHEDULE / "params").glob("*.yaml"))
BIN = Path(sys.executable).parent


def start_run(catalog: Path, folder: Path, parameters: Path, **changes: object) -> "subprocess.Popen[str]":
    """Start `run.sh` with an example's parameters, on a local corpus instead of its bucket and table."""
    example = yaml.safe_load(parameters.read_text())
    local = {"catalog": str(catalog), "output": str(folder / "out"), "source_prefix": f"{catalog.parent}/"}
    chosen = folder / f"{parameters.stem}-{len(list(folder.glob('*.yaml')))}.yaml"
    fixed = {"ledger": None, "workers": 1, "min_snr_db": None, "max_silence_ratio": None, "max_failed_share": 1.0}
    chosen.write_text(yaml.safe_dump({**example, **local, **fixed, **changes}))
    environment = {**os.environ, "AUDIOPIPE_RECORDS": str(folder / "records"), "AUDIOPIPE_BIN": str(BIN)}
    return subprocess.Popen(
        [str(SCHEDULE / "run.sh"), str(chosen)],
        env=environment,
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def wait_for_end(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Return the exit code and the output."""
    stdout, stderr = process.communicate(timeout=280)
    return process.returncode, stdout + stderr


def save_notebook(folder: Path, *outputs: nbformat.NotebookNode) -> Path:
    nbformat.write(v4.new_notebook(cells=[v4.new_code_cell("run()", outputs=list(outputs))]), folder / "saved.ipynb")
    return folder / "saved.ipynb"


# -- the files


@pytest.mark.parametrize("path", PARAMETERS, ids=lambda path: path.stem)
def test_an_example_holds_parameters_of_a_run_and_no_secret(path: Path) -> None:
    given = yaml.safe_load(path.read_text())
    assert RunConfig.of(**given).output == given["output"]
    assert given["output"].startswith("s3://")


def test_no_two_examples_write_to_one_output() -> None:
    assert len({yaml.safe_load(path.read_text())["output"] for path in PARAMETERS}) == len(PARAMETERS) == 4


def test_the_script_is_sound() -> None:
    done = subprocess.run([BIN / "shellcheck", SCHEDULE / "run.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert os.access(SCHEDULE / "run.sh", os.X_OK)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not on this machine")
def test_systemd_understands_the_timer_and_its_service(tmp_path: Path) -> None:
    for path in (SCHEDULE / "systemd").iterdir():
        shutil.copy(path, tmp_path / path.name.replace("@", "@nightly"))
    units = sorted(str(path) for path in tmp_path.iterdir())
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    problems = [line for line in done.stderr.splitlines() if "audiopipe" in line and "is not executable" not in line]
    assert len(units) == 2
    assert not problems
    (calendar,) = re.findall(r"OnCalendar=(.+)", (tmp_path / "audiopipe-schedule@nightly.timer").read_text())
    subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True, check=True)


def test_the_service_restarts_only_after_retryable_failures() -> None:
    unit = dict(re.findall(r"^(\w+)=(.+)$", (SCHEDULE / "systemd/audiopipe-schedule@.service").read_text(), re.M))
    assert (unit["SuccessExitStatus"], unit["RestartPreventExitStatus"], unit["Restart"]) == (
        "3",
        "1 2 5 70",
        "on-failure",
    )


def test_cron_understands_its_line(tmp_path: Path) -> None:
    """Debian's `crontab -n` checks no system crontabs, so the column of the user is removed."""
    text = (SCHEDULE / "audiopipe.cron").read_text()
    (line,) = re.findall(r"^[0-9*].*$", text, re.M)
    times, user, command = re.fullmatch(r"((?:\S+ ){5})(\w+) (.+)", line).groups()  # type: ignore[union-attr]
    assert user == "root"
    assert "--reuid=audiopipe --regid=audiopipe" in command
    assert "%" not in command, "cron replaces % by a line break"
    subprocess.run(["bash", "-n", "-c", command], check=True)
    if not shutil.which("crontab"):
        pytest.skip("Debian's cron is not installed")
    (tmp_path / "crontab").write_text(text.replace(line, f"{times}{command}"))
    subprocess.run(["crontab", "-n", tmp_path / "crontab"], check=True, capture_output=True)


CRON_RUN = """#!/bin/bash
{ id -un; echo "$AWS_SECRET_ACCESS_KEY"; echo "$HOME"; } > ran
exit "$CRON_CODE"
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as cron has it")
@pytest.mark.parametrize(("code", "status"), [(0, 0), (3, 0), (4, 1)])
def test_cron_runs_as_the_user_with_the_modes_of_bootstrap(code: int, status: int) -> None:
    bootstrap = (SCHEDULE.parent / "bootstrap.sh").read_text()
    assert 'install -d -m 0750 -g audiopipe "$secrets"' in bootstrap
    assert 'chmod 0600 "$secrets/environment"' in bootstrap
    text = (SCHEDULE / "audiopipe.cron").read_text()
    (command,) = re.findall(r"^0 2 \* \* \* root (.+)$", text, re.M)
    variables = dict(re.findall(r"^(\w+)=(.+)$", text, re.M))
    with tempfile.TemporaryDirectory(prefix="audiopipe-cron-") as name:  # another user can reach it, unlike `tmp_path`
        root = Path(name)
        root.chmod(0o755)
        for folder in ("var/lib/audiopipe", "etc/audiopipe", "opt/audiopipe/cluster/schedule"):
            (root / folder).mkdir(parents=True)
        shutil.chown(root / "var/lib/audiopipe", "daemon", "daemon")
        shutil.chown(root / "etc/audiopipe", "root", "daemon")
        (root / "etc/audiopipe").chmod(0o750)
        (root / "etc/audiopipe/environment").write_text("AWS_SECRET_ACCESS_KEY=key-of-root\n")
        (root / "etc/audiopipe/environment").chmod(0o600)
        (root / "opt/audiopipe/cluster/schedule/run.sh").write_text(CRON_RUN)
        (root / "opt/audiopipe/cluster/schedule/run.sh").chmod(0o755)
        for path in ("/var/lib/audiopipe", "/etc/audiopipe", "/opt/audiopipe"):
            command = command.replace(path, f"{root}{path}")
        command = command.replace("--reuid=audiopipe --regid=audiopipe", "--reuid=daemon --regid=daemon")
        environment = {"PATH": variables["PATH"], "HOME": variables["HOME"], "CRON_CODE": str(code)}
        done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        ran = (root / "var/lib/audiopipe/ran").read_text().split()
        assert ran == ["daemon", "key-of-root", "/var/lib/audiopipe"]


@pytest.mark.parametrize("place", ["file", "option"])
def test_a_secret_is_refused_before_a_notebook_is_saved(tmp_path: Path, place: str) -> None:
    secret = "s3://KEY:se/CANARY@bucket/x"
    (tmp_path / "p.yaml").write_text(f"catalog: /c\noutput: {secret if place == 'file' else '/out'}\n")
    environment = {**os.environ, "AUDIOPIPE_RECORDS": str(tmp_path / "records"), "AUDIOPIPE_BIN": str(BIN)}
    command = [SCHEDULE / "run.sh", tmp_path / "p.yaml", *(["-p", "output", secret] if place == "option" else [])]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "contains a password" in done.stderr
    assert "CANARY" not in done.stderr + done.stdout
    assert not list((tmp_path / "records").iterdir())


def test_github_understands_its_workflow() -> None:
    workflow = SCHEDULE / "github-actions.yml"
    command = [BIN / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", workflow]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    (job,) = yaml.safe_load(workflow.read_text())["jobs"].values()
    (script,) = [step["run"] for step in job["steps"] if "run" in step]
    shellcheck = [BIN / "shellcheck", "--shell=bash", "-"]
    assert subprocess.run(shellcheck, input=script, text=True, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("codes", "status", "attempts"), [((4, 4, 3), 0, 3), ((4, 4, 4), 4, 3), ((2,), 2, 1), ((5,), 5, 1)]
)
def test_the_workflow_retries_an_unfinished_run(
    codes: tuple[int, ...], status: int, attempts: int, tmp_path: Path
) -> None:
    (job,) = yaml.safe_load((SCHEDULE / "github-actions.yml").read_text())["jobs"].values()
    (script,) = [step["run"] for step in job["steps"] if "run" in step]
    (tmp_path / "cluster/schedule").mkdir(parents=True)
    (tmp_path / "codes").write_text("".join(f"{code}\n" for code in codes))
    stub = tmp_path / "cluster/schedule/run.sh"
    stub.write_text('#!/bin/bash\ncode=$(head -1 codes); sed -i 1d codes; echo "$1" >> attempts; exit "$code"\n')
    stub.chmod(0o755)
    environment = {**os.environ, "PARAMETERS": "nightly.yaml"}
    done = subprocess.run(["bash", "-e", "-c", script], cwd=tmp_path, env=environment, check=False, capture_output=True)
    assert done.returncode == status
    assert (tmp_path / "attempts").read_text() == "nightly.yaml\n" * attempts


def test_airflows_file_calls_the_script_and_maps_its_exit_codes() -> None:
    """Airflow has too many dependencies to be one of ours; where it is installed, it loads the file."""
    tree = ast.parse((SCHEDULE / "airflow_dag.py").read_text())
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {"airflow.sdk", "airflow.decorators"} <= imported
    (decorated,) = [
        node.decorator_list[0]
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and isinstance(node.decorator_list[0], ast.Call)
    ]
    keywords = {item.arg: item.value for item in decorated.keywords if isinstance(item.value, ast.Constant)}
    values = {name: value.value for name, value in keywords.items()}
    assert values == {"dag_id": "audiopipe_nightly", "schedule": "0 2 * * *", "catchup": False, "max_active_runs": 1}
    constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert {0, 3, 4} <= constants
    airflow = pytest.importorskip("airflow.sdk", reason="Airflow is not installed")
    assert airflow.__name__ == "airflow.sdk"
    namespace: dict[str, object] = {"__name__": "dags"}
    exec(compile(tree, "airflow_dag.py", "exec"), namespace)


# -- the exit code of a saved notebook


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ConfigError, 2),
        (RunIncomplete, 4),
        (TooManyFailed, 5),
        (Stopped, 4),
        (KeyboardInterrupt, 4),
        (ModuleNotFoundError, 1),
    ],
)
def test_a_notebook_that_stopped_at_an_error_has_its_exit_code(
    raised: type[BaseException], code: int, tmp_path: Path
) -> None:
    error = v4.new_output("error", ename=raised.__name__, evalue="why", traceback=[])
    assert read_exit_code(save_notebook(tmp_path, error)) == code


def test_an_unfinished_notebook_is_resumed(tmp_path: Path) -> None:
    assert read_exit_code(save_notebook(tmp_path)) == 4


def test_the_export_passes_the_recorded_code_on(tmp_path: Path) -> None:
    ending = recorded_code(3)
    command = ["html", str(save_notebook(tmp_path, ending)), str(tmp_path / "page.html")]
    assert CliRunner().invoke(main, command).exit_code == 0
    assert CliRunner().invoke(main, [*command, "--exit-code"]).exit_code == 3


def recorded_code(code: int) -> nbformat.NotebookNode:
    return v4.new_output("display_data", {"text/html": "done"}, metadata={"audiopipe": {"exit_code": code}})


@pytest.mark.parametrize(("recorded", "code"), [(2, 2), (4, 4), (5, 5), (3, 1)])
def test_the_code_of_an_ended_run_is_more_exact_than_its_error(recorded: int, code: int, tmp_path: Path) -> None:
    error = v4.new_output("error", ename="RunIncomplete" if code != 1 else "KeyError", evalue="why", traceback=[])
    assert read_exit_code(save_notebook(tmp_path, recorded_code(recorded), error)) == code


# -- real runs


@pytest.mark.slow
@pytest.mark.parametrize("path", PARAMETERS, ids=lambda path: path.stem)
def test_an_example_runs_and_its_record_has_the_exit_status(path: Path, tmp_path: Path) -> None:
    catalog = corpus(tmp_path / "corpus", videos=4)
    status, output = wait_for_end(start_run(catalog, tmp_path, path))
    # The missing video is English, and not in the partition of the sample.
    assert status == (0 if path.stem == "sample" else 3), output
    assert {item.suffix for item in (tmp_path / "records").iterdir()} == {".ipynb", ".html"}
    expected = {"sample": "0 done", "language": "2 done, 1 failed"}.get(path.stem, "4 done, 1 failed")
    assert f"videos    {expected}" in output


@pytest.mark.slow
def test_wrong_parameters_and_a_missing_file_end_with_2(tmp_path: Path) -> None:
    catalog = corpus(tmp_path / "corpus", videos=2)
    status, output = wait_for_end(start_run(catalog, tmp_path, SCHEDULE / "params/nightly.yaml", shard_vdeos=3))
    assert status == 2, output
    assert "did you mean 'shard_videos'" in output
    missing = subprocess.run([SCHEDULE / "run.sh", "nowhere.yaml"], cwd=tmp_path, capture_output=True, check=False)
    assert missing.returncode == 2


@pytest.mark.slow
def test_a_stopped_run_exits_with_4_and_the_next_one_finishes(tmp_path: Path) -> None:
    catalog = corpus(tmp_path / "corpus", videos=4, missing=False)
    first = start_run(catalog, tmp_path, SCHEDULE / "params/nightly.yaml")
    wait_until(lambda: list(tmp_path.glob("records/*.ipynb")), "papermill saves the notebook")
    first.send_signal(signal.SIGTERM)
    assert wait_for_end(first)[0] == 4
    status, output = wait_for_end(start_run(catalog, tmp_path, SCHEDULE / "params/nightly.yaml"))
    assert status == 0, output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_concurrent_runs_make_one_dataset_that_the_next_extends(
    tmp_path: Path,
) -> None:
    catalog = corpus(tmp_path / "corpus", videos=6, missing=False)
    table = pq.read_table(catalog)
    tonight = tmp_path / "corpus" / "tonight.parquet"
    pq.write_table(table.slice(0, 4), tonight)
    nightly = SCHEDULE / "params/nightly.yaml"
    both = [start_run(tonight, tmp_path, nightly, shard_videos=1) for _ in range(2)]
    assert [wait_for_end(process)[0] for process in both] == [0, 0]
    shared = content(tmp_path / "out")
    alone = content(make_output(config(tonight, tmp_path / "alone", shard_videos=1, run_id=None)).url)
    audio = {name for name in alone if name.endswith((".tar", ".parquet"))}
    assert {name for name in shared if name.endswith((".tar", ".parquet"))} == audio
    assert all(shared[name] == alone[name] for name in audio if name.endswith(".tar"))
    status, output = wait_for_end(start_run(catalog, tmp_path, nightly, shard_videos=1))
    assert status == 0, output
    rows = pq.ParquetDataset(sorted(map(str, (tmp_path / "out").glob("*/segments_*.parquet")))).read(
        columns=["video_id", "start_s"]
    )
    counted = Counter(zip(rows["video_id"].to_pylist(), rows["start_s"].to_pylist(), strict=True))
    assert set(counted.values()) == {1}
    assert {video for video, _ in counted} == set(table["youtube_id"].to_pylist())
    before = {name: data for name, data in shared.items() if name.endswith((".tar", ".parquet"))}
    after = content(tmp_path / "out")
    assert all(after[name] == data for name, data in before.items()), "committed files are unchanged"
