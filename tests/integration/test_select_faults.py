"""Selections by real processes: killed in the middle and resumed, and of a hundred thousand segments."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from output_factory import content
from selection_factory import flac, make_samples, select_here
from waiting import wait_until

from audiopipe.dataset.gc import collect_garbage
from audiopipe.dataset.reader import Dataset
from audiopipe.dataset.verify import verify

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-P", "-m", "audiopipe.cli", "select"]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start the command in a session of its processes, with its output in a file."""
    with (folder / "log").open("a") as log:
        return subprocess.Popen(
            [*COMMAND, *arguments, "--workers", "2"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def test_a_killed_selection_resumes_with_the_same_bytes(tmp_path: Path) -> None:
    audio = [flac(3.0, seed) for seed in range(5)]
    parent = make_samples(str(tmp_path / "out"), ("en", "de"), 4, 10, 20, audio, None).url
    where = "snr_db > 5 AND text IS NOT NULL"
    reference = select_here(
        parent, str(tmp_path / "reference"), tmp_path / "scratch", where=where, shard_mb=2, shuffle=4
    )
    dest = tmp_path / "dest"
    command = (parent, str(dest), "--where", where, "--shard-mb", "2", "--shuffle", "4", "--json")
    for commits in (0, 3):
        process = start(tmp_path, *command)
        try:
            if commits == 0:
                wait_until(lambda: any(dest.glob("_selection/*")), 60)
            else:
                wait_until(lambda: len(list(dest.glob("_commits/*"))) >= commits, 120)  # noqa: B023 - called here
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    process = start(tmp_path, *command)
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, (tmp_path / "log").read_text()
    assert json.loads(output)["status"] == "done"
    collect_garbage(str(dest), remove=True, min_age_h=0)  # parts of the killed attempts
    expected = content(reference.url)
    resumed = content(dest)
    # The descriptions have the run's id, which differs.
    for name in expected.keys() - {"dataset.json", "README.md", "croissant.json"}:
        assert resumed[name] == expected[name], name
    assert resumed.keys() == expected.keys()
    assert verify(str(dest)).findings == ()


def read_peak_mb(pid: int) -> float:
    """Read the peak memory of a process and its children; `ru_maxrss` would begin with that of this process."""
    peaks = [0]
    with suppress(psutil.Error, OSError):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            peaks += re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    return max(map(int, peaks)) / 1024


def test_a_hundred_thousand_segments_are_selected(tmp_path: Path) -> None:
    parent = make_samples(
        str(tmp_path / "out"), ("en",), 20, 250, 20, [flac(0.05, seed) for seed in range(3)], None
    ).url
    command = ("--where", "kept AND snr_db > 10", "--shuffle", "1", "--split", "train=0.9,test=0.1", "--shard-mb", "64")
    process = start(tmp_path, parent, str(tmp_path / "dest"), *command, "--json")
    memory_mb = 0.0
    while process.poll() is None:
        memory_mb = max(memory_mb, read_peak_mb(process.pid))
        time.sleep(0.05)
    output, _ = process.communicate()
    assert process.returncode == 0, (tmp_path / "log").read_text()
    summary = json.loads(output)
    dataset = Dataset(str(tmp_path / "dest"))
    [(count, videos)] = (
        Dataset(parent)
        .query("SELECT count(*) AS n, count(DISTINCT video_id) AS v FROM segments WHERE kept AND snr_db > 10")
        .to_pandas()
        .itertuples(index=False)
    )
    assert (summary["segments_kept"], summary["videos"]) == (count, videos)
    assert len(dataset) == count > 70_000
    assert verify(dataset.url, sample=2).findings == ()
    assert 0 < memory_mb < 1500
