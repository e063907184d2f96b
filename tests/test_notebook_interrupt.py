"""Check that an interrupted kernel of `run.ipynb` stops the run cleanly, and that the same notebook resumes it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import has_ended, wait_until

from audiopipe.dataset.commit import read_commits
from audiopipe.dataset.verify import verify
from audiopipe.ledger import RunStatus, open_ledger
from audiopipe.report.export import export_notebook, read_cell_text
from audiopipe.store.objects import Store

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "run.ipynb"


def papermill(corpus, output, saved):
    """Start `run.ipynb` under papermill, with one shard per video and one worker."""
    parameters = {"catalog": corpus / "catalog.parquet", "output": output, "workers": 1, "shard_videos": 1}
    parameters["max_failed_share"] = 1  # much of the corpus is broken on purpose
    options = [part for name, value in parameters.items() for part in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(NOTEBOOK), str(saved), *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for_commits(store, count, process):
    def committed():
        assert process.poll() is None, process.stderr.read()[-2000:]
        return len(read_commits(store)) >= count

    wait_until(committed, f"{count} shards are committed", timeout_s=300, poll_s=0.2)


def children_of(pid):
    """List the processes that a process or one of its threads has started."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(number) for text in lists for number in text.split()]


@pytest.mark.slow
def test_an_interrupted_kernel_stops_and_the_same_notebook_resumes(tiny_corpus, tmp_path):
    store, saved = Store(str(tmp_path / "out")), tmp_path / "stopped.ipynb"
    with papermill(tiny_corpus, store.url, saved) as process:
        wait_for_commits(store, 2, process)
        (kernel,) = children_of(process.pid)
        workers = children_of(kernel)
        os.kill(kernel, signal.SIGINT)
        stderr = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "Stopped: committed shards are safe; execute this cell again to continue" in stderr
    assert workers
    wait_until(lambda: all(map(has_ended, [kernel, *workers])), "the kernel and its workers end")
    before = set(read_commits(store))
    page = export_notebook(saved, tmp_path / "stopped.html").read_text(encoding="utf-8")
    assert "execute this cell again to continue" in page
    assert "videos done" in page, "the progress area is in the saved notebook"
    assert "Traceback" not in page
    with open_ledger(None, store.url, create=False) as ledger:
        assert ledger.run().status is not RunStatus.DONE
    with papermill(tiny_corpus, store.url, tmp_path / "resumed.ipynb") as process:
        stderr = process.communicate(timeout=250)[1]
    assert process.returncode == 0, stderr[-2000:]
    assert "committed before" in read_cell_text(tmp_path / "resumed.ipynb", "summary")
    assert before < set(read_commits(store))
    assert verify(store.url).findings == ()
    with open_ledger(None, store.url, create=False) as ledger:
        assert ledger.run().status is RunStatus.DONE
