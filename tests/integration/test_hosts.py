"""Three real hosts (network namespaces, each with sshd), encrypted, with real speech in an S3 server on one of them.

Cables are pulled in the middle of a run: permanently, for a moment, and until the host counts as lost. The profile
`ssh` starts the workers, or a service manager has started them and the profile is `existing`.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from factories import is_decoder_process, prepend_python_path
from netns import Hosts
from output_factory import RUN_ID, config, content, make_output
from processes import hold_in
from s3_server import BUCKET, S3Server
from s3fs import S3FileSystem
from waiting import wait_until

from audiopipe.cluster.connect import close, connect
from audiopipe.dataset.verify import verify
from audiopipe.errors import ClusterError
from audiopipe.ledger import open_ledger
from audiopipe.store.objects import Store

REPOSITORY = Path(__file__).parents[2]
AUDIOPIPE = str(Path(sys.executable).with_name("audiopipe"))
# A lost host is detected after these timeouts, which are minutes by default. With less than half a minute, a busy
# machine whose workers import torch for seconds would count as lost.
SHORT_TIMEOUTS = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "30s", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "30s"}
FIXED = (
    "--shard-videos 1 --min-snr-db none --max-silence-ratio none --run-id tests --device cpu --heartbeat-s 1 "
    "--max-failed-share 1"
)
NOT_FINISHED = 4
WITH_DEAD_LETTERS = 3  # exit code of a run of the demo corpus, which has defective videos

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file; while it exists, decoders on the hosts wait, so that a host is cut off in mid-shard."""
    return hold_in(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory, hold: Path) -> Iterator[Hosts]:
    """Start hosts: 0 for the driver, 1 to 3 for workers, and 1 also for the S3 server."""
    folder = tmp_path_factory.mktemp("hosts")
    network = Hosts(folder, count=4)
    server = S3Server(folder, network.address(1), ("ip", "netns", "exec", network.space(1)))
    network.environment = {**server.environment(), "PYTHONPATH": prepend_python_path(hold.parent)}
    try:
        network.start()
        server.start()
        with pytest.MonkeyPatch.context() as patch:
            for name, value in server.environment().items():
                patch.setenv(name, value)
            S3FileSystem.clear_instance_cache()
            yield network
    finally:
        S3FileSystem.clear_instance_cache()
        if server.process is not None:
            server.kill()
        network.stop()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("certificates") / "tls"
    subprocess.run([str(REPOSITORY / "cluster/make_tls.sh"), str(folder)], check=True, capture_output=True)
    return str(folder)


