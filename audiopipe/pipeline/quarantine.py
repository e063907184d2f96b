"""A shard under suspicion: each of its videos is tried in a process of its own before the shard is made again.

The death of a worker condemns nobody: it may have been a neighbour's fault, the memory's, or a colleague's `kill`. So a
shard that was there when workers died is made like this: every video alone, in a child process, into a folder that is
thrown away; a video whose child dies twice is a dead letter. Then the whole shard, again in a child, with these left
out. What comes through has been made by the same code in the same batches, and has the same bytes.

Dask's workers are daemons and may not have multiprocessing's children: the child is a plain process, handed its task as
a file.
"""

from __future__ import annotations

import ctypes
import pickle
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from audiopipe.config import RunConfig
from audiopipe.errors import AudiopipeError, TransientError
from audiopipe.pipeline.scratch import scratch_folder
from audiopipe.pipeline.shard import process_shard
from audiopipe.types import Shard, ShardResult

__all__ = ["process_isolated"]

TRIALS = 2
PR_SET_PDEATHSIG = 1


def process_isolated(shard: Shard, config: RunConfig, run_id: str, worker: str = "local") -> ShardResult:
    """Make and commit a shard of which some video may kill its process.

    Raises:
        TransientError: as `process_shard`; also if the shard's own child dies, though no video does so alone.
    """
    condemned: dict[str, str] = {}
    for video in shard.videos:
        if reason := _failing_videos(replace(shard, videos=(video,)), config, run_id):
            condemned[video.video_id] = reason
    return _in_child(shard, config, run_id, worker, condemned)


def _failing_videos(alone: Shard, config: RunConfig, run_id: str) -> str | None:
    """Why a shard of one video cannot be made, if its child fails every trial."""
    reason = ""
    for _ in range(TRIALS):
        with scratch_folder(f"{alone.name}-trial", config.scratch) as folder:
            try:
                _in_child(alone, config.model_copy(update={"output": str(folder)}), run_id, "trial", {})
            except _ChildFailedError as error:
                reason = str(error)
            else:
                return None
    return f"{alone.videos[0].uri}: {TRIALS} processes that worked on nothing else {reason}"


class _ChildFailedError(TransientError):
    """A child died, or raised what nobody expected."""


def _in_child(shard: Shard, config: RunConfig, run_id: str, worker: str, excluded: Mapping[str, str]) -> ShardResult:
    with scratch_folder(f"{shard.name}-child", config.scratch) as folder:
        task, answer = folder / "task", folder / "answer"
        task.write_bytes(pickle.dumps((shard, config, run_id, worker, dict(excluded))))
        done = subprocess.run(
            [sys.executable, "-m", "audiopipe.pipeline.quarantine", str(task), str(answer)],
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode or not answer.exists():
            raise _ChildFailedError(f"ended with {_end(done.returncode)}")
        outcome = pickle.loads(answer.read_bytes())
    if isinstance(outcome, ShardResult):
        return outcome
    if isinstance(outcome, AudiopipeError | OSError):
        raise outcome
    raise _ChildFailedError(f"raised {type(outcome).__name__}: {outcome}") from outcome


def _end(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"


def _main(task: Path, answer: Path) -> None:
    """The child: make the shard, and leave the result, or the exception, where the parent looks for it."""
    # Nobody waits for the child of a worker that was killed.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    shard, config, run_id, worker, condemned = pickle.loads(task.read_bytes())
    outcome: Any
    try:
        outcome = process_shard(shard, config, run_id, worker, condemned)
    except Exception as error:  # noqa: BLE001 - handed to the parent, which raises or judges it
        outcome = error
    draft = answer.with_suffix(".draft")
    draft.write_bytes(pickle.dumps(outcome))
    draft.replace(answer)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
