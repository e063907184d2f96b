"""Rented machines: what the clouds' commands are told, and that every bill ends. The clouds are recorders here."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"
SECRET = "do-not-tell"

# Writes down what it is told and the files that it is handed, and answers from $FOLDER/answers: the first one whose
# words are all among its arguments. An answer is given once, unless it is the last of its kind.
RECORDER = """
import json, os, pathlib, sys
folder, told = pathlib.Path(os.environ["FOLDER"]), [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
paths = [word.split("=", 1)[-1].removeprefix("file://") for word in told if "user-data=" in word or "file://" in word]
with (folder / "calls").open("a") as calls:
    calls.write(json.dumps({"told": told, "user_data": [pathlib.Path(path).read_text() for path in paths]}) + "\\n")
answers = json.loads((folder / "answers").read_text())
for number, (words, code, answer) in enumerate(answers):
    if set(words) <= set(told):
        if [words] != [later[0] for later in answers if later[0] == words]:
            answers.pop(number)
        (folder / "answers").write_text(json.dumps(answers))
        if answer:
            print(answer)
        raise SystemExit(code)
"""
Answer = tuple[list[str], int, str]
EVERYWHERE = {"SECRETS": "s3://private/audiopipe/", "SOURCE": "https://git.example/audiopipe"}
NODES = {
    "ec2": EVERYWHERE | {"AMI": "ami-1", "INSTANCE_PROFILE": "audiopipe", "SECURITY_GROUP": "sg-1"},
    "gcp": EVERYWHERE
    | {
        "SECRETS": "gs://private/audiopipe",
        "IMAGE": "projects/p/global/images/i",
        "ZONE": "us-central1-a",
        "SUBNET": "audiopipe",
        "SERVICE_ACCOUNT": "audiopipe@p",
    },
}


class Cloud:
    """Runs our scripts where `aws` and `gcloud` are recorders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: list[Answer] = []
        for name in ("aws", "gcloud"):
            (folder / name).write_text(f"#!{sys.executable}\n{RECORDER}")
            (folder / name).chmod(0o755)

    def run(self, script: str, *arguments: str, **given: str) -> "subprocess.CompletedProcess[str]":
        (self.folder / "answers").write_text(json.dumps(self.answers))
        path = f"{self.folder}:{os.environ['PATH']}"
        keys = {"AWS_SECRET_ACCESS_KEY": SECRET, "SUPABASE_SERVICE_KEY": SECRET}
        environment = {**os.environ, **keys, "PATH": path, "FOLDER": str(self.folder), **given}
        command = [CLUSTER / script, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    @property
    def calls(self) -> list[dict[str, Any]]:
        calls = self.folder / "calls"
        return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    def started(self) -> list[dict[str, Any]]:
        return [call for call in self.calls if {"run-instances", "create"} & set(call["told"])]


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


def after(told: list[str], flag: str) -> str:
    return told[told.index(flag) + 1]


@pytest.mark.parametrize("name", ["ec2", "gcp"])
def test_every_node_gets_one_partition_and_no_key(cloud: Cloud, name: str) -> None:
    done = cloud.run("setup_workers.sh", "--cloud", name, "3", **NODES[name])
    assert done.returncode == 0, done.stderr
    assert len(cloud.started()) == 3
    for index, call in enumerate(cloud.started()):
        assert SECRET not in json.dumps(call)
        (user_data,) = call["user_data"]
        assert user_data.startswith("#cloud-config\n")
        parsed = yaml.safe_load(user_data)
        assert parsed["bootcmd"] == [["systemd-run", "--on-active=2160min", "systemctl", "poweroff", "--no-wall"]]
        (node,) = parsed["write_files"]
        assert f"{index} 3 >>/etc/audiopipe/environment" in node["content"]
        assert parsed["runcmd"] == [[node["path"]]]
        assert '"https://git.example/audiopipe" /opt/audiopipe' in node["content"]


def test_a_node_on_ec2_is_deleted_with_its_disk_at_shutdown(cloud: Cloud) -> None:
    cloud.run("setup_workers.sh", "1", **NODES["ec2"])
    (call,) = cloud.started()
    told = call["told"]
    assert after(told, "--instance-initiated-shutdown-behavior") == "terminate"
    assert "DeleteOnTermination=true" in after(told, "--block-device-mappings")
    assert json.loads(after(told, "--instance-market-options"))["MarketType"] == "spot"
    assert "audiopipe-run,Value=audiopipe" in after(told, "--tag-specifications")


def test_a_node_on_gcp_is_deleted_when_it_is_taken_or_its_time_is_up(cloud: Cloud) -> None:
    cloud.run("setup_workers.sh", "--cloud", "gcp", "1", **NODES["gcp"], MAX_HOURS="10")
    (call,) = cloud.started()
    told = call["told"]
    assert told[1:5] == ["compute", "instances", "create", "audiopipe-0"]
    assert after(told, "--provisioning-model") == "SPOT"
    assert after(told, "--instance-termination-action") == "DELETE"
    assert after(told, "--max-run-duration") == "600m"
    assert "--boot-disk-auto-delete" in told
    assert after(told, "--labels") == "audiopipe-run=audiopipe,audiopipe-partition=0"


def test_nodes_on_demand_are_not_spot(cloud: Cloud) -> None:
    cloud.run("setup_workers.sh", "1", **NODES["ec2"], SPOT="0")
    cloud.run("setup_workers.sh", "--cloud", "gcp", "1", **NODES["gcp"], SPOT="0")
    ec2, gcp = (call["told"] for call in cloud.started())
    assert "--instance-market-options" not in ec2
    assert after(gcp, "--provisioning-model") == "STANDARD"


def test_the_partition_of_a_node_that_was_taken_can_be_started_alone(cloud: Cloud) -> None:
    done = cloud.run("setup_workers.sh", "8", "3", "5", **NODES["ec2"])
    assert [call["user_data"][0].count(" 8 >>/etc") for call in cloud.started()] == [1, 1]
    assert "3 8 >>" in cloud.started()[0]["user_data"][0]
    assert "2 of 2 nodes asked for" in done.stderr


def test_a_partition_that_is_at_work_is_not_paid_for_twice(cloud: Cloud) -> None:
    cloud.answers = [(["describe-instances"], 0, "i-7")]
    done = cloud.run("setup_workers.sh", "1", **NODES["ec2"])
    assert not cloud.started()
    assert "partition 0 of 'audiopipe' is at work on i-7" in done.stderr


@pytest.mark.parametrize("name", ["ec2", "gcp"])
def test_a_partial_launch_failure_says_how_to_end_started_nodes(cloud: Cloud, name: str) -> None:
    word = {"ec2": "run-instances", "gcp": "create"}[name]
    cloud.answers = [([word], 0, "one"), ([word], 254, "")]
    done = cloud.run("setup_workers.sh", "--cloud", name, "4", **NODES[name], RUN="mine")
    assert done.returncode == 254
    assert len(cloud.started()) == 2
    assert "1 of 4 nodes asked for as 'mine'" in done.stderr
    assert f"RUN=mine {CLUSTER}/teardown.sh --cloud {name}" in done.stderr


@pytest.mark.parametrize("name", ["ec2", "gcp"])
def test_a_dry_run_starts_nothing(cloud: Cloud, name: str) -> None:
    done = cloud.run("setup_workers.sh", "--cloud", name, "2", **NODES[name], DRY_RUN="1")
    assert not cloud.started()
    assert done.stdout.count("would run:") == 2


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (("none",), {}, "'none' is not a number of nodes"),
        (("4", "4"), {}, "there is no partition '4' of 4"),
        (("--cloud", "moon", "1"), {}, "unknown cloud 'moon': ec2 or gcp"),
        (("1",), {"RUN": "My Run"}, "RUN='My Run': small letters"),
    ],
)
def test_a_mistake_costs_nothing(cloud: Cloud, arguments: tuple[str, ...], given: dict[str, str], said: str) -> None:
    done = cloud.run("setup_workers.sh", *arguments, **NODES["ec2"], **given)
    assert done.returncode == 2
    assert said in done.stderr
    assert not cloud.started()


