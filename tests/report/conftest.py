"""One small dataset and one run in a ledger, for all tests of reports."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
from output_factory import config, corpus, make_output

from audiopipe.dataset.commit import read_commits
from audiopipe.ledger import ErrorRow, LanguageTotal, Role, RunRow, RunStatus, WorkerRow, WorkerStatus, open_ledger
from audiopipe.plan.plan import load_plan
from audiopipe.store.objects import Store

DUCKDB_TYPES = {"float": "FLOAT", "int": "INTEGER", "bool": "BOOLEAN", "string": "VARCHAR"}


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """The URL of an output of 7 videos in two languages, of which one is missing; a limit drops some segments."""
    folder = tmp_path_factory.mktemp("dataset")
    catalog = corpus(folder / "corpus", videos=6)
    make_output(config(catalog, folder / "out", max_loudness_lufs=-14.85))
    return str(folder / "out")


@pytest.fixture(scope="session")
def ledger(dataset):
    """The ledger of that output, with a finished run, two workers and an attempt that failed."""
    store = Store(dataset)
    totals = load_plan(store).totals()
    with open_ledger(None, dataset) as ledger:
        run = RunRow("tests", "all", sum(total.videos for total in totals.values()), output=dataset)
        ledger.start_run(run, [LanguageTotal(name, total.videos, total.shards) for name, total in totals.items()])
        ledger.record_failure(
            "tests", ErrorRow.of_attempt("en-000000", 1, "host/p0/1", "StoreError", "503 <b>slow down</b>")
        )
        for commit in read_commits(store).values():
            ledger.record_shard(commit.result)
        workers = [WorkerRow("host/p0", Role.DRIVER, status=WorkerStatus.DONE)]
        ledger.heartbeat("tests", [*workers, WorkerRow("host/p0/1", status=WorkerStatus.DONE, memory_bytes=10**9)])
        ledger.finish_run("tests", RunStatus.DONE)
    return dataset


@pytest.fixture(scope="session")
def add_columns():
    """Return the function that adds columns of scorers to the tables of a report."""
    return _add_columns


def _add_columns(tables, columns, **values):
    """Return tables that have further columns of scorers, with these values."""
    dataset = copy.copy(tables.dataset)
    types = {column.name: DUCKDB_TYPES[column.type] for column in columns}
    vars(dataset)["column_types"] = {**tables.dataset.column_types, **types}
    vars(dataset)["score_columns"] = (*tables.dataset.score_columns, *columns)
    return replace(tables, dataset=dataset, segments=tables.segments.assign(**values))
