"""The steps of `run.ipynb`: preview, connect, run, summarize."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from audiopipe.cluster import connect as cluster
from audiopipe.config import RunConfig
from audiopipe.dataset.commit import read_commits
from audiopipe.driver.run import RunSummary, run
from audiopipe.driver.session import OnTick
from audiopipe.driver.signals import SignalGuard
from audiopipe.errors import AudiopipeError, LedgerError
from audiopipe.estimation import load_rates
from audiopipe.extras import require_extra
from audiopipe.ledger import Ledger, RunStatus
from audiopipe.ledger.snapshot import take_snapshot
from audiopipe.plan.extend import resolve_plan
from audiopipe.plan.plan import Plan
from audiopipe.report import live, page
from audiopipe.report.notebook.cells import JUPYTERLAB
from audiopipe.report.page import Html, esc
from audiopipe.report.settings import settings
from audiopipe.report.summary import describe_problem, summary_lines
from audiopipe.report.text import format_duration
from audiopipe.store.objects import Store

with require_extra("notebooks", "a notebook"):
    from IPython.display import DisplayHandle, display

if TYPE_CHECKING:
    from distributed import Client

__all__ = [
    "Preview",
    "RunIncomplete",
    "Stopped",
    "TooManyFailed",
    "connect",
    "finish",
    "preview",
    "run_shards",
    "with_progress",
]

REDRAW_S = 1.0
SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"  # of Linux


class RunIncomplete(AudiopipeError):
    """Shards are missing. The notebook fails, so that a scheduler notices."""

    exit_code = 4
    remedy = "execute the notebook again: it processes the missing shards"


class TooManyFailed(AudiopipeError):
    """The run is done, but most likely not as it was meant. The notebook fails, so that a scheduler notices."""

    exit_code = 5
    remedy = "correct the reason that the message names, then run `audiopipe retry OUTPUT`"


class Stopped(KeyboardInterrupt):
    """The kernel was interrupted. Only the shards in progress are lost."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


@dataclass(frozen=True)
class Preview:
    """The configuration of a run, its plan, and the shards that are committed already."""

    config: RunConfig
    plan: Plan
    committed: frozenset[str]

    @property
    def shards_left(self) -> int:
        """The number of shards of this partition that are not committed."""
        shards = self.plan.shards(self.config.partition_index)
        return sum(shard.name not in self.committed for shard in shards)

    def _repr_html_(self) -> str:
        table = live.render_plan(self.plan, self.config, self.committed)
        parameters = settings(self.config.output_fields(), self.config.digest)
        return page.with_styles(page.join(table, self._estimate(), parameters))._repr_html_()

    def _estimate(self) -> Html:
        """Estimate the time for the remaining shards on this machine, from measured or else assumed rates."""
        totals = self.plan.totals(self.config.partition_index).values()
        audio_h, shards = sum(total.hours for total in totals), sum(total.shards for total in totals)
        left_h = audio_h * self.shards_left / max(shards, 1)
        if not self.shards_left:
            return Html("")
        if not left_h:
            return page.note("The time cannot be estimated, because the catalog has no durations.")
        gpu = torch.cuda.is_available() and self.config.device != "cpu"
        rates = load_rates()
        core_h = left_h / (rates.core_x_with_gpu if gpu else rates.core_x_without_gpu)
        cores = count_cores()
        time_here, time_on_core = format_duration(3600 * core_h / cores), format_duration(3600 * core_h)
        machine = f"on this machine (cores: {cores}{', with its GPU' if gpu else ''})"
        estimate = f"<b>Estimated time: at least {time_here}</b> {machine}, {time_on_core} on one core"
        return Html(f"<p>{estimate}; {esc(rates.describe())}. Many short videos take longer.</p>")


def count_cores() -> int:
    """Return the number of cores that this process may use; the second thread of a core adds no speed."""

    def siblings(cpu: int) -> str:
        path = Path(SIBLINGS.format(cpu))
        return path.read_text(encoding="ascii") if path.exists() else str(cpu)

    return len({siblings(cpu) for cpu in os.sched_getaffinity(0)})


