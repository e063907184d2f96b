"""Three real hosts (network namespaces, an sshd each), encrypted, with real speech in an S3 server on one of them.

Cables are pulled in the middle of a run: for good, for a moment, and until the host has been given up. Workers come by
the profile `ssh`, or they are there already, as a service manager keeps them, and the profile is `existing`.
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
from factories import is_decoder_process
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
# A host that is gone is noticed after as long as TCP and heartbeats are given; minutes by default, half a one here:
# less, and a busy machine whose workers import torch for seconds would look like one that is gone.
IMPATIENT = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "30s", "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "30s"}
FIXED = "--shard-videos 1 --min-snr-db none --max-silence-ratio none --run-id tests --device cpu --heartbeat-s 1"
RUN_AGAIN = 4
WITH_DEAD_LETTERS = 3  # the exit code of a run of the demo corpus, some of whose videos are spoilt on purpose

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def hold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Decoders on the hosts wait while it exists, so that what is cut off is cut off in the middle of a shard."""
    return hold_in(tmp_path_factory.mktemp("decoder"))


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory, hold: Path) -> Iterator[Hosts]:
    """0 is the driver's; 1 to 3 are workers', and 1 has the S3 server too. A host's keys are its own settings."""
    folder = tmp_path_factory.mktemp("hosts")
    network = Hosts(folder, count=4)
    server = S3Server(folder, network.address(1), ("ip", "netns", "exec", network.space(1)))
    network.environment = {**server.environment(), "PYTHONPATH": str(hold.parent)}
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
    """The profiles `ssh` and `existing` as somebody would fill them in; they encrypt, as they do by default."""
    folder = tmp_path_factory.mktemp("profiles")
    own = {
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
    (folder / "profiles.yaml").write_text(yaml.safe_dump({"ssh": own, "existing": {"tls": tls}}))
    return str(folder / "profiles.yaml")


@pytest.fixture(scope="module")
def catalog(hosts: Hosts, tiny_corpus: Path) -> str:
    """The demo corpus in the bucket, as the videos of a run are."""
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
    address: str = ""  # of the scheduler, if it is there already

    def __post_init__(self) -> None:
        self.output, self.ledger = f"s3://{BUCKET}/{self.name}", str(self.folder / f"{self.name}.sqlite")
        told = ["--catalog", self.catalog, "--output", self.output, "--ledger", self.ledger, *FIXED.split()]
        told += ["--decode-timeout-s", "600", "--cluster", self.cluster, "--quiet"]
        settings = {**IMPATIENT, "AUDIOPIPE_PROFILES": self.profiles, "DASK_SCHEDULER_ADDRESS": self.address}
        log = self.folder / f"{self.name}.log"
        self.process = self.hosts.popen(0, AUDIOPIPE, "run", *told, log=log, **settings)

    def log(self) -> str:
        return (self.folder / f"{self.name}.log").read_text()

    def commits(self) -> dict[str, bytes]:
        store = Store(self.output)
        return {name: store.read(name) for name in store.list() if name.startswith("_commits/")}

    def hosts_of_commits(self) -> list[str]:
        """The address of the host of each commit that is there."""
        commits = map(json.loads, self.commits().values())
        return [re.findall(r"tls://([0-9.]+):", commit["result"]["worker"])[0] for commit in commits]

    def wait_until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a condition while the driver runs."""

        def holds() -> object:
            assert self.process.poll() is None, self.log()[-3000:]
            return condition()

        wait_until(holds, lambda: f"{what}: {self.log()[-3000:]}", timeout_s=240, poll_s=0.2)

    def decoding(self, number: int) -> set[int]:
        """The decoders that wait on a host."""
        return {pid for pid in self.hosts.commands(number) if is_decoder_process(pid)}

    def hold_in_the_middle(self, *numbers: int) -> None:
        """Let some shards be done, and then be none any more, with one at least under way on each of these hosts."""
        self.wait_until(lambda: len(self.hosts_of_commits()) >= 2, "the first shards")
        self.hold.touch()
        self.wait_until(lambda: all(self.decoding(number) for number in numbers), "all hosts decode")

    def ends_as(self, undisturbed: dict[str, bytes]) -> None:
        """Complete, with the same bytes, and nothing done twice."""
        assert self.process.wait(timeout=240) == WITH_DEAD_LETTERS, self.log()[-3000:]
        made = content(self.output)
        assert made.keys() == undisturbed.keys()
        assert [name for name in made if made[name] != undisturbed[name]] == []
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
    drive.hold_in_the_middle(1, 2, 3)
    hosts.pull_cable(3)
    hold.unlink()
    drive.ends_as(undisturbed)


def test_a_returning_host_rejoins_the_run_and_short_breaks_pass(
    hosts: Hosts, start: Callable[..., Drive], hold: Path, undisturbed: dict[str, bytes]
) -> None:
    drive = start("back")
    drive.hold_in_the_middle(1, 2, 3)
    hosts.pull_cable(2)
    time.sleep(4)  # less than TCP is given: what was sent meanwhile is sent again
    hosts.plug_cable(2)
    before = {pid for pid, command in hosts.commands(3).items() if "python" in command} - drive.decoding(3)
    assert before
    hosts.pull_cable(3)
    away = f"the worker on {hosts.address(3)} is away"
    drive.wait_until(lambda: away in drive.log() and not before & hosts.commands(3).keys(), "the lost worker ended")
    orphans = drive.decoding(3)  # of the lost worker: they wait as well
    hosts.plug_cable(3)
    back = f"the worker on {hosts.address(3)} is back"
    drive.wait_until(lambda: back in drive.log(), "the host came back")
    drive.wait_until(lambda: drive.decoding(3) - orphans, "a shard on the host that came back")
    done = drive.hosts_of_commits().count(hosts.address(3))
    hold.unlink()
    drive.ends_as(undisturbed)
    assert f"the worker on {hosts.address(2)} is away" not in drive.log()
    assert drive.hosts_of_commits().count(hosts.address(3)) > done


@dataclass
class Kept:
    """A scheduler on host 1 and workers on 2 and 3, by the scripts of their units, which are kept running."""

    hosts: Hosts
    tls: str
    folder: Path
    hold: Path

    def __post_init__(self) -> None:
        self.address = f"tls://{self.hosts.address(1)}:8786"
        self.processes = {1: self.keep(1, "run_scheduler.sh")} | {
            number: self.keep(number, "run_worker.sh") for number in (2, 3)
        }

    def keep(self, number: int, script: str) -> subprocess.Popen[bytes]:
        own = {"AUDIOPIPE_TLS": self.tls, "DASK_COMMAND": str(Path(sys.executable).with_name("dask")), **IMPATIENT}
        own |= {"DASK_SCHEDULER_ADDRESS": self.address, "STATE_DIRECTORY": str(self.folder), "DEATH_TIMEOUT": "20"}
        own |= {"PYTHONPATH": str(self.hold.parent)}
        log = self.folder / f"{number}.log"
        return self.hosts.supervise(number, str(REPOSITORY / "cluster" / script), log=log, **own)

    def log(self, number: int) -> str:
        return (self.folder / f"{number}.log").read_text()

    def close(self) -> None:
        for number, process in self.processes.items():
            process.kill()
            self.hosts.kill(number, "python")


@pytest.fixture
def kept(hosts: Hosts, tls: str, hold: Path, tmp_path: Path) -> Iterator[Kept]:
    mine = Kept(hosts, tls, tmp_path, hold)
    yield mine
    mine.close()


def test_a_supervised_worker_rejoins_when_its_host_is_back(
    hosts: Hosts, start: Callable[..., Drive], kept: Kept, hold: Path, undisturbed: dict[str, bytes]
) -> None:
    drive = start("joined", cluster="existing", address=kept.address)
    drive.hold_in_the_middle(2, 3)
    orphans = drive.decoding(3)
    hosts.pull_cable(3)
    drive.wait_until(lambda: "it has ended" in kept.log(3), "the workers that were cut off ended")
    hosts.plug_cable(3)
    drive.wait_until(lambda: drive.decoding(3) - orphans, "a shard on the host that came back")
    done = drive.hosts_of_commits().count(hosts.address(3))
    hold.unlink()
    drive.ends_as(undisturbed)
    assert drive.hosts_of_commits().count(hosts.address(3)) > done
    assert "it has ended" not in kept.log(1) + kept.log(2)


def test_a_replaced_scheduler_gets_the_workers_and_the_run_ends(
    hosts: Hosts, start: Callable[..., Drive], kept: Kept, hold: Path, undisturbed: dict[str, bytes]
) -> None:
    drive = start("anew", cluster="existing", address=kept.address)
    drive.hold_in_the_middle(2, 3)
    before = drive.commits()
    hosts.kill(1, "bin/dask")
    hold.unlink()
    if drive.process.wait(timeout=240) == RUN_AGAIN:
        drive = start("anew", cluster="existing", address=kept.address)
    drive.ends_as(undisturbed)
    assert "it has ended" in kept.log(1)
    assert before.items() <= drive.commits().items(), "what was committed is not made again"


def test_the_output_of_a_host_is_drained(hosts: Hosts, profiles: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SSH takes two megabytes that nobody reads, and then the process that writes more stands still."""
    monkeypatch.setenv("AUDIOPIPE_PROFILES", profiles)

    def talk() -> int:
        return sum(sys.stderr.write(f"{number:99d}\n") for number in range(50_000))

    client = connect("ssh", hosts=[hosts.address(1)])
    try:
        assert set(client.run(talk).values()) == {5_000_000}
    finally:
        close(client)


def test_an_unreachable_host_is_an_error_that_names_it(
    hosts: Hosts, profiles: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIOPIPE_PROFILES", profiles)
    with pytest.raises(ClusterError, match=rf"not all hosts .* could be started: .*{hosts.address(0)}"):
        connect("ssh", hosts=[hosts.address(1), hosts.address(0)])
    with pytest.raises(ClusterError, match=r"could be started: .*, and said: .*/nowhere/python"):
        connect("ssh", hosts=[hosts.address(1)], remote_python="/nowhere/python")
