"""kill -9 at random moments of an annotation on a cluster of processes; its tables are the same as without kills."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import prepend_python_path
from output_factory import config, corpus, make_output
from processes import Processes

from audiopipe.dataset.annotations import list_annotations
from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.verify import verify
from audiopipe.store.objects import Store

VICTIMS = ("worker", "driver", "scheduler", "nanny")
ROUNDS, ROUND_S = 6, 180.0
UNFINISHED = 4

# A scorer of another package, so that each process finds it by its entry point. It is slow, so that kills meet it.
SCORER = """
import time
from audiopipe.scorers.scorer import Column, Scorer

class Slow(Scorer):
    name, version = "slow", "1"
    columns = (Column("slow_rms", "float", "1", "root mean square"), Column("slow_text", "string", "", "the text"))

    def score(self, batch):
        time.sleep(0.3)
        sums = batch.samples.square().sum((1, 2))
        return {
            "slow_rms": [(float(total) / length) ** 0.5 for total, length in zip(sums, batch.lengths)],
            "slow_text": [segment.text for segment in batch.segments],
        }
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an installed package of the scorer."""
    folder = tmp_path_factory.mktemp("package")
    (folder / "slow_scorer.py").write_text(SCORER)
    info = folder / "slow_scorer-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: slow-scorer\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[audiopipe.scorers]\nslow = slow_scorer:Slow\n")
    return folder


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Iterator[Processes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", prepend_python_path(package))
        patch.syspath_prepend(package)  # which drivers inherit
        processes = Processes(tmp_path_factory.mktemp("kills"))
        yield processes
        processes.stop()


@pytest.fixture(scope="module")
def output(processes: Processes) -> Store:
    return make_output(config(corpus(processes.folder / "c", videos=8), processes.folder / "out", shard_videos=1))


@pytest.fixture(scope="module")
def reference(processes: Processes, output: Store) -> dict[str, bytes]:
    """Return the tables of an annotation that nothing disturbed."""
    annotate(processes, output, [], random.Random(0))
    return take_tables(output)


def take_tables(output: Store) -> dict[str, bytes]:
    """Read the tables of the annotation, and remove it."""
    (annotation,) = list_annotations(output)
    tables = {name: output.read(name) for name in annotation.tables(sorted(annotation.shards))}
    output.remove("_annotations")
    output.remove("_backup/_annotations")
    return tables


def annotate(processes: Processes, output: Store, victims: list[str], rng: random.Random) -> list[str]:
    """Annotate with drivers, one after the other, until one ends well; return what was killed."""
    job = ["annotate", output.url, "--scorers", "slow", "--cluster", "existing", "--device", "cpu"]
    killed: list[str] = []
    for _ in range(ROUNDS):
        processes.ensure()
        driver = processes.start_driver(job)
        until = time.monotonic() + ROUND_S
        while driver.exitcode is None and not list_annotations(output) and time.monotonic() < until:
            driver.join(0.05)
        while driver.exitcode is None and time.monotonic() < until:
            driver.join(rng.uniform(0.1, 0.6))
            if victims and processes.kill(victims[0], rng):
                killed.append(victims.pop(0))
                processes.ensure()
        if driver.exitcode == 0:
            return killed
        assert driver.exitcode in (UNFINISHED, -9), f"killed {killed}; {processes.log('driver')}"
    raise AssertionError(f"no driver ended well; killed {killed}; {processes.log('driver')}")


@pytest.mark.slow
@pytest.mark.timeout(ROUNDS * ROUND_S)
@pytest.mark.parametrize("seed", range(int(os.environ.get("AUDIOPIPE_KILL_SEEDS", "3"))))
def test_an_annotation_is_the_same_after_any_kill(
    processes: Processes, output: Store, reference: dict[str, bytes], seed: int
) -> None:
    rng = random.Random(seed)
    victims = [VICTIMS[seed % len(VICTIMS)], *rng.sample(VICTIMS, rng.randint(0, 2))]
    killed = annotate(processes, output, victims, rng)
    assert killed
    collect_garbage(output.url, remove=True, min_age_h=0)  # parts of killed attempts
    assert verify(output.url).findings == ()
    assert take_tables(output) == reference
    assert not [name for name in output.list("_parts") if "draft" not in name]
