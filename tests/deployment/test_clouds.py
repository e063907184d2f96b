"""Machines of EC2 and GCP: the commands that start and delete them, with recorders in place of the clouds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

CLUSTER = Path(__file__).parents[2] / "cluster"
SECRET = "a-secret"

# A recorder writes its arguments and user data to $FOLDER/calls. It answers with the first entry of $FOLDER/answers
# whose words are all among its arguments; an answer is used once, unless it is the last with these words.
RECORDER = """
import json, os, pathlib, sys
folder, arguments = pathlib.Path(os.environ["FOLDER"]), [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]]
files = [word for word in arguments if "user-data=" in word or "file://" in word]
paths = [word.split("=", 1)[-1].removeprefix("file://") for word in files]
with (folder / "calls").open("a") as calls:
    user_data = [pathlib.Path(path).read_text() for path in paths]
    calls.write(json.dumps({"arguments": arguments, "user_data": user_data}) + "\\n")
answers = json.loads((folder / "answers").read_text())
for number, (words, code, answer) in enumerate(answers):
    if set(words) <= set(arguments):
        if [words] != [later[0] for later in answers if later[0] == words]:
            answers.pop(number)
        (folder / "answers").write_text(json.dumps(answers))
        if answer:
            print(answer)
        raise SystemExit(code)
