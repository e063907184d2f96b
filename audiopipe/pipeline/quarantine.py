"""Process a suspect shard: try each of its videos in a separate process before the shard is processed as a whole.

The death of a worker does not condemn a video: the cause may be another shard, the machine's memory or a manual `kill`.
So a shard that was being processed when workers died is handled like this. Each video is first processed alone, in a
child process, into a folder that is discarded; a video whose child dies twice becomes a dead letter. Then the whole
shard is processed, again in a child, without these videos. The same code makes the same batches as in any other run, so
the bytes are the same.

Dask's workers are daemons and may not have children of `multiprocessing`, so the child is a plain process that receives
its task in a file.
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

from audiopipe.config import RunConfig
from audiopipe.errors import AudiopipeError, TransientError, TransientVideoError
from audiopipe.pipeline.scratch import scratch_folder
from audiopipe.pipeline.shard import process_shard
from audiopipe.types import Shard, ShardResult

__all__ = ["process_isolated"]

TRIALS = 2
PR_SET_PDEATHSIG = 1


def process_isolated(
    shard: Shard, config: RunConfig, run_id: str, worker: str = "local", last_attempt: bool = False
) -> ShardResult:
    """Process and commit a shard of which some video may kill its process.

    Args:
        last_attempt: as for `process_shard`.

    Raises:
        TransientError: as `process_shard`; also if the child of the whole shard dies, although no video alone kills it.
    """
    excluded: dict[str, str] = {}
    for video in shard.videos:
        if reason := _failure_reason(replace(shard, videos=(video,)), config, run_id):
            excluded[video.video_id] = reason
    return _run_in_child(shard, config, run_id, worker, excluded, last_attempt)


def _failure_reason(shard: Shard, config: RunConfig, run_id: str) -> str | None:
    """Return why a shard of one video fails in all trials, or None if it succeeds once."""
    reason = ""
    for _ in range(TRIALS):
        with scratch_folder(f"{shard.name}-trial", config.scratch) as folder:
            try:
                _run_in_child(shard, config.model_copy(update={"output": str(folder)}), run_id, "trial", {})
            except _ChildFailedError as error:
                reason = str(error)
            except TransientVideoError:  # it did not end its process; the shard as a whole decides about it
                return None
            else:
                return None
    return f"{shard.videos[0].uri}: {TRIALS} processes that worked on this video alone {reason}"


class _ChildFailedError(TransientError):
    """A child died, or raised an error that is not one of this package's."""


def _run_in_child(
    shard: Shard,
    config: RunConfig,
    run_id: str,
    worker: str,
    excluded: Mapping[str, str],
    last_attempt: bool = False,
) -> ShardResult:
    with scratch_folder(f"{shard.name}-child", config.scratch) as folder:
        task, answer = folder / "task", folder / "answer"
        task.write_bytes(pickle.dumps((shard, config, run_id, worker, dict(excluded), last_attempt)))
        process = subprocess.run(
            [sys.executable, "-m", "audiopipe.pipeline.quarantine", str(task), str(answer)],
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if process.returncode or not answer.exists():
            raise _ChildFailedError(f"ended with {_describe_exit(process.returncode)}")
        outcome = pickle.loads(answer.read_bytes())
    if isinstance(outcome, ShardResult):
        return outcome
    if isinstance(outcome, AudiopipeError | OSError):
        raise outcome
    raise _ChildFailedError(f"raised {type(outcome).__name__}: {outcome}") from outcome


def _describe_exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"


def _main(task: Path, answer: Path) -> None:
    """Process the shard in the child, and write the result or the exception to the file that the parent reads."""
    # The child ends with its worker: if that is killed, no process reads the answer.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    shard, config, run_id, worker, excluded, last_attempt = pickle.loads(task.read_bytes())
    outcome: ShardResult | Exception
    try:
        outcome = process_shard(shard, config, run_id, worker, excluded, last_attempt)
    except Exception as error:  # noqa: BLE001 - passed to the parent, which raises it
        outcome = error
    draft = answer.with_suffix(".draft")
    draft.write_bytes(pickle.dumps(outcome))
    draft.replace(answer)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
