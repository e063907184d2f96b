"""Process the new videos of the catalog every night at two, with Airflow 3, or 2.10 by its older imports.

Airflow has a separate Python environment, so the task calls `run.sh`, which uses audiopipe's. Keys come from the
worker's environment. Exit codes 0 and 3 are success, 4 is retried, 1, 2 and 5 (too many failed videos) fail at once.
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

INSTALLATION = os.environ.get("AUDIOPIPE_HOME", "/opt/audiopipe")
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
        process = subprocess.Popen([f"{INSTALLATION}/cluster/schedule/run.sh", parameters])
        try:
            status = process.wait()
        finally:
            # Airflow stops a task by an exception, and the run must stop with it.
            process.terminate()
            process.wait()
        if status == NOT_FINISHED:
            raise RuntimeError("not finished: commits stay, and the next attempt resumes")
        if status not in (DONE, DEAD_LETTERS):
            raise AirflowFailException(f"exit code {status}: read the error in the log above; a retry would fail too")
        return "done, with dead letters" if status == DEAD_LETTERS else "done"

    run(PARAMETERS)


audiopipe_nightly()
