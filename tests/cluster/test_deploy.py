"""What `cluster/` ships to nodes: scripts, units and manifests, by every check that can be made without a cloud."""

import configparser
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

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
    """The environment of `run_partition.sh`, with a program of the test's in the place of `audiopipe`."""
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
        "FOLDER": str(folder),
    }


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
    assert service["Restart"] in ("always", "on-failure")
    program = service["ExecStart"].split()[0]
    if program.startswith("/opt/audiopipe/cluster/"):
        assert os.access(CLUSTER / Path(program).name, os.X_OK)


@pytest.mark.parametrize("name", ["worker", "partition"])
def test_keys_come_to_units_by_a_file_and_not_by_their_command_line(name: str) -> None:
    service = unit(CLUSTER / f"systemd/audiopipe-{name}.service")["Service"]
    assert service["EnvironmentFile"] == "/etc/audiopipe/environment"
    assert "KEY" not in service["ExecStart"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not on this machine")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_understands_its_units(path: Path) -> None:
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True, check=False)
    # The programs are on nodes, not here.
    said = [line for line in done.stderr.splitlines() if "audiopipe" in line and "is not executable" not in line]
    assert not said


def test_the_operator_s_manifest_has_the_shape_of_the_operator_s_own() -> None:
    from dask_kubernetes.operator import make_cluster_spec

    ours: dict[str, Any] = yaml.safe_load((CLUSTER / "kubernetes/dask-cluster.yaml").read_text())
    theirs = make_cluster_spec("audiopipe", worker_command=["dask", "cuda", "worker"], n_workers=8)
    assert (ours["apiVersion"], ours["kind"]) == (theirs["apiVersion"], theirs["kind"])
    assert ours["spec"].keys() == theirs["spec"].keys()
    assert ours["spec"]["scheduler"]["service"] == theirs["spec"]["scheduler"]["service"]
    for role in ("scheduler", "worker"):
        mine, their = (spec["spec"][role]["spec"]["containers"][0] for spec in (ours, theirs))
        assert mine["name"] == their["name"]
        assert mine.keys() <= their.keys() | {"envFrom", "volumeMounts"}


def test_partitions_on_kubernetes_are_as_many_as_they_are_told() -> None:
    job = yaml.safe_load((CLUSTER / "kubernetes/partitions.yaml").read_text())["spec"]
    container = job["template"]["spec"]["containers"][0]
    assert job["completions"] == job["parallelism"] == int(container["env"][0]["value"])
    assert container["env"][0]["name"] == "PARTITION_COUNT"
    assert container["envFrom"] == [{"secretRef": {"name": "audiopipe"}}]


