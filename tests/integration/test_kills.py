"""kill -9 at random moments of a run on a real cluster of processes; the dataset is the same as without kills.

AUDIOPIPE_KILL_SEEDS=200 runs more seeds than the default; AUDIOPIPE_KILL_SEED=17 runs one again.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from collections.abc import Iterator

import pytest
from output_factory import RUN_ID, config, content, corpus, make_output
from processes import Processes
from s3_server import BUCKET, S3Server, server_in_environment

from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.verify import verify
from audiopipe.store.objects import Store

# The S3 server is first, so that its seeds run first and its start delays no other test.
VICTIMS = ("s3", "worker", "nanny", "scheduler", "driver", "decoder")
SEEDS = (
    [int(os.environ["AUDIOPIPE_KILL_SEED"])]
    if "AUDIOPIPE_KILL_SEED" in os.environ
    else list(range(int(os.environ.get("AUDIOPIPE_KILL_SEEDS", "30"))))
)
PARAMETERS = {"shard_videos": 1, "min_snr_db": "none", "max_silence_ratio": "none", "run_id": RUN_ID, "heartbeat_s": 1}
FINISHED, UNFINISHED = (0, 3), 4
ROUNDS, ROUND_S = 6, 120.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Start an S3 server for this module, with its keys in the environment."""
    with server_in_environment(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory, server: S3Server) -> Iterator[Processes]:
    processes = Processes(tmp_path_factory.mktemp("kills"), server)
    yield processes
    processes.stop()


@pytest.fixture(scope="module")
def places(processes: Processes) -> dict[str, tuple[str, str, dict[str, bytes]]]:
    """Return for a disk and a bucket: the catalog, the folder of outputs, and the files of an undisturbed run."""
    catalog = corpus(processes.folder / "c", videos=4)
    bucket = Store(f"s3://{BUCKET}/kills")
    for path in catalog.parent.rglob("*"):
        if path.is_file():
            bucket.upload(path, f"corpus/{path.relative_to(catalog.parent)}")
    result = {}
    for name, catalog_url, top in (
        ("disk", str(catalog), str(processes.folder)),
        ("bucket", f"{bucket.url}/corpus/catalog.parquet", bucket.url),
    ):
        reference = make_output(config(catalog_url, f"{top}/reference", shard_videos=1))
        result[name] = (catalog_url, top, content(reference.url))
    return result


@pytest.mark.slow
@pytest.mark.timeout(ROUNDS * ROUND_S + 120)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_dataset_is_the_same_after_any_kill(
    processes: Processes, places: dict[str, tuple[str, str, dict[str, bytes]]], seed: int
) -> None:
    rng = random.Random(seed)
    victims = [VICTIMS[seed % len(VICTIMS)], *rng.sample(VICTIMS, rng.randint(0, 2))]
    catalog, top, reference = places["bucket" if "s3" in victims else "disk"]
    output = f"{top}/{seed}-{uuid.uuid4().hex}"
    job = ["run", "--catalog", catalog, "--output", output, "--cluster", "existing", "--device", "cpu"]
    job += ["--max-failed-share", "1"]
    job += ["--ledger", f"{processes.folder}/{seed}.sqlite"]
    job += [word for name, value in PARAMETERS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    killed: list[str] = []
    for _ in range(ROUNDS):
        code = _run_driver(processes, job, output, victims, killed, rng)
        if code in FINISHED:
            break
    message = f"killed {killed}, left {victims}; {processes.log('driver')}"
    assert code in FINISHED, message
    collect_garbage(output, remove=True, min_age_h=0)  # parts of killed attempts
    assert content(output) == reference, message
    assert verify(output).findings == (), message


def _run_driver(
    processes: Processes, job: list[str], output: str, victims: list[str], killed: list[str], rng: random.Random
) -> int:
    """Run a driver, kill the victims one after the other, and return the driver's exit code."""
    processes.ensure()
    driver = processes.start_driver(job)
    store, until = Store(output), time.monotonic() + ROUND_S
    while driver.exitcode is None and time.monotonic() < until:
        # Kills start once there is a plan.
        if store.list("_plan"):
            break
        time.sleep(0.05)
    while driver.exitcode is None and time.monotonic() < until:
        driver.join(rng.uniform(0.02, 0.8))
        if victims and processes.kill(victims[0], rng):
            killed.append(victims.pop(0))
            processes.ensure()
    if driver.exitcode is None:
        driver.kill()
        driver.join()
    code = int(driver.exitcode or 0)
    assert code in (*FINISHED, UNFINISHED, -9), processes.log("driver")
    return code
