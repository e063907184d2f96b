"""Airflow: what came to the catalogue since, every night at two. For Airflow 3, and 2.10 by its older imports.

Airflow runs in an environment of its own: the task calls `run.sh`, which uses audiopipe's. Keys come from the worker's
environment. What the exit codes mean to Airflow: 0 and 3 are success, 4 is tried again, 1 and 2 fail at once.
"""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime, timedelta

try:
    from airflow.sdk import dag, task
    from airflow.sdk.exceptions import AirflowFailException
except ImportError:
    from airflow.decorators import dag, task
    from airflow.exceptions import AirflowFailException

HOME = os.environ.get("AUDIOPIPE_HOME", "/opt/audiopipe")
PARAMETERS = os.environ.get("AUDIOPIPE_PARAMETERS", "/etc/audiopipe/schedule/nightly.yaml")
DONE, DEAD_LETTERS, NOT_FINISHED = 0, 3, 4


@dag(
    dag_id="audiopipe_nightly",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["audiopipe"],
)
def audiopipe_nightly() -> None:
    @task(retries=6, retry_delay=timedelta(minutes=5), retry_exponential_backoff=True)
    def run(parameters: str) -> str:
        process = subprocess.Popen([f"{HOME}/cluster/schedule/run.sh", parameters])
        try:
            status = process.wait()
        finally:
            # Airflow ends a task by an exception; the run must not live on without it.
            process.terminate()
            process.wait()
        if status == NOT_FINISHED:
            raise RuntimeError("not finished: what is committed stays, the next try goes on")
        if status not in (DONE, DEAD_LETTERS):
            raise AirflowFailException(f"exit code {status}: the log above names what is wrong; trying again is no use")
        return "done, with dead letters" if status == DEAD_LETTERS else "done"

    run(PARAMETERS)


audiopipe_nightly()