def test_a_partition_is_run_by_what_the_environment_says(tmp_path: Path) -> None:
    environment = partition(tmp_path, "import json, sys; print(json.dumps(sys.argv[1:]))")
    done = subprocess.run([CLUSTER / "run_partition.sh"], env=environment, capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said[0] == "run"
    given = dict(zip(said[3::2], said[4::2], strict=True))
    assert given == {
        "--catalog": "supabase://videos",
        "--output": "s3://out/speech",
        "--language": "all",
        "--partition-index": "3",
        "--partition-count": "8",
    }


@pytest.mark.parametrize(("ended", "passed_on"), [(0, 0), (3, 0), (4, 4), (2, 2)])
def test_dead_letters_are_a_result_and_other_ends_are_passed_on(tmp_path: Path, ended: int, passed_on: int) -> None:
    environment = partition(tmp_path, f"raise SystemExit({ended})")
    done = subprocess.run([CLUSTER / "run_partition.sh"], env=environment, capture_output=True, check=False)
    assert done.returncode == passed_on


def test_a_polite_kill_reaches_the_driver_and_its_exit_code_comes_back(tmp_path: Path) -> None:
    program = """
import os, pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(os.environ["FOLDER"], "ended").touch(), sys.exit(4)))
pathlib.Path(os.environ["FOLDER"], "ready").touch()
time.sleep(60)
"""
    process = subprocess.Popen([CLUSTER / "run_partition.sh"], env=partition(tmp_path, program))
    deadline = time.monotonic() + 20
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 4
    assert (tmp_path / "ended").exists()


def test_certificates_are_of_one_authority_private_and_never_overwritten(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(
    ("result", "status", "asked", "off"),
    [("success", "0", "1", True), ("exit-code", "4", "1", False), ("success", "0", "0", False)],
)
def test_a_node_switches_itself_off_only_when_asked_and_done(
    tmp_path: Path, result: str, status: str, asked: str, off: bool
) -> None:
    called = tmp_path / "systemctl"
    called.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    called.chmod(0o755)
    environment = {**os.environ, "SERVICE_RESULT": result, "EXIT_STATUS": status, "AUDIOPIPE_POWEROFF": asked}
    script = CLUSTER / "power_off_when_done.sh"
    subprocess.run([script], env={**environment, "SYSTEMCTL": str(called)}, check=True)
    assert (tmp_path / "called").exists() is off


def test_a_spot_notice_stops_the_units(tmp_path: Path) -> None:
    """EC2's metadata service as far as a notice needs it: first none (404), then one."""
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    asked: list[str] = []

    class Metadata(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            self._say(200)

        def do_GET(self) -> None:
            asked.append(self.path)
            self._say(200 if len(asked) > 1 and self.path.endswith("/spot/instance-action") else 404)

        def _say(self, status: int) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"token")

        def log_message(self, *_: Any) -> None:
            """Nothing on the test's terminal."""

    called = tmp_path / "systemctl"
    called.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called\n')
    called.chmod(0o755)
    with HTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        environment = {**os.environ, "METADATA_URL": address, "EVERY_S": "0.05", "SYSTEMCTL": str(called)}
        subprocess.run([CLUSTER / "watch_spot.sh", "a.service"], env=environment, check=True, timeout=20)
        server.shutdown()
    assert (tmp_path / "called").read_text() == "stop a.service\n"
    assert len(asked) >= 2


AWS = """
import json, os, pathlib, sys
told = sys.argv[1:]
data = [pathlib.Path(word.removeprefix("file://")).read_text() for word in told if word.startswith("file://")]
with open(os.environ["FOLDER"] + "/calls", "a") as calls:
    calls.write(json.dumps({"told": told, "user_data": data}) + "\\n")
print({"describe-instances": "i-1 i-2", "describe-volumes": "vol-1"}.get(told[1], "i-0"))
"""


def with_aws(folder: Path, script: str, *arguments: str, **given: str) -> list[dict[str, Any]]:
    """Run a script with a recorder in the place of the `aws` command; what it was told."""
    command = folder / "aws"
    command.write_text(f"#!{sys.executable}\n{AWS}")
    command.chmod(0o755)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "FOLDER": str(folder), **given}
    subprocess.run([CLUSTER / script, *arguments], env=environment, check=True, capture_output=True)
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


NODES = {
    "AMI": "ami-1",
    "SECRETS": "s3://private/audiopipe/",
    "INSTANCE_PROFILE": "audiopipe",
    "SECURITY_GROUP": "sg-1",
    "SOURCE": "https://git.example/audiopipe",
}


def test_every_node_gets_its_own_partition_and_ends_its_own_bill(tmp_path: Path) -> None:
    calls = with_aws(tmp_path, "setup_workers.sh", "3", **NODES)
    assert len(calls) == 3
    for index, call in enumerate(calls):
        told = " ".join(call["told"])
        assert "--instance-initiated-shutdown-behavior terminate" in told
        assert "DeleteOnTermination=true" in told
        assert '"MarketType":"spot"' in told
        (user_data,) = call["user_data"]
        assert user_data.startswith("#cloud-config\n")
        assert "@" not in "".join(line for line in user_data.splitlines() if not line.startswith("#"))
        parsed = yaml.safe_load(user_data)
        assert parsed["power_state"]["delay"] == "+2160"
        assert f"{index} 3 >> /etc/audiopipe/environment" in parsed["runcmd"][3][2]
        assert parsed["runcmd"][2][5] == "s3://private/audiopipe/"


def test_nodes_on_demand_are_not_spot(tmp_path: Path) -> None:
    (call,) = with_aws(tmp_path, "setup_workers.sh", "1", **NODES, SPOT="0")
    assert "spot" not in " ".join(call["told"])


def test_teardown_ends_nodes_and_deletes_volumes(tmp_path: Path) -> None:
    told = [" ".join(call["told"]) for call in with_aws(tmp_path, "teardown.sh", RUN="mine")]
    assert "Name=tag:audiopipe-run,Values=mine" in told[0]
    assert told[1].startswith("ec2 terminate-instances --instance-ids i-1 i-2")
    assert told[-1] == "ec2 delete-volume --volume-id vol-1"
