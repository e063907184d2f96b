"""Scripts, units and manifests of `cluster/`, checked without a cloud."""

import configparser
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import dask.config
import pytest
import yaml
from distributed.utils import import_term
from waiting import wait_until

CLUSTER = Path(__file__).parents[2] / "cluster"
SCRIPTS = sorted(CLUSTER.glob("*.sh"))
UNITS = sorted((CLUSTER / "systemd").glob("*.service"))
SECRETS = ("AWS_SECRET_ACCESS_KEY=", "SUPABASE_SECRET_KEY=", "BEGIN PRIVATE KEY")


def unit(path: Path) -> dict[str, dict[str, str]]:
    parsed = configparser.ConfigParser(strict=False, interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(path)
    return {name: dict(parsed[name]) for name in parsed.sections()}


def partition(folder: Path, program: str) -> dict[str, str]:
    """Return the environment of `run_partition.sh`, with a program of the test in place of `audiopipe`."""
    command = folder / "audiopipe"
    command.write_text(f"#!{sys.executable}\n{program}")
    command.chmod(0o755)
    return {
        **os.environ,
        "PARTITION_INDEX": "3",
        "PARTITION_COUNT": "8",
        "AUDIOPIPE_CATALOG": "supabase://videos",
        "AUDIOPIPE_OUTPUT": "s3://out/speech",
        "AUDIOPIPE_COMMAND": str(command),
        "AUDIOPIPE_OPTIONS": "--audio-format opus",
        "FOLDER": str(folder),
    }


def stub(path: Path, command: str) -> None:
    path.write_text(f"#!/bin/sh\n{command}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([str(shellcheck), str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_stops_at_its_first_error_and_can_be_executed(script: Path) -> None:
    assert "set -euo pipefail" in script.read_text()
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("path", [*SCRIPTS, *UNITS, *CLUSTER.glob("kubernetes/*.yaml")], ids=lambda path: path.name)
def test_nothing_that_is_shipped_holds_a_secret(path: Path) -> None:
    assert not [secret for secret in SECRETS if secret in path.read_text()]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_restart_what_fails_and_start_what_is_there(path: Path) -> None:
    service = unit(path)["Service"]
    assert service.get("Type") == "oneshot" or service["Restart"] in ("always", "on-failure")
    program = Path(service["ExecStart"].split()[0])
    assert str(program.parent) == "/opt/audiopipe/cluster"
    assert os.access(CLUSTER / program.name, os.X_OK)


def test_a_permanently_failed_partition_powers_its_node_off() -> None:
    partition_unit = unit(CLUSTER / "systemd/audiopipe-partition.service")
    failed = unit(CLUSTER / "systemd" / partition_unit["Unit"]["OnFailure"])["Service"]
    assert failed["ExecStart"] == "/opt/audiopipe/cluster/power_off.sh failed"
    assert partition_unit["Service"]["ExecStopPost"] == "+/opt/audiopipe/cluster/power_off.sh done"
    worker_unit = unit(CLUSTER / "systemd/audiopipe-worker.service")
    assert worker_unit["Unit"]["OnFailure"] == partition_unit["Unit"]["OnFailure"]


@pytest.mark.parametrize("name", ["partition", "worker"])
def test_units_count_failures_in_a_row_and_not_in_a_window(name: str) -> None:
    settings = unit(CLUSTER / f"systemd/audiopipe-{name}.service")
    assert settings["Unit"]["StartLimitIntervalSec"] == "0"
    program, counted, command = settings["Service"]["ExecStart"].split()
    assert (Path(program).name, counted, Path(command).name) == ("run_counted.sh", name, f"run_{name}.sh")
    assert "70" in settings["Service"]["RestartPreventExitStatus"].split()
    assert settings["Service"]["KillMode"] == "mixed"


def run_counted(folder: Path, *codes: int, limit: int = 3, progress: bool = False) -> list[int]:
    """Run a command that ends with these codes, one after the other; return the exit codes of `run_counted.sh`."""
    touch = 'touch "$AUDIOPIPE_PROGRESS"; ' if progress else ""
    stub(folder / "command", f'{touch}exit "$1"')
    environment = {**os.environ, "STATE_DIRECTORY": str(folder), "AUDIOPIPE_MAX_FAILURES": str(limit)}
    environment["AUDIOPIPE_PAUSE_S"] = "0"
    command = [CLUSTER / "run_counted.sh", "partition", folder / "command"]
    return [
        subprocess.run([*command, str(code)], env=environment, capture_output=True, check=False).returncode
        for code in codes
    ]


def test_failures_in_a_row_end_a_unit_permanently(tmp_path: Path) -> None:
    assert run_counted(tmp_path, 4, 1, 4) == [4, 1, 70]
    assert run_counted(tmp_path, 4, 4, 0, 4, 4, 3, 4, 4) == [4, 4, 0, 4, 4, 3, 4, 4], "a success starts the count again"
    assert run_counted(tmp_path, 4) == [70]


def test_a_failure_after_progress_is_the_first_in_a_row(tmp_path: Path) -> None:
    assert run_counted(tmp_path, 4, 4, 4, 4, progress=True) == [4, 4, 4, 4]
    assert run_counted(tmp_path, 4, 4) == [4, 70]


def test_a_stop_is_passed_on_and_is_not_a_failure(tmp_path: Path) -> None:
    stub(tmp_path / "command", f'trap "exit 4" TERM; touch {tmp_path}/ready; while :; do sleep 0.1; done')
    environment = {**os.environ, "STATE_DIRECTORY": str(tmp_path)}
    process = subprocess.Popen([CLUSTER / "run_counted.sh", "partition", tmp_path / "command"], env=environment)
    wait_until((tmp_path / "ready").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 4
    assert not (tmp_path / "partition.failures").exists()


def test_a_partition_that_commits_shards_has_made_progress(tmp_path: Path) -> None:
    for shards, has_progress in ((0, False), (12, True)):
        environment = partition(tmp_path, f"print('{{\"new_shards\": {shards}}}'); raise SystemExit(4)")
        environment["AUDIOPIPE_PROGRESS"] = str(tmp_path / "progress")
        done = subprocess.run([CLUSTER / "run_partition.sh"], env=environment, capture_output=True, check=False)
        assert (done.returncode, json.loads(done.stdout)) == (4, {"new_shards": shards})
        assert (tmp_path / "progress").exists() is has_progress


def dask_arguments(folder: Path, **environment: str) -> list[str]:
    """Return the arguments that a worker node passes to `dask`, after a check of its TLS settings."""
    stub(folder / "dask", 'printf "%s\\0" "$@"; env -0 | grep -z TLS__ | sort -z')
    environment |= {"PATH": f"{folder}:/usr/bin:/bin", "DASK_SCHEDULER_ADDRESS": "tls://scheduler:8786"}
    environment |= {"DASK_COMMAND": str(folder / "dask"), "AUDIOPIPE_TLS": "/t"}
    done = subprocess.run([CLUSTER / "run_worker.sh"], env=environment, capture_output=True, text=True, check=True)
    *arguments, authority, certificate, key, end = done.stdout.split("\0")
    assert end == ""
    variables = dict(line.split("=") for line in (authority, certificate, key))
    assert dask.config.collect_env(variables)["distributed"] == {
        "comm": {"tls": {"ca_file": "/t/ca.pem", "worker": {"cert": "/t/node.pem", "key": "/t/node.key"}}}
    }
    return arguments


def test_a_worker_node_without_a_gpu_runs_a_worker_per_core(tmp_path: Path) -> None:
    from distributed.cli.dask_worker import main as worker

    command, *arguments = dask_arguments(tmp_path)
    assert command == "worker"
    known = {name for parameter in worker.params for name in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= known
    given = worker.make_context("worker", arguments, resilient_parsing=True).params
    assert (given["scheduler"], given["nthreads"], given["death_timeout"]) == ("tls://scheduler:8786", 2, "300")
    assert given["n_workers"] == str(os.cpu_count())


def test_a_gpu_node_runs_all_workers_that_it_can_use(tmp_path: Path) -> None:
    from audiopipe.cluster.cuda_workers import CUDAWorkers

    stub(tmp_path / "nvidia-smi", "echo 580.1")
    command, address, option, spec = dask_arguments(tmp_path, DEATH_TIMEOUT="20", STATE_DIRECTORY="/var/lib/with space")
    assert (command, address, option) == ("spec", "tls://scheduler:8786", "--spec")
    worker = json.loads(spec)
    assert import_term(worker["cls"]) is CUDAWorkers
    assert worker["opts"] == {
        "nthreads": 2,
        "death_timeout": "20",
        "dashboard_address": "127.0.0.1:0",
        "local_directory": "/var/lib/with space",
    }


def test_a_scheduler_encrypts_and_serves_its_dashboard_locally(tmp_path: Path) -> None:
    from distributed.cli.dask_scheduler import main as scheduler

    stub(tmp_path / "dask", 'echo "$@"')
    environment = {"PATH": "/usr/bin:/bin", "DASK_COMMAND": str(tmp_path / "dask"), "AUDIOPIPE_TLS": "/t"}
    done = subprocess.run([CLUSTER / "run_scheduler.sh"], env=environment, capture_output=True, text=True, check=True)
    command, *arguments = done.stdout.split()
    given = scheduler.make_context("scheduler", [*arguments], resilient_parsing=True).params
    assert (command, given["host"], given["port"]) == ("scheduler", "tls://", "8786")
    assert given["dashboard_address"] == "127.0.0.1:8787"
    assert {argument for argument in arguments if argument.startswith("/t/")} == {
        "/t/ca.pem",
        "/t/node.pem",
        "/t/node.key",
    }


@pytest.mark.parametrize("name", ["worker", "partition"])
def test_units_read_keys_from_a_file_and_not_from_arguments(name: str) -> None:
    service = unit(CLUSTER / f"systemd/audiopipe-{name}.service")["Service"]
    assert service["EnvironmentFile"] == "/etc/audiopipe/environment"
    assert "KEY" not in service["ExecStart"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not on this machine")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_understands_its_units(path: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    # The programs are on nodes, not on this machine.
    problems = [line for line in done.stderr.splitlines() if "audiopipe" in line and "is not executable" not in line]
    assert not problems


def test_the_manifest_has_the_shape_of_the_operators_example() -> None:
    from dask_kubernetes.operator import make_cluster_spec

    manifest: dict[str, Any] = yaml.safe_load((CLUSTER / "kubernetes/dask-cluster.yaml").read_text())
    example = make_cluster_spec("audiopipe", worker_command=["dask", "cuda", "worker"], n_workers=8)
    assert (manifest["apiVersion"], manifest["kind"]) == (example["apiVersion"], example["kind"])
    assert manifest["spec"].keys() == example["spec"].keys()
    assert manifest["spec"]["scheduler"]["service"] == example["spec"]["scheduler"]["service"]
    for role in ("scheduler", "worker"):
        actual, expected = (spec["spec"][role]["spec"]["containers"][0] for spec in (manifest, example))
        assert actual["name"] == expected["name"]
        assert actual.keys() <= expected.keys() | {"envFrom", "volumeMounts"}


def test_kubernetes_runs_the_configured_number_of_partitions() -> None:
    job = yaml.safe_load((CLUSTER / "kubernetes/partitions.yaml").read_text())["spec"]
    container = job["template"]["spec"]["containers"][0]
    assert job["completions"] == job["parallelism"] == int(container["env"][0]["value"])
    assert container["env"][0]["name"] == "PARTITION_COUNT"
    assert container["envFrom"] == [{"secretRef": {"name": "audiopipe"}}]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [2, 5]


def test_a_partition_is_run_from_the_environment(tmp_path: Path) -> None:
    environment = partition(tmp_path, "import json, sys; print(json.dumps(sys.argv[1:]))")
    done = subprocess.run([CLUSTER / "run_partition.sh"], env=environment, capture_output=True, text=True, check=True)
    arguments = json.loads(done.stdout)
    assert arguments[0] == "run"
    given = dict(zip(arguments[3::2], arguments[4::2], strict=True))
    assert given == {
        "--catalog": "supabase://videos",
        "--output": "s3://out/speech",
        "--language": "all",
        "--partition-index": "3",
        "--partition-count": "8",
        "--audio-format": "opus",
    }


@pytest.mark.parametrize(("exit_code", "expected"), [(0, 0), (3, 0), (4, 4), (2, 2), (5, 5)])
def test_dead_letters_are_a_success_and_errors_keep_their_code(tmp_path: Path, exit_code: int, expected: int) -> None:
    environment = partition(tmp_path, f"raise SystemExit({exit_code})")
    done = subprocess.run([CLUSTER / "run_partition.sh"], env=environment, capture_output=True, check=False)
    assert done.returncode == expected


def test_sigterm_reaches_the_driver_and_its_exit_code_returns(tmp_path: Path) -> None:
    program = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(os.environ["FOLDER"], "ended").touch(), sys.exit(4)))
pathlib.Path(os.environ["FOLDER"], "ready").touch()
time.sleep(600)
"""
    process = subprocess.Popen([CLUSTER / "run_partition.sh"], env=partition(tmp_path, program))
    wait_until((tmp_path / "ready").exists)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 4
    assert (tmp_path / "ended").exists()


def test_certificates_share_an_authority_and_are_never_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "tls"
    script = [str(CLUSTER / "make_tls.sh"), str(folder)]
    subprocess.run(script, check=True, capture_output=True)
    assert sorted(path.name for path in folder.iterdir()) == ["ca.pem", "node.key", "node.pem"]
    assert (folder / "node.key").stat().st_mode & 0o077 == 0
    verified = ["openssl", "verify", "-CAfile", str(folder / "ca.pem"), str(folder / "node.pem")]
    subprocess.run(verified, check=True, capture_output=True)
    before = (folder / "node.key").read_bytes()
    assert subprocess.run(script, capture_output=True, check=False).returncode == 1
    assert (folder / "node.key").read_bytes() == before


def instructions() -> list[tuple[str, str]]:
    """Parse the instructions of the Containerfile; a backslash joins lines."""
    lines = [line for line in (CLUSTER / "Containerfile").read_text().splitlines() if not line.startswith("#")]
    joined = " ".join(line + "\n" if not line.endswith("\\") else line[:-1] for line in lines).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.strip().partition(" ") for line in joined)]


def test_the_container_copies_existing_files_and_runs_as_profile_user() -> None:
    from audiopipe.cluster.engines import CONTAINER_UID

    steps = instructions()
    assert {word for word, _ in steps} == {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "USER", "CMD"}
    for sources in (rest.split()[:-1] for word, rest in steps if word == "COPY"):
        assert all((CLUSTER.parent / source).exists() for source in sources), sources
    assert any(f"useradd --system --uid {CONTAINER_UID} " in rest for word, rest in steps if word == "RUN")
    assert [rest for word, rest in steps if word == "USER"] == ["audiopipe"]
    extras = {extra for word, rest in steps for extra in re.findall(r"--extra (\w+)", rest)}
    known = tomllib.loads((CLUSTER.parent / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"aws", "gcp", "kubernetes"} <= extras <= known.keys()