def test_teardown_on_ec2_ends_nodes_and_deletes_leftover_disks(cloud: Cloud) -> None:
    cloud.answers = [
        (["describe-instances"], 0, "i-1\ti-2"),
        (["describe-instances"], 0, "i-1\ti-2"),
        (["describe-instances"], 0, ""),
        (["describe-volumes"], 0, "vol-1"),
        (["describe-volumes"], 0, ""),
    ]
    done = cloud.run("teardown.sh", RUN="mine")
    told = [" ".join(call["told"]) for call in cloud.calls]
    assert "Name=tag:audiopipe-run,Values=mine" in told[0]
    assert told[2].startswith("aws ec2 terminate-instances --instance-ids i-1 i-2")
    assert told[3] == "aws ec2 wait instance-terminated --instance-ids i-1 i-2"
    assert "aws ec2 delete-volume --volume-id vol-1" in told
    assert (done.returncode, "no node and no disk is left" in done.stdout) == (0, True)


def test_teardown_on_gcp_deletes_nodes_and_disks_in_every_zone(cloud: Cloud) -> None:
    cloud.answers = [
        (["instances", "list"], 0, "mine-0 us-central1-a\nmine-1 europe-west4-b"),
        (["instances", "list"], 0, "mine-0 us-central1-a\nmine-1 europe-west4-b"),
        (["instances", "list"], 0, ""),
        (["disks", "list"], 0, "mine-7 us-central1-a"),
        (["disks", "list"], 0, ""),
    ]
    done = cloud.run("teardown.sh", "--cloud", "gcp", RUN="mine")
    assert done.returncode == 0, done.stderr
    deleted = [" ".join(call["told"][2:]) for call in cloud.calls if "delete" in call["told"]]
    assert deleted == [
        "instances delete mine-0 --zone us-central1-a --delete-disks all --quiet",
        "instances delete mine-1 --zone europe-west4-b --delete-disks all --quiet",
        "disks delete mine-7 --zone us-central1-a --quiet",
    ]