class _DraftStore:
    """A view of an output's store that keeps writes in memory: a preview must not bind the output to its parameters."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.drafts: dict[str, bytes] = {}

    def read(self, name: str) -> bytes:
        return self.drafts[name] if name in self.drafts else self.store.read(name)

    def read_all(self, names: Sequence[str]) -> dict[str, bytes]:
        return {name: self.read(name) for name in names}

    def list(self, prefix: str = "") -> dict[str, int]:
        drafts = {name: len(data) for name, data in self.drafts.items() if name.startswith(prefix)}
        return self.store.list(prefix) | drafts

    def create(self, name: str, data: bytes) -> bool:
        self.drafts[name] = data
        return True


def preview(config: RunConfig) -> Preview:
    """Load the plan, or make it without storing it.

    Raises:
        CatalogError, PlanError: as for the run.
    """
    store = Store(config.output)
    return Preview(config, resolve_plan(config, _DraftStore(store)), frozenset(read_commits(store)))


def connect(preview: Preview) -> Client | None:
    """Start workers and show the link to their dashboard; return None if every shard is committed."""
    if not preview.shards_left:
        display(Html("<p>Every shard is committed already: no cluster is needed.</p>"))
        return None
    client = cluster.connect_for(preview.config)
    count, link = len(client.scheduler_info(n_workers=-1)["workers"]), esc(client.dashboard_link)
    threads = sum(client.nthreads().values())
    text = f"{count} workers, {threads} shards at once. Dask dashboard (while the run lasts): "
    display(Html(f'<p>{text}<a href="{link}">{link}</a></p>'))
    return client


class _Live:
    """A progress area that is redrawn in place. The saved notebook keeps its last state."""

    def __init__(self) -> None:
        self.area: DisplayHandle = display(Html("<p>Starting…</p>"), display_id=True)
        self.next = 0.0

    def __call__(self, ledger: Ledger, run_id: str) -> None:
        try:
            run = ledger.run(run_id)
            ended = run is not None and run.status is not RunStatus.RUNNING
            if not ended and time.monotonic() < self.next:
                return
            self.area.update(live.render_progress(take_snapshot(ledger, run_id)))
        except LedgerError as error:
            # The run does not need the ledger, so an error of the ledger must not end it.
            self.area.update(Html(f"<p>The progress cannot be shown: {esc(error)}</p>"))
        self.next = time.monotonic() + REDRAW_S


def run_shards(preview: Preview, client: Client | None) -> RunSummary:
    """Run or resume, with live progress below the cell.

    Raises:
        Stopped: the kernel was interrupted.
        ConfigError: the output was made with other parameters.
    """
    return with_progress(lambda on_tick: run(preview.config, client=client, on_tick=on_tick))


def with_progress(work: Callable[[OnTick], RunSummary]) -> RunSummary:
    """Run a driver with live progress below the cell.

    Raises:
        Stopped: the kernel was interrupted.
    """
    try:
        with SignalGuard(signal.SIGINT) as stop:
            return work(stop.before(_Live()))
    except KeyboardInterrupt:
        raise Stopped("committed shards are safe; execute this cell again to continue, or close the notebook") from None


def finish(summary: RunSummary, client: Client | None) -> None:
    """Close the cluster and show the result of the run; `make demo` prints the text lines.

    Raises:
        RunIncomplete: shards are missing. Videos that failed permanently are part of a finished run.
        TooManyFailed: all shards are there, but more than `max_failed_share` of the videos failed. In JupyterLab the
            result shows it, and no error is raised: only a program needs one.
    """
    if client is not None:
        cluster.close(client)
    display(live.render_result(summary), metadata={"audiopipe": {"exit_code": summary.exit_code}})
    print(*summary_lines(summary), sep="\n")  # noqa: T201
    problem = describe_problem(summary)
    if problem and summary.status is not RunStatus.DONE:
        raise RunIncomplete(problem)
    if problem and JUPYTERLAB not in os.environ:
        raise TooManyFailed(problem)
