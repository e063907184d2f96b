"""Run a driver in a separate process, whose memory and time a benchmark measures.

`python -m audiopipe.bench.store_driver CONFIG TASK` runs the config (JSON) with the task of that name, and writes its
`DriverTimes` to standard output.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from audiopipe.bench.stub_task import stub_objects, stub_shard
from audiopipe.cluster.connect import close, connect_for
from audiopipe.config import RunConfig
from audiopipe.driver.run import run
from audiopipe.driver.task import Task, process_videos

__all__ = ["DriverTimes", "run_driver"]

PHASES = ("start", "work", "finalize")
# The task of a run that has nothing to do is not called.
TASKS: dict[str, Task] = {
    "real": process_videos,
    "stub": stub_objects,
    "commit": stub_shard,
    "none": process_videos,
}


@dataclass(frozen=True)
class DriverTimes:
    """The times and the memory of a driver, as it measured them.

    Attributes:
        started: time of its start, by the monotonic clock of the machine.
        wall_s, cpu_s: seconds, and CPU seconds of its process, which has Dask's scheduler too, by phase.
        peak_mb: peak resident memory of the process.
        shards: all that were planned.
    """

    started: float
    wall_s: dict[str, float]
    cpu_s: dict[str, float]
    peak_mb: float
    shards: int
    videos: int
    videos_failed: int
    exit_code: int

    def boundaries(self) -> list[float]:
        """Return the times at which the phases began, and that of the end."""
        times = [self.started]
        for phase in PHASES:
            times.append(times[-1] + self.wall_s.get(phase, 0.0))
        return times

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what the process has written."""
        return cls(**json.loads(text))


def run_driver(config: Mapping[str, object], task: str) -> DriverTimes:
    """Run a driver in a new process, with the environment of this one.

    Args:
        task: 'real'; 'stub', which uploads small objects; 'commit', which only commits; or 'none' for a run that has
            nothing to do and starts no cluster.

    Raises:
        RuntimeError: it failed.
    """
    command = [sys.executable, "-m", "audiopipe.bench.store_driver", json.dumps(config), task]
    with tempfile.TemporaryDirectory(prefix="audiopipe-driver-") as folder:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=folder, check=False)
    if done.returncode:
        raise RuntimeError(f"the driver of the benchmark ended with code {done.returncode}; its messages are above")
    return DriverTimes.from_json(done.stdout.splitlines()[-1])


def _main(config: RunConfig, task: str) -> None:
    client = connect_for(config) if task != "none" else None
    started = time.monotonic()
    summary = run(config, client=client, task=TASKS[task])
    if client is not None:
        close(client)
    times = DriverTimes(
        started=started,
        wall_s={name: phase.wall_s for name, phase in summary.phases.items()},
        cpu_s={name: phase.cpu_s for name, phase in summary.phases.items()},
        peak_mb=_read_peak_mb(),
        shards=summary.shards_planned,
        videos=summary.total.videos,
        videos_failed=summary.total.videos_failed,
        exit_code=summary.exit_code,
    )
    sys.stdout.write(json.dumps(asdict(times)) + "\n")


def _read_peak_mb() -> float:
    """Return the peak of the resident memory; `getrusage` would include that of the process before its exec."""
    for line in Path("/proc/self/status").read_text("utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    _main(RunConfig.of(**json.loads(sys.argv[1])), sys.argv[2])
