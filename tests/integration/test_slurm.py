"""Run the profile `slurm` on a real queue: its jobs are encrypted workers, and none is left after the driver."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from output_factory import config, content, corpus, make_output
from slurm_queue import MISSING, slurm
from waiting import wait_until

from audiopipe.cluster.connect import close, connect
from audiopipe.driver import run

REPOSITORY = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.privileged,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's daemon needs root"),
]


def jobs() -> list[str]:
    """List the states of all jobs in the queue."""
    return subprocess.run(["squeue", "-h", "-o", "%T"], capture_output=True, text=True, check=True).stdout.split()


def test_a_run_on_a_queue_is_encrypted_and_its_jobs_end_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = corpus(tmp_path / "corpus", videos=4, missing=False)
    subprocess.run([REPOSITORY / "cluster/make_tls.sh", tmp_path / "tls"], check=True, capture_output=True)
    (tmp_path / "slurm").mkdir()
    node = {
        "n_workers": 2,
        "job_cpu": 1,
        "memory": "3 GiB",
        "job_extra_directives": [],
    }  # the nodes of the profile have GPUs
    with slurm(tmp_path / "slurm") as environment:
        monkeypatch.setenv("SLURM_CONF", environment["SLURM_CONF"])
        monkeypatch.chdir(tmp_path)
        client = connect("slurm", **node, tls=str(tmp_path / "tls"), dashboard_address=":0", wait_s=120)
        try:
            workers = list(client.scheduler_info(n_workers=-1)["workers"])
            assert jobs() == ["RUNNING", "RUNNING"]
            lifetimes = client.run(lambda: __import__("dask").config.get("distributed.worker.lifetime.duration"))
            summary = run.run(config(catalog, tmp_path / "out"), client=client)
        finally:
            close(client)
        wait_until(lambda: not jobs(), lambda: f"jobs are left: {jobs()}", poll_s=0.2)
    assert [address[:6] for address in workers] == ["tls://", "tls://"]
    assert set(lifetimes.values()) == {"23 hours"}
    assert summary.exit_code == 0
    assert content(tmp_path / "out") == content(make_output(config(catalog, tmp_path / "expected")).url)
