"""The steps of `run.ipynb`: look ahead, get workers, work, tell."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from audiopipe.cluster import connect as cluster
from audiopipe.config import RunConfig
from audiopipe.dataset.commit import read_commits
from audiopipe.driver.run import RunSummary, run
from audiopipe.driver.signals import SignalGuard
from audiopipe.errors import AudiopipeError, LedgerError
from audiopipe.estimation import load_rates
from audiopipe.extras import require_extra
from audiopipe.ledger import Ledger, RunStatus
from audiopipe.ledger.snapshot import take_snapshot
from audiopipe.plan.extend import resolve_plan
from audiopipe.plan.plan import Plan
from audiopipe.report import live, page
from audiopipe.report.page import Html, esc
from audiopipe.report.settings import settings
from audiopipe.report.summary import describe_unfinished, summary_lines
from audiopipe.report.text import format_duration
from audiopipe.store.objects import Store

with require_extra("notebooks", "a notebook"):
    from IPython.display import DisplayHandle, display

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Preview", "RunIncomplete", "Stopped", "connect", "finish", "preview", "run_shards"]

REDRAW_S = 1.0
THREADS_PER_CORE = 2  # a core's second thread brings nothing, as in audiopipe.estimation


class RunIncomplete(AudiopipeError):
    """Shards are missing; the notebook fails, so that a scheduler sees it."""

    exit_code = 4
    remedy = "execute the notebook again: it goes on with what is missing"


class Stopped(KeyboardInterrupt):
    """The kernel was interrupted; nothing is lost but the shards under way."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


@dataclass(frozen=True)
class Preview:
    """What a run is going to do."""

    config: RunConfig
    plan: Plan
    committed: frozenset[str]

    @property
    def shards_left(self) -> int:
        mine = self.plan.shards(self.config.partition_index)
        return sum(shard.name not in self.committed for shard in mine)

    def _repr_html_(self) -> str:
        table = live.render_plan(self.plan, self.config, self.committed)
        parameters = settings(self.config.output_fields(), self.config.digest)
        return page.with_styles(page.join(table, self._estimate(), parameters))._repr_html_()

    def _estimate(self) -> Html:
        """How long what is left will take on this machine, by the rates that were measured or else assumed."""
        totals = self.plan.totals(self.config.partition_index).values()
        timed, shards = sum(total.hours for total in totals), sum(total.shards for total in totals)
        left_h = timed * self.shards_left / max(shards, 1)
        if not left_h:
            return (
                page.note("How long it takes cannot be told: the catalogue has no lengths.")
                if self.shards_left
                else Html("")
            )
        gpu = torch.cuda.is_available() and self.config.device != "cpu"
        rates = load_rates()
        core_h = left_h / (rates.core_x_with_gpu if gpu else rates.core_x_without_gpu)
        cores = len(os.sched_getaffinity(0)) / THREADS_PER_CORE
        told = f"<b>Estimated time: at least {format_duration(3600 * core_h / cores)}</b> on this machine (cores: {cores:g}"
        told += f"{', with its GPU' if gpu else ''}), {format_duration(3600 * core_h)} on one core; {esc(rates.describe())}."
        return Html(f"<p>{told} Many short videos take longer.</p>")


class _Draft:
    """An output's store that writes nothing: looking ahead must not bind the output to the parameters looked at."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.made: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        return self.made[name] if name in self.made else self.store.read(name)

    def list(self, prefix: str = "") -> dict[str, int]:
        made = {name: len(data) for name, data in self.made.items() if name.startswith(prefix)}
        return self.store.list(prefix) | made

    def create(self, name: str, data: bytes) -> bool:
        self.made[name] = data
        return True


def preview(config: RunConfig) -> Preview:
    """The plan as it is, or as it would be made now. Writes nothing.

    Raises:
        CatalogError, PlanError: as the run would.
    """
    store = Store(config.output)
    return Preview(config, resolve_plan(config, _Draft(store)), frozenset(read_commits(store)))


def connect(ahead: Preview) -> Client | None:
    """Workers for a run, and the link to their dashboard; None where there is nothing to do."""
    if not ahead.shards_left:
        display(Html("<p>Every shard is committed already: no cluster is needed.</p>"))
        return None
    client = cluster.connect_for(ahead.config)
    count, link = len(client.scheduler_info(n_workers=-1)["workers"]), esc(client.dashboard_link)
    threads = sum(client.nthreads().values())
    told = f"{count} workers, {threads} shards at once. Dask dashboard (while the run lasts): "
    display(Html(f'<p>{told}<a href="{link}">{link}</a></p>'))
    return client


class _Live:
    """Progress that is redrawn in its place, and stays in the saved notebook as it was last."""

    def __init__(self) -> None:
        self.area: DisplayHandle = display(Html("<p>Starting…</p>"), display_id=True)
        self.next = 0.0

    def __call__(self, ledger: Ledger, run_id: str) -> None:
        seen = ledger.run(run_id)
        ended = seen is not None and seen.status is not RunStatus.RUNNING
        if not ended and time.monotonic() < self.next:
            return
        try:
            self.area.update(live.render_progress(take_snapshot(ledger, run_id)))
        except LedgerError as error:
            # The run does not need the ledger, so the picture of it must not end the run.
            self.area.update(Html(f"<p>No progress to show: {esc(error)}</p>"))
        self.next = time.monotonic() + REDRAW_S


def run_shards(ahead: Preview, client: Client | None) -> RunSummary:
    """Run or go on, with live progress below the cell.

    Raises:
        Stopped: the kernel was interrupted.
        ConfigError: the output was made with other parameters.
    """
    try:
        with SignalGuard(signal.SIGINT) as stop:
            return run(ahead.config, client=client, on_tick=stop.before(_Live()))
    except KeyboardInterrupt:
        raise Stopped("committed shards stay; execute this cell again to go on, or close the notebook") from None


def finish(summary: RunSummary, client: Client | None) -> None:
    """Close the cluster, and show how the run ended; the lines are what `make demo` prints of this cell.

    Raises:
        RunIncomplete: shards are missing. Videos that failed for good do not count: they are part of a finished run.
    """
    if client is not None:
        cluster.close(client)
    display(live.render_result(summary), metadata={"audiopipe": {"exit_code": summary.exit_code}})
    print(*summary_lines(summary), sep="\n")  # noqa: T201
    if problem := describe_unfinished(summary):
        raise RunIncomplete(problem)
