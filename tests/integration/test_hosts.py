"""Three real hosts (network namespaces, an sshd each), the `ssh` profile with TLS, one cable pulled in the middle."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hosts import Hosts
from outputs import config, content, corpus, make_output

REPOSITORY = Path(__file__).parents[2]
AUDIOPIPE = str(Path(sys.executable).with_name("audiopipe"))
# A host that is gone is noticed after as long as TCP and heartbeats are given; minutes by default, half a one here.
IMPATIENT = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "30s", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "30s"}
SHARDS = 30

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(480)]


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    (tmp_path / "hosts").mkdir()
    network = Hosts(tmp_path / "hosts", count=4)
    try:
        network.start()
        yield network
    finally:
        network.stop()


@pytest.fixture
def profiles(hosts: Hosts, tmp_path: Path) -> str:
    """The profile `ssh` as somebody would fill it in; it encrypts, as it does by default."""
    subprocess.run([str(REPOSITORY / "cluster/make_tls.sh"), str(tmp_path / "tls")], check=True, capture_output=True)
    own = {
        "hosts": [hosts.address(number) for number in (1, 2, 3)],
        "tls": str(tmp_path / "tls"),
        "interface": "eth0",
        "worker_class": "distributed.Nanny",
        "remote_python": sys.executable,
        "connect_options": {
            "username": "root",
            "known_hosts": str(hosts.folder / "known_hosts"),
            "client_keys": [str(hosts.folder / "client_key")],
        },
        "worker_options": {"local_directory": str(tmp_path)},
    }
    (tmp_path / "profiles.yaml").write_text(yaml.safe_dump({"ssh": own}))
    return str(tmp_path / "profiles.yaml")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"), videos=2 * SHARDS, missing=False, seconds=20.0)


def command(catalog: Path, output: Path) -> list[str]:
    """As `outputs.config` has it."""
    fixed = "--shard-videos 2 --min-snr-db none --max-silence-ratio none --run-id tests --device cpu --heartbeat-s 1"
    return [AUDIOPIPE, "run", "--catalog", str(catalog), "--output", str(output), *fixed.split()]


@pytest.fixture(scope="module")
def undisturbed(catalog: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    make_output(config(catalog, output))
    return content(output)


def start(hosts: Hosts, profiles: str, catalog: Path, output: Path, log: Path) -> "subprocess.Popen[bytes]":
    work = [*command(catalog, output), "--cluster", "ssh", "--quiet"]
    return hosts.popen(0, *work, log=log, AUDIOPIPE_PROFILES=profiles, **IMPATIENT)


def workers_of(output: Path) -> set[str]:
    commits = [json.loads(path.read_text()) for path in (output / "_commits").glob("*.json")]
    return {commit["result"]["worker"] for commit in commits}


def test_three_hosts_make_what_one_makes_also_when_one_is_cut_off_and_it_can_come_back(
    hosts: Hosts, profiles: str, catalog: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    output, log = tmp_path / "cut", tmp_path / "cut.log"
    driver = start(hosts, profiles, catalog, output, log)
    deadline = time.monotonic() + 90
    while len(list((output / "_commits").glob("*.json"))) < 4:
        assert driver.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
    hosts.pull_cable(3)
    assert len(list((output / "_commits").glob("*.json"))) < SHARDS, "the cable was pulled too late"
    assert driver.wait(timeout=150) == 0, log.read_text()[-3000:]
    assert content(output) == undisturbed

    hosts.plug_cable(3)
    whole, log = tmp_path / "whole", tmp_path / "whole.log"
    assert start(hosts, profiles, catalog, whole, log).wait(timeout=150) == 0, log.read_text()[-3000:]
    assert len(workers_of(whole)) == 3, "the host that was cut off works again"
    assert content(whole) == undisturbed
