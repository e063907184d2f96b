"""Independent nodes: one driver per partition, one output, one ledger. A killed driver can be started again."""

import subprocess
import sys
from pathlib import Path

import pytest
from output_factory import config, content, corpus, make_output
from waiting import wait_until

AUDIOPIPE = str(Path(sys.executable).with_name("audiopipe"))
FIXED = (
    "--shard-videos 2 --min-snr-db none --max-silence-ratio none --run-id tests --device cpu --heartbeat-s 1 "
    "--max-failed-share 1"
)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus"), videos=24, missing=False, seconds=10.0)


def driver(catalog: Path, output: Path, index: int, count: int) -> "subprocess.Popen[bytes]":
    arguments = [
        "--catalog",
        str(catalog),
        "--output",
        str(output),
        "--cluster",
        "local-cpu",
        "--workers",
        "1",
        "--quiet",
    ]
    partition = ["--partition-index", str(index), "--partition-count", str(count)]
    return subprocess.Popen([AUDIOPIPE, "run", *arguments, *FIXED.split(), *partition], stdout=subprocess.DEVNULL)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("count", [2, 3])
def test_partitions_share_an_output_and_a_killed_one_resumes(catalog: Path, tmp_path: Path, count: int) -> None:
    output = tmp_path / "shared"
    drivers = [driver(catalog, output, index, count) for index in range(count)]
    wait_until(lambda: list(output.glob("_commits/*.json")), "a commit", timeout_s=90)
    drivers[0].kill()
    drivers[0].wait()
    drivers[0] = driver(catalog, output, 0, count)
    assert [process.wait(timeout=150) for process in drivers] == [0] * count
    alone = tmp_path / "alone"
    make_output(config(catalog, alone, partition_count=count))
    assert content(output) == content(alone)
    command = [AUDIOPIPE, "monitor", str(output), "--once"]
    monitor = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(f"p{index}" in monitor.stdout for index in range(count)), "the monitor shows every node"