@pytest.mark.parametrize(("name", "words"), [("ec2", ["describe-volumes"]), ("gcp", ["disks", "list"])])
def test_teardown_fails_while_something_is_left_to_be_billed(cloud: Cloud, name: str, words: list[str]) -> None:
    cloud.answers = [(words, 0, "left-over")]
    done = cloud.run("teardown.sh", "--cloud", name)
    assert done.returncode == 1
    assert "still has what is billed" in done.stderr


Reply = Callable[[str, str, dict[str, str]], tuple[int, str]]


@contextmanager
def web(reply: Reply) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """A cloud's metadata service and API; the requests as (method, path, Authorization)."""
    asked: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append((self.command, self.path, self.headers.get("Authorization", "")))
            status, body = reply(self.command, self.path, dict(self.headers))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_PUT = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Nothing on the test's terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def ec2(notice: str, noticed_at: int) -> Reply:
    """EC2's second metadata service: a token first, and the notice from the n-th question on."""
    asked = [0]

    def reply(method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        if method == "PUT":
            return 200, "a-token"
        asked[0] += path.endswith(notice)
        known = headers.get("X-aws-ec2-metadata-token") == "a-token" and path.endswith(notice)
        return (200, "{}") if known and asked[0] >= noticed_at else (404, "")

    return reply


def gcp(preempted: Callable[[int], bool], may_delete: bool = True) -> Reply:
    """GCP's metadata service, and the one call of its API that a node makes."""
    asked = [0]
    about = {
        "/computeMetadata/v1/instance/zone": "projects/42/zones/z",
        "/computeMetadata/v1/instance/name": "audiopipe-3",
        "/computeMetadata/v1/instance/service-accounts/default/token": '{"access_token": "a-token", "expires_in": 9}',
    }

    def reply(method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        if method == "DELETE":
            return (200 if may_delete else 403), "{}"
        if headers.get("Metadata-Flavor") != "Google":
            return 404, ""
        if path.endswith("/preempted"):
            asked[0] += 1
            return 200, "TRUE" if preempted(asked[0]) else "FALSE"
        return (200, about[path]) if path in about else (404, "")

    return reply


def systemctl(folder: Path, *, failed: bool = True) -> dict[str, str]:
    """A recorder in its place, by whose word the partition has failed or has not."""
    called = folder / "systemctl"
    called.write_text(f'#!/bin/sh\n[ "$1" != is-failed ] || exit {int(not failed)}\necho "$@" >> {folder}/called\n')
    called.chmod(0o755)
    return {**os.environ, "SYSTEMCTL": str(called)}


@pytest.mark.parametrize(
    "reply",
    [ec2("/latest/meta-data/spot/instance-action", 2), gcp(lambda asked: asked > 1)],
    ids=["ec2", "gcp"],
)
def test_a_spot_notice_stops_the_units_and_no_notice_does_not(tmp_path: Path, reply: Reply) -> None:
    with web(reply) as (address, asked):
        environment = {**systemctl(tmp_path), "METADATA_URL": address, "EVERY_S": "0.05"}
        subprocess.run([CLUSTER / "watch_spot.sh", "a.service"], env=environment, check=True, timeout=120)
    assert (tmp_path / "called").read_text() == "stop a.service\n"
    assert len(asked) >= 3, "it asked again after the first no"


@pytest.mark.parametrize(
    ("why", "result", "status", "asked", "off"),
    [
        ("done", "success", "0", "1", True),
        ("done", "exit-code", "4", "1", False),
        ("done", "success", "0", "0", False),
        ("failed", "", "", "1", True),
        ("failed", "", "", "0", False),
    ],
)
def test_a_node_powers_off_only_on_request_when_done_or_failed(
    tmp_path: Path, why: str, result: str, status: str, asked: str, off: bool
) -> None:
    unit = {"SERVICE_RESULT": result, "EXIT_STATUS": status, "AUDIOPIPE_POWEROFF": asked, "AUDIOPIPE_LAST_LOOK_S": "0"}
    with web(lambda *_: (404, "")) as (address, _):
        environment = {**systemctl(tmp_path), **unit, "METADATA_URL": address}
        subprocess.run([CLUSTER / "power_off.sh", why], env=environment, check=True, timeout=120)
    assert (tmp_path / "called").exists() is off


def test_a_failure_cured_by_a_restart_does_not_power_the_node_off(tmp_path: Path) -> None:
    unit = {"AUDIOPIPE_POWEROFF": "1", "AUDIOPIPE_LAST_LOOK_S": "0"}
    environment = {**systemctl(tmp_path, failed=False), **unit, "METADATA_URL": "http://127.0.0.1:9"}
    subprocess.run([CLUSTER / "power_off.sh", "failed"], env=environment, check=True, timeout=120)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("may", [True, False])
def test_a_gcp_node_deletes_itself_or_else_powers_off(tmp_path: Path, may: bool) -> None:
    unit = {"SERVICE_RESULT": "success", "EXIT_STATUS": "0", "AUDIOPIPE_POWEROFF": "1"}
    with web(gcp(lambda _: False, may_delete=may)) as (address, asked):
        environment = {**systemctl(tmp_path), **unit, "METADATA_URL": address, "COMPUTE_URL": address}
        command = [CLUSTER / "power_off.sh", "done"]
        done = subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True, text=True)
    assert asked[-1] == ("DELETE", "/compute/v1/projects/42/zones/z/instances/audiopipe-3", "Bearer a-token")
    assert (tmp_path / "called").read_text() == "poweroff --no-wall\n"
    assert ("teardown.sh --cloud gcp" in done.stderr) is not may
