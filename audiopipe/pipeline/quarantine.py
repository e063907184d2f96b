"""Process a suspect shard: try each of its videos in a separate process before the shard is processed as a whole.

The death of a worker does not condemn a video: the cause may be another shard, the machine's memory or a manual `kill`.
So a shard that was being processed when workers died is handled like this. Each video is first processed alone, in a
child process, into a folder that is discarded; a video whose child dies twice becomes a dead letter. Then the whole
shard is processed, again in a child, without these videos. The same code makes the same batches as in any other run, so
the bytes are the same.

No video is condemned before a known-good one (`self_check.py`) has passed in the same kind of child on this worker.

Dask's workers are daemons and may not have children of `multiprocessing`, so the child is a plain process that receives
its task through a pipe.
"""

from __future__ import annotations

import ctypes
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from audiopipe.config import RunConfig
from audiopipe.errors import (
    AudiopipeError,
    BrokenWorker,
    ScorerError,
    TransientError,
    TransientVideoError,
    WorkerFailure,
)
from audiopipe.pipeline.scratch import scratch_folder
from audiopipe.pipeline.self_check import require_sound_worker
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
        WorkerFailure: a known-good video fails on this worker too.
    """
    excluded: dict[str, str] = {}
    for video in shard.videos:
        if reason := _failure_reason(replace(shard, videos=(video,)), config, run_id):
            _require_sound_worker(config)
            excluded[video.video_id] = reason
    arguments = shard, config, run_id, worker, excluded, last_attempt, partial(require_sound_worker, config)
    result: ShardResult = _run_in_child(config.scratch, process_shard, *arguments)
    return result


def _failure_reason(shard: Shard, config: RunConfig, run_id: str) -> str | None:
    """Return why a shard of one video fails in all trials, or None if it succeeds once."""
    reason = ""
    for _ in range(TRIALS):
        with scratch_folder(f"{shard.name}-trial", config.scratch) as folder:
            try:
                trial = config.model_copy(update={"output": str(folder)})
                _run_in_child(config.scratch, process_shard, shard, trial, run_id, "trial", {})
            except BrokenWorker:
                raise
            except (_ChildFailedError, WorkerFailure) as error:
                reason = str(error) if isinstance(error, _ChildFailedError) else f"failed: {error}"
            except TransientVideoError:  # it did not end its process; the shard as a whole decides about it
                return None
            else:
                return None
    _require_sound_scorers(shard, config, run_id, reason)
    return f"{shard.videos[0].uri}: {TRIALS} processes that worked on this video alone {reason}"


def _require_sound_scorers(shard: Shard, config: RunConfig, run_id: str, reason: str) -> None:
    """Raise if a process can work on a shard of one video without the learned scorers: they are at fault, not it."""
    if not config.learned_scorers:
        return
    fields = {"scorers": "signal", "speaker_labels": False, "speaker_embeddings": False, "keep_if": None}
    with scratch_folder(f"{shard.name}-trial", config.scratch) as folder:
        trial = config.model_copy(update={"output": str(folder), **fields})
        with suppress(_ChildFailedError, TransientVideoError, WorkerFailure):
            _run_in_child(config.scratch, process_shard, shard, trial, run_id, "trial", {})
            uri = shard.videos[0].uri
            raise ScorerError(f"a scorer of {config.learned_scorers} ends its process at {uri}: the process {reason}")


class _ChildFailedError(TransientError):
    """A child died, or raised an error that is not one of this package's."""


def _require_sound_worker(config: RunConfig) -> None:
    try:
        _run_in_child(config.scratch, require_sound_worker, config)
    except _ChildFailedError as error:
        failure = WorkerFailure(f"a process with a known-good video {error}")
        failure.is_confirmed = True
        raise failure from error


def _run_in_child(scratch: str | None, function: Callable[..., Any], *arguments: object) -> Any:
    """Call a function in a child process, and return its result or raise its error."""
    with scratch_folder("child", scratch) as folder:
        answer = folder / "answer"
        # Through a pipe, because the addresses of videos may have a password or a signature.
        process = subprocess.run(
            [sys.executable, "-m", "audiopipe.pipeline.quarantine", str(answer)],
            check=False,
            input=pickle.dumps((function, arguments)),
        )
        if process.returncode or not answer.exists():
            raise _ChildFailedError(f"ended with {_describe_exit(process.returncode)}")
        outcome, error = pickle.loads(answer.read_bytes())
    if error is None:
        return outcome
    if isinstance(error, AudiopipeError | OSError):
        raise error
    raise _ChildFailedError(f"raised {type(error).__name__}: {error}") from error


def _describe_exit(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code} ({signal.strsignal(-code)})"


def _main(answer: Path) -> None:
    """Do the task in the child, and write the result or the exception to the file that the parent reads."""
    # The child ends with its worker: if that is killed, no process reads the answer.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    function, arguments = pickle.loads(sys.stdin.buffer.read())
    outcome: tuple[object, Exception | None]
    try:
        outcome = function(*arguments), None
    except Exception as error:  # noqa: BLE001 - passed to the parent, which raises it
        outcome = None, error
    draft = answer.with_suffix(".draft")
    draft.write_bytes(pickle.dumps(outcome))
    draft.replace(answer)


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
