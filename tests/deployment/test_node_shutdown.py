"""Nodes of EC2 and GCP that stop: a spot notice, and the end of a partition, with a web server as the cloud."""

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

CLUSTER = Path(__file__).parents[2] / "cluster"

Reply = Callable[[str, str, dict[str, str]], tuple[int, str]]


@contextmanager
def web(reply: Reply) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Serve a cloud's metadata and API; yield the address and the requests as (method, path, Authorization)."""
    requests: list[tuple[str, str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            requests.append((self.command, self.path, self.headers.get("Authorization", "")))
            status, body = reply(self.command, self.path, dict(self.headers))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_PUT = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            """Keep requests off the test's terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


def ec2(notice: str, noticed_at: int) -> Reply:
    """Answer as EC2's IMDSv2: it needs a token, and has the notice from the n-th request on."""
    requests = [0]

    def reply(method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        if method == "PUT":
            return 200, "a-token"
        requests[0] += path.endswith(notice)
        valid = headers.get("X-aws-ec2-metadata-token") == "a-token" and path.endswith(notice)
        return (200, "{}") if valid and requests[0] >= noticed_at else (404, "")

    return reply


def gcp(preempted: Callable[[int], bool], may_delete: bool = True) -> Reply:
    """Answer as GCP's metadata service, and as the API when a node deletes itself."""
    requests = [0]
    metadata = {
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
            requests[0] += 1
            return 200, "TRUE" if preempted(requests[0]) else "FALSE"
        return (200, metadata[path]) if path in metadata else (404, "")

    return reply


def systemctl(folder: Path, *, failed: bool = True) -> dict[str, str]:
    """Put a recorder in place of systemctl, which reports the partition as failed or not."""
    recorder = folder / "systemctl"
    recorder.write_text(f'#!/bin/sh\n[ "$1" != is-failed ] || exit {int(not failed)}\necho "$@" >> {folder}/called\n')
    recorder.chmod(0o755)
    return {**os.environ, "SYSTEMCTL": str(recorder)}


@pytest.mark.parametrize(
    "reply",
    [ec2("/latest/meta-data/spot/instance-action", 2), gcp(lambda request: request > 1)],
    ids=["ec2", "gcp"],
)
def test_a_spot_notice_stops_the_units_and_no_notice_does_not(tmp_path: Path, reply: Reply) -> None:
    with web(reply) as (address, requests):
        environment = {**systemctl(tmp_path), "METADATA_URL": address, "EVERY_S": "0.05"}
        subprocess.run([CLUSTER / "watch_spot.sh", "a.service"], env=environment, check=True, timeout=120)
    assert (tmp_path / "called").read_text() == "stop a.service\n"
    assert len(requests) >= 3, "it repeats the request after a negative answer"


@pytest.mark.parametrize(
    ("event", "result", "status", "poweroff", "is_off"),
    [
        ("done", "success", "0", "1", True),
        ("done", "exit-code", "4", "1", False),
        ("done", "success", "0", "0", False),
        ("failed", "", "", "1", True),
        ("failed", "", "", "0", False),
    ],
)
def test_a_node_powers_off_only_on_request_when_done_or_failed(
    tmp_path: Path, event: str, result: str, status: str, poweroff: str, is_off: bool
) -> None:
    unit = {
        "SERVICE_RESULT": result,
        "EXIT_STATUS": status,
        "AUDIOPIPE_POWEROFF": poweroff,
        "AUDIOPIPE_LAST_LOOK_S": "0",
    }
    with web(lambda *_: (404, "")) as (address, _):
        environment = {**systemctl(tmp_path), **unit, "METADATA_URL": address}
        subprocess.run([CLUSTER / "power_off.sh", event], env=environment, check=True, timeout=120)
    assert (tmp_path / "called").exists() is is_off


def test_a_failure_cured_by_a_restart_does_not_power_the_node_off(tmp_path: Path) -> None:
    unit = {"AUDIOPIPE_POWEROFF": "1", "AUDIOPIPE_LAST_LOOK_S": "0"}
    environment = {**systemctl(tmp_path, failed=False), **unit, "METADATA_URL": "http://127.0.0.1:9"}
    subprocess.run([CLUSTER / "power_off.sh", "failed"], env=environment, check=True, timeout=120)
    assert not (tmp_path / "called").exists()


@pytest.mark.parametrize("allowed", [True, False])
def test_a_gcp_node_deletes_itself_or_else_powers_off(tmp_path: Path, allowed: bool) -> None:
    unit = {"SERVICE_RESULT": "success", "EXIT_STATUS": "0", "AUDIOPIPE_POWEROFF": "1"}
    with web(gcp(lambda _: False, may_delete=allowed)) as (address, requests):
        environment = {**systemctl(tmp_path), **unit, "METADATA_URL": address, "COMPUTE_URL": address}
        command = [CLUSTER / "power_off.sh", "done"]
        done = subprocess.run(command, env=environment, check=True, timeout=120, capture_output=True, text=True)
    assert requests[-1] == ("DELETE", "/compute/v1/projects/42/zones/z/instances/audiopipe-3", "Bearer a-token")
    assert (tmp_path / "called").read_text() == "poweroff --no-wall\n"
    assert ("teardown.sh --cloud gcp" in done.stderr) is not allowed