@pytest.fixture(scope="module")
def profiles(hosts: Hosts, tls: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write the profiles `ssh` and `existing` as a user would, with encryption as by default."""
    folder = tmp_path_factory.mktemp("profiles")
    ssh = {
        "hosts": [hosts.address(number) for number in (1, 2, 3)],
        "tls": tls,
        "interface": "eth0",
        "worker_class": "distributed.Nanny",
        "remote_python": sys.executable,
        "connect_options": {
            "username": "root",
            "known_hosts": str(hosts.folder / "known_hosts"),
            "client_keys": [str(hosts.folder / "client_key")],
        },
        "worker_options": {"local_directory": str(folder)},
    }
    (folder / "profiles.yaml").write_text(yaml.safe_dump({"ssh": ssh, "existing": {"tls": tls}}))
    return str(folder / "profiles.yaml")


@pytest.fixture(scope="module")
def catalog(hosts: Hosts, tiny_corpus: Path) -> str:
    """Upload the demo corpus to the bucket."""
    bucket = Store(f"s3://{BUCKET}/corpus")
    for path in tiny_corpus.rglob("*"):
        if path.is_file():
            bucket.upload(path, str(path.relative_to(tiny_corpus)))
    return f"{bucket.url}/catalog.parquet"


@pytest.fixture(scope="module")
def undisturbed(catalog: str) -> dict[str, bytes]:
    return content(make_output(config(catalog, f"s3://{BUCKET}/undisturbed", shard_videos=1)).url)


@dataclass
class Drive:
    """A run on the three hosts, driven from host 0."""

    hosts: Hosts
    profiles: str
    catalog: str
    hold: Path
    folder: Path
    name: str
    cluster: str = "ssh"
    address: str = ""  # of an existing scheduler

    def __post_init__(self) -> None:
        self.output, self.ledger = f"s3://{BUCKET}/{self.name}", str(self.folder / f"{self.name}.sqlite")
        arguments = ["--catalog", self.catalog, "--output", self.output, "--ledger", self.ledger, *FIXED.split()]
        arguments += ["--decode-timeout-s", "600", "--cluster", self.cluster, "--quiet"]
        settings = {**SHORT_TIMEOUTS, "AUDIOPIPE_PROFILES": self.profiles, "DASK_SCHEDULER_ADDRESS": self.address}
        log = self.folder / f"{self.name}.log"
        self.process = self.hosts.popen(0, AUDIOPIPE, "run", *arguments, log=log, **settings)

    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()

    def commits(self) -> dict[str, bytes]:
        store = Store(self.output)
        return {name: store.read(name) for name in store.list() if name.startswith("_commits/")}

    def hosts_of_commits(self) -> list[str]:
        """List the address of the host of each commit."""
        commits = map(json.loads, self.commits().values())
        return [re.findall(r"tls://([0-9.]+):", commit["result"]["worker"])[0] for commit in commits]

    def wait_until(self, condition: Callable[[], object], expected: str) -> None:
        """Wait for a condition while the driver runs."""

        def holds() -> object:
            assert self.process.poll() is None, self.log()[-3000:]
            return condition()

        wait_until(holds, lambda: f"{expected}: {self.log()[-3000:]}", timeout_s=240, poll_s=0.2)

    def decoding(self, number: int) -> set[int]:
        """Return the process ids of the decoders on a host."""
        return {pid for pid in self.hosts.commands(number) if is_decoder_process(pid)}

    def pause_in_the_middle(self, *numbers: int) -> None:
        """Wait for some commits, and pause decoding when each of these hosts has a running shard."""
        self.wait_until(lambda: len(self.hosts_of_commits()) >= 2, "the first shards")
        self.hold.touch()
        self.wait_until(lambda: all(self.decoding(number) for number in numbers), "all hosts decode")

    def finish(self, undisturbed: dict[str, bytes]) -> None:
        """Wait for the end of the run, and check that the bytes are the same and no shard is recorded twice."""
        assert self.process.wait(timeout=240) == WITH_DEAD_LETTERS, self.log()[-3000:]
        actual = content(self.output)
        assert actual.keys() == undisturbed.keys()
        assert [name for name in actual if actual[name] != undisturbed[name]] == []
        assert verify(self.output).findings == ()
        with open_ledger(self.ledger) as ledger:
            shards = ledger.shards(RUN_ID)
        assert {shard.status for shard in shards} == {"done"}
        commits = Store(self.output).list()
        assert sorted(f"_commits/{shard.shard}.json" for shard in shards) == sorted(
            name for name in commits if name.startswith("_commits/")
        )


@pytest.fixture
def start(hosts: Hosts, profiles: str, catalog: str, hold: Path, tmp_path: Path) -> Iterator[Callable[..., Drive]]:
    yield lambda name, **settings: Drive(hosts, profiles, catalog, hold, tmp_path, name, **settings)
    hold.unlink(missing_ok=True)
    for number in (1, 2, 3):
        hosts.plug_cable(number)


def test_the_others_finish_when_a_host_is_cut_off_permanently(
    hosts: Hosts, start: Callable[..., Drive], hold: Path, undisturbed: dict[str, bytes]
) -> None:
    drive = start("cut")
    drive.pause_in_the_middle(1, 2, 3)
    hosts.pull_cable(3)
    hold.unlink()
    drive.finish(undisturbed)


def test_a_returning_host_rejoins_the_run_and_short_breaks_pass(
    hosts: Hosts, start: Callable[..., Drive], hold: Path, undisturbed: dict[str, bytes]
) -> None:
    drive = start("returned")
    drive.pause_in_the_middle(1, 2, 3)
    hosts.pull_cable(2)
    time.sleep(4)  # shorter than the TCP timeout, so TCP sends the lost packets again
    hosts.plug_cable(2)
    before = {pid for pid, command in hosts.commands(3).items() if "python" in command} - drive.decoding(3)
    assert before
    hosts.pull_cable(3)
    lost = f"the worker on {hosts.address(3)} has ended"
    drive.wait_until(lambda: lost in drive.log() and not before & hosts.commands(3).keys(), "the lost worker ended")
    orphans = drive.decoding(3)  # decoders of the lost worker, which also wait
    hosts.plug_cable(3)
    restarted = f"the worker on {hosts.address(3)} has restarted"
    drive.wait_until(lambda: restarted in drive.log(), "the worker restarts")
    drive.wait_until(lambda: drive.decoding(3) - orphans, "a shard on the host that returned")
    done = drive.hosts_of_commits().count(hosts.address(3))
    hold.unlink()
    drive.finish(undisturbed)
    assert f"the worker on {hosts.address(2)} has ended" not in drive.log()
    assert drive.hosts_of_commits().count(hosts.address(3)) > done


@dataclass
class SupervisedCluster:
    """A scheduler on host 1 and workers on 2 and 3, started by their units' scripts and restarted at their end."""

    hosts: Hosts
    tls: str
    folder: Path
    hold: Path

    def __post_init__(self) -> None:
        self.address = f"tls://{self.hosts.address(1)}:8786"
        self.processes = {1: self.supervise(1, "run_scheduler.sh")} | {
            number: self.supervise(number, "run_worker.sh") for number in (2, 3)
        }

    def supervise(self, number: int, script: str) -> subprocess.Popen[bytes]:
        environment = {
            "AUDIOPIPE_TLS": self.tls,
            "DASK_COMMAND": str(Path(sys.executable).with_name("dask")),
            **SHORT_TIMEOUTS,
        }
        environment |= {
            "DASK_SCHEDULER_ADDRESS": self.address,
            "STATE_DIRECTORY": str(self.folder),
            "DEATH_TIMEOUT": "20",
        }
        environment |= {"PYTHONPATH": prepend_python_path(self.hold.parent)}
        log = self.folder / f"{number}.log"
        return self.hosts.supervise(number, str(REPOSITORY / "cluster" / script), log=log, **environment)

    def log(self, number: int) -> str:
        return (self.folder / f"{number}.log").read_text()

    def close(self) -> None:
        for number, process in self.processes.items():
            process.kill()
            self.hosts.kill(number, "python")


@pytest.fixture
def supervised(hosts: Hosts, tls: str, hold: Path, tmp_path: Path) -> Iterator[SupervisedCluster]:
    cluster = SupervisedCluster(hosts, tls, tmp_path, hold)
    yield cluster
    cluster.close()


def test_a_supervised_worker_rejoins_when_its_host_is_back(
    hosts: Hosts, start: Callable[..., Drive], supervised: SupervisedCluster, hold: Path, undisturbed: dict[str, bytes]
) -> None:
    drive = start("joined", cluster="existing", address=supervised.address)
    drive.pause_in_the_middle(2, 3)
    orphans = drive.decoding(3)
    hosts.pull_cable(3)
    drive.wait_until(lambda: "the process has ended" in supervised.log(3), "the lost workers end")
    hosts.plug_cable(3)
    drive.wait_until(lambda: drive.decoding(3) - orphans, "a shard on the host that returned")
    done = drive.hosts_of_commits().count(hosts.address(3))
    hold.unlink()
    drive.finish(undisturbed)
    assert drive.hosts_of_commits().count(hosts.address(3)) > done
    assert "the process has ended" not in supervised.log(1) + supervised.log(2)


def test_a_replaced_scheduler_gets_the_workers_and_the_run_ends(
    hosts: Hosts, start: Callable[..., Drive], supervised: SupervisedCluster, hold: Path, undisturbed: dict[str, bytes]
) -> None:
    drive = start("replaced", cluster="existing", address=supervised.address)
    drive.pause_in_the_middle(2, 3)
    before = drive.commits()
    hosts.kill(1, "bin/dask")
    hold.unlink()
    if drive.process.wait(timeout=240) == NOT_FINISHED:
        drive = start("replaced", cluster="existing", address=supervised.address)
    drive.finish(undisturbed)
    assert "the process has ended" in supervised.log(1)
    assert before.items() <= drive.commits().items(), "committed shards are not processed again"


def test_the_output_of_a_host_is_drained(hosts: Hosts, profiles: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSH buffers two megabytes; a process that writes more blocks until the driver reads its output."""
    monkeypatch.setenv("AUDIOPIPE_PROFILES", profiles)

    def write() -> int:
        return sum(sys.stderr.write(f"{number:99d}\n") for number in range(50_000))

    client = connect("ssh", hosts=[hosts.address(1)])
    try:
        assert set(client.run(write).values()) == {5_000_000}
    finally:
        close(client)


def test_an_unreachable_host_is_an_error_that_names_it(
    hosts: Hosts, profiles: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOPIPE_PROFILES", profiles)
    with pytest.raises(ClusterError, match=rf"not all hosts .* could be started: .*{hosts.address(0)}"):
        connect("ssh", hosts=[hosts.address(1), hosts.address(0)])
    with pytest.raises(ClusterError, match=r"could be started: .*; last output: .*/nowhere/python"):
        connect("ssh", hosts=[hosts.address(1)], remote_python="/nowhere/python")