"""
Answer = tuple[list[str], int, str]
COMMON = {"SECRETS": "s3://private/audiopipe/", "SOURCE": "https://git.example/audiopipe"}
NODES = {
    "ec2": COMMON | {"AMI": "ami-1", "INSTANCE_PROFILE": "audiopipe", "SECURITY_GROUP": "sg-1"},
    "gcp": COMMON
    | {
        "SECRETS": "gs://private/audiopipe",
        "IMAGE": "projects/p/global/images/i",
        "ZONE": "us-central1-a",
        "SUBNET": "audiopipe",
        "SERVICE_ACCOUNT": "audiopipe@p",
    },
}


class Cloud:
    """A place to run the scripts of cluster/, where `aws` and `gcloud` are recorders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.answers: list[Answer] = []
        for name in ("aws", "gcloud"):
            (folder / name).write_text(f"#!{sys.executable}\n{RECORDER}")
            (folder / name).chmod(0o755)

    def run(self, script: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        (self.folder / "answers").write_text(json.dumps(self.answers))
        path = f"{self.folder}:{os.environ['PATH']}"
        keys = {"AWS_SECRET_ACCESS_KEY": SECRET, "SUPABASE_SERVICE_KEY": SECRET}
        environment = {**os.environ, **keys, "PATH": path, "FOLDER": str(self.folder), **variables}
        command = [CLUSTER / script, *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    @property
    def calls(self) -> list[dict[str, Any]]:
        calls = self.folder / "calls"
        return [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []

    def starts(self) -> list[dict[str, Any]]:
        return [call for call in self.calls if {"run-instances", "create"} & set(call["arguments"])]


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


def value_of(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


@pytest.mark.parametrize("name", ["ec2", "gcp"])
def test_every_node_gets_one_partition_and_no_key(cloud: Cloud, name: str) -> None:
    done = cloud.run("setup_workers.sh", "--cloud", name, "3", **NODES[name])
    assert done.returncode == 0, done.stderr
    assert len(cloud.starts()) == 3
    for index, call in enumerate(cloud.starts()):
        assert SECRET not in json.dumps(call)
        (user_data,) = call["user_data"]
        assert user_data.startswith("#cloud-config\n")
        parsed = yaml.safe_load(user_data)
        assert parsed["bootcmd"] == [["systemd-run", "--on-active=2160min", "systemctl", "poweroff", "--no-wall"]]
        (node,) = parsed["write_files"]
        assert f"{index} 3 >>/etc/audiopipe/environment" in node["content"]
        assert parsed["runcmd"] == [[node["path"]]]
        assert '"https://git.example/audiopipe" /opt/audiopipe' in node["content"]


SOURCES = [
    "https://git.example/a&b|c/audiopipe",
    "https://git.example/audiopipe?ref=x&depth=1#main",
    "ssh://git@git.example/audiopipe",
    "git@git.example:team/audiopipe",
]


@pytest.mark.parametrize("source", SOURCES)
def test_an_address_reaches_the_node_as_it_is(cloud: Cloud, source: str) -> None:
    done = cloud.run("setup_workers.sh", "1", **(NODES["ec2"] | {"SOURCE": source, "SECRETS": "s3://private/a&b|c/"}))
    assert done.returncode == 0, done.stderr
    (call,) = cloud.starts()
    (node,) = yaml.safe_load(call["user_data"][0])["write_files"]
    assert f'"{source}" /opt/audiopipe' in node["content"]
    assert '"s3://private/a&b|c/" /etc/audiopipe/' in node["content"]
    assert "@SOURCE@" not in node["content"]


@pytest.mark.parametrize(
    "address",
    [
        "https://TOKEN:x@git.example/audiopipe",
        "https://TOKEN@git.example/audiopipe",
        "https://user:TO/KEN@git.example/audiopipe",
        "ssh://git:TOKEN@git.example/audiopipe",
        "https://git.example/audiopipe?access_token=TOKEN",
        "https://git.example/audiopipe?X-Amz-Signature=TOKEN",
        "https://git.example/$(echo TOKEN)",
        'https://git.example/"TOKEN',
        "https://git.example/`TOKEN`",
    ],
)
@pytest.mark.parametrize("name", ["SOURCE", "SECRETS"])
def test_an_address_with_a_key_or_a_trap_is_refused(cloud: Cloud, name: str, address: str) -> None:
    done = cloud.run("setup_workers.sh", "1", **(NODES["ec2"] | {name: address}))
    assert done.returncode == 2
    assert not cloud.starts()
    assert name in done.stderr
    assert "KEN" not in done.stderr + done.stdout


def test_a_node_on_ec2_is_deleted_with_its_disk_at_shutdown(cloud: Cloud) -> None:
    cloud.run("setup_workers.sh", "1", **NODES["ec2"])
    (call,) = cloud.starts()
    arguments = call["arguments"]
    assert value_of(arguments, "--instance-initiated-shutdown-behavior") == "terminate"
    assert "DeleteOnTermination=true" in value_of(arguments, "--block-device-mappings")
    assert json.loads(value_of(arguments, "--instance-market-options"))["MarketType"] == "spot"
    assert "audiopipe-run,Value=audiopipe" in value_of(arguments, "--tag-specifications")


def test_a_node_on_gcp_is_deleted_when_reclaimed_or_out_of_time(cloud: Cloud) -> None:
    cloud.run("setup_workers.sh", "--cloud", "gcp", "1", **NODES["gcp"], MAX_HOURS="10")
    (call,) = cloud.starts()
    arguments = call["arguments"]
    assert arguments[1:5] == ["compute", "instances", "create", "audiopipe-0"]
    assert value_of(arguments, "--provisioning-model") == "SPOT"
    assert value_of(arguments, "--instance-termination-action") == "DELETE"
    assert value_of(arguments, "--max-run-duration") == "600m"
    assert "--boot-disk-auto-delete" in arguments
    assert value_of(arguments, "--labels") == "audiopipe-run=audiopipe,audiopipe-partition=0"


def test_nodes_on_demand_are_not_spot(cloud: Cloud) -> None:
    cloud.run("setup_workers.sh", "1", **NODES["ec2"], SPOT="0")
    cloud.run("setup_workers.sh", "--cloud", "gcp", "1", **NODES["gcp"], SPOT="0")
    ec2, gcp = (call["arguments"] for call in cloud.starts())
    assert "--instance-market-options" not in ec2
    assert value_of(gcp, "--provisioning-model") == "STANDARD"


def test_the_partition_of_a_reclaimed_node_can_be_started_alone(cloud: Cloud) -> None:
    done = cloud.run("setup_workers.sh", "8", "3", "5", **NODES["ec2"])
    assert [call["user_data"][0].count(" 8 >>/etc") for call in cloud.starts()] == [1, 1]
    assert "3 8 >>" in cloud.starts()[0]["user_data"][0]
    assert "requested 2 of 2 nodes" in done.stderr


def test_a_running_partition_is_not_started_twice(cloud: Cloud) -> None:
    cloud.answers = [(["describe-instances"], 0, "i-7")]
    done = cloud.run("setup_workers.sh", "1", **NODES["ec2"])
    assert not cloud.starts()
    assert "partition 0 of 'audiopipe' already runs on i-7" in done.stderr


@pytest.mark.parametrize("name", ["ec2", "gcp"])
def test_a_partial_launch_failure_says_how_to_end_started_nodes(cloud: Cloud, name: str) -> None:
    word = {"ec2": "run-instances", "gcp": "create"}[name]
    cloud.answers = [([word], 0, "i-1"), ([word], 254, "")]
    done = cloud.run("setup_workers.sh", "--cloud", name, "4", **NODES[name], RUN="speech")
    assert done.returncode == 254
    assert len(cloud.starts()) == 2
    assert "requested 1 of 4 nodes of 'speech'" in done.stderr
    assert f"RUN=speech {CLUSTER}/teardown.sh --cloud {name}" in done.stderr


@pytest.mark.parametrize("name", ["ec2", "gcp"])
def test_a_dry_run_starts_nothing(cloud: Cloud, name: str) -> None:
    done = cloud.run("setup_workers.sh", "--cloud", name, "2", **NODES[name], DRY_RUN="1")
    assert not cloud.starts()
    assert done.stdout.count("would run:") == 2


@pytest.mark.parametrize(
    ("arguments", "variables", "message"),
    [
        (("none",), {}, "'none' is not a number of nodes"),
        (("4", "4"), {}, "there is no partition '4' of 4"),
        (("--cloud", "moon", "1"), {}, "unknown cloud 'moon': use ec2 or gcp"),
        (("1",), {"RUN": "My Run"}, "RUN='My Run' must be small letters"),
    ],
)
def test_a_mistake_costs_nothing(
    cloud: Cloud, arguments: tuple[str, ...], variables: dict[str, str], message: str
) -> None:
    done = cloud.run("setup_workers.sh", *arguments, **NODES["ec2"], **variables)
    assert done.returncode == 2
    assert message in done.stderr
    assert not cloud.starts()


def test_teardown_on_ec2_ends_nodes_and_deletes_leftover_disks(cloud: Cloud) -> None:
    cloud.answers = [
        (["describe-instances"], 0, "i-1\ti-2"),
        (["describe-instances"], 0, "i-1\ti-2"),
        (["describe-instances"], 0, ""),
        (["describe-volumes"], 0, "vol-1"),
        (["describe-volumes"], 0, ""),
    ]
    done = cloud.run("teardown.sh", RUN="speech")
    commands = [" ".join(call["arguments"]) for call in cloud.calls]
    assert "Name=tag:audiopipe-run,Values=speech" in commands[0]
    assert commands[2].startswith("aws ec2 terminate-instances --instance-ids i-1 i-2")
    assert commands[3] == "aws ec2 wait instance-terminated --instance-ids i-1 i-2"
    assert "aws ec2 delete-volume --volume-id vol-1" in commands
    assert (done.returncode, "no node and no disk is left" in done.stdout) == (0, True)


def test_teardown_on_gcp_deletes_nodes_and_disks_in_every_zone(cloud: Cloud) -> None:
    cloud.answers = [
        (["instances", "list"], 0, "speech-0 us-central1-a\nspeech-1 europe-west4-b"),
        (["instances", "list"], 0, "speech-0 us-central1-a\nspeech-1 europe-west4-b"),
        (["instances", "list"], 0, ""),
        (["disks", "list"], 0, "speech-7 us-central1-a"),
        (["disks", "list"], 0, ""),
    ]
    done = cloud.run("teardown.sh", "--cloud", "gcp", RUN="speech")
    assert done.returncode == 0, done.stderr
    deleted = [" ".join(call["arguments"][2:]) for call in cloud.calls if "delete" in call["arguments"]]
    assert deleted == [
        "instances delete speech-0 --zone us-central1-a --delete-disks all --quiet",
        "instances delete speech-1 --zone europe-west4-b --delete-disks all --quiet",
        "disks delete speech-7 --zone us-central1-a --quiet",
    ]


@pytest.mark.parametrize(("name", "query"), [("ec2", ["describe-volumes"]), ("gcp", ["disks", "list"])])
def test_teardown_fails_while_resources_are_left(cloud: Cloud, name: str, query: list[str]) -> None:
    cloud.answers = [(query, 0, "left-over")]
    done = cloud.run("teardown.sh", "--cloud", name)
    assert done.returncode == 1
    assert "are left and cost money" in done.stderr
    assert "left-over" in done.stderr
