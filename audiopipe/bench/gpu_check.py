"""Check a GPU in parts with time limits: `python -m audiopipe.bench.gpu_check AUDIO OUT [PROGRAM]`.

`cluster/gpu_check.sh` starts it. PROGRAM replaces the program that runs a part, for a rehearsal without a GPU.

The report is written again after each part, the most important first, so that a check cut short still has results.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from audiopipe.bench.task import CheckRow

__all__ = ["PLAN", "PartResult", "PlannedPart", "run_gpu_check"]

PROGRAM = (sys.executable, "-m", "audiopipe.bench.gpu_parts")


@dataclass(frozen=True)
class PlannedPart:
    """A part of the check, its title, and its time limit in seconds."""

    name: str
    title: str
    limit_s: float


# In order of importance; eight minutes in total.
PLAN = (
    PlannedPart("machine", "The machine", 30),
    PlannedPart("kernels", "Kernels: 128 segments of 10 s, 48 kHz, int16", 50),
    PlannedPart("parity", "Metrics on the device and on the CPU", 40),
    PlannedPart("scorers", "DNSMOS next to speechmos, and its speed", 70),
    PlannedPart("repeat", "A shard twice on the device", 60),
    PlannedPart("tests", "CUDA tests", 60),
    PlannedPart("pipeline", "The pipeline on all cores", 140),
    PlannedPart("memory", "A batch that does not fit", 30),
)
REHEARSAL_SLOWDOWN = 5.0  # a fake GPU is a CPU
# Run by pytest instead of `gpu_parts`.
TESTS = ("tests/kernels/test_measure.py", "tests/pipeline/test_device.py")


@dataclass(frozen=True)
class PartResult:
    """The outcome of a part: 'passed', 'missed a target', 'failed' or 'ran out of time', its duration, and its rows."""

    part: PlannedPart
    outcome: str
    seconds: float
    rows: list[CheckRow]


def run_gpu_check(
    audio: Path, out: Path, program: Sequence[str] = PROGRAM, plan: Sequence[PlannedPart] = PLAN
) -> list[PartResult]:
    """Run all parts and write `report.md`, `results.json` and `log.txt`.

    Args:
        program: runs a part, given its name, the audio and the output folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    done: list[PartResult] = []
    for part in plan:
        print(f"{part.title} (at most {part.limit_s:.0f} s)", flush=True)  # noqa: T201 - the progress of a command
        done.append(_run(part, audio, out, program))
        _write_report(done, plan, out)
    return done


def _run(part: PlannedPart, audio: Path, out: Path, program: Sequence[str]) -> PartResult:
    command = [*program, part.name, str(audio), str(out)]
    if part.name == "tests":
        # The machine may lack the plugins that the project's options need.
        options = ("-o", "addopts=--import-mode=importlib", "-W", "ignore", "-p", "no:cacheprovider")
        command = [sys.executable, "-m", "pytest", "-q", *options, "-k", "cuda or gpu or device", *TESTS]
    rows = out / f"{part.name}.json"
    rows.unlink(missing_ok=True)
    started = time.monotonic()
    with (out / "log.txt").open("ab") as log:
        log.write(f"\n== {part.title}\n".encode())
        log.flush()
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            outcome = "failed" if process.wait(part.limit_s) else "passed"
        except subprocess.TimeoutExpired:
            outcome = "ran out of time"
        finally:
            _kill_group(process)
    read = [CheckRow(**row) for row in json.loads(rows.read_text(encoding="utf-8"))] if rows.exists() else []
    rows.unlink(missing_ok=True)
    if outcome == "passed" and any(row.is_met is False for row in read):
        outcome = "missed a target"
    return PartResult(part, outcome, time.monotonic() - started, read)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a part and the processes that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _write_report(done: Sequence[PartResult], plan: Sequence[PlannedPart], out: Path) -> None:
    lines = ["# GPU check", "", "Written by `make gpu-check`; no number is typed by hand.", ""]
    lines += ["| part | outcome | seconds |", "| --- | --- | --- |"]
    lines += [f"| {result.part.title} | {result.outcome} | {result.seconds:.0f} |" for result in done]
    lines += [f"| {part.title} | not run | |" for part in plan[len(done) :]]
    for result in done:
        if result.rows:
            lines += ["", f"## {result.part.title}", "", "| | value | target | |", "| --- | --- | --- | --- |"]
            lines += [f"| {row.label} | {row.value} | {row.target} | {_mark(row.is_met)} |" for row in result.rows]
    (out / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    body = json.dumps([asdict(result) for result in done], indent=1)
    (out / "results.json").write_text(body + "\n", encoding="utf-8")


def _mark(is_met: bool | None) -> str:
    return "" if is_met is None else "met" if is_met else "missed"


def _main(audio: str, out: str, program: str = "") -> int:
    if program:
        slow = [replace(part, limit_s=REHEARSAL_SLOWDOWN * part.limit_s) for part in PLAN]
        results = run_gpu_check(Path(audio), Path(out), (sys.executable, program), slow)
    else:
        results = run_gpu_check(Path(audio), Path(out))
    return int(any(result.outcome != "passed" for result in results))


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
