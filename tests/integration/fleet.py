"""A cluster of separate processes for tests that break one of them."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from distributed import Client

from audiopipe.bench.servers import fleet

BIN = fleet.BIN
FIXED = (
    "--shard-videos 2 --min-snr-db none --max-silence-ratio none --run-id tests --device cpu --heartbeat-s 1 "
    "--max-failed-share 1"
)


@dataclass
class Fleet(fleet.Fleet):
    """A fleet that processes a catalog into a folder of its folder."""

    catalog: Path = Path()

    @property
    def output(self) -> Path:
        return self.folder / "out"

    def driver(self, *options: str, cluster: str = "existing") -> subprocess.Popen[bytes]:
        command = ["--catalog", str(self.catalog), "--output", str(self.output), "--cluster", cluster, "--quiet"]
        return self.start("driver", "audiopipe", "run", *command, *FIXED.split(), *options)

    def wait_for_workers(self, workers: int) -> None:
        """Wait until so many workers are there: one that starts later may find no shard left."""
        with Client(self.address, timeout=120) as client:
            client.wait_for_workers(workers, timeout=120)

    def commits(self) -> dict[str, bytes]:
        return {path.stem: path.read_bytes() for path in (self.output / "_commits").glob("*.json")}

    def workers_of_commits(self) -> set[str]:
        return {json.loads(body)["result"]["worker"].rsplit("/", 1)[-1] for body in self.commits().values()}

    def started_shards(self) -> set[str]:
        return {path.name for path in (self.output / "_parts").glob("*")}

    def assert_ends(self, code: int, within_s: float) -> None:
        """Check the exit code of the driver, which must end in time."""
        assert self.running["driver"].wait(timeout=within_s) == code, self.log("driver")
