"""Run a pipeline: plan, submit, retry, record, finalise; go on with one, extend it, try its dead letters again.

The object store is the truth: what has a commit and its objects is done, and a run is resumed by starting it again.
The ledger is written for people to look at. With `cluster.py` this is the only room that knows Dask.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from distributed import Client

from audiopipe.config import RunConfig
from audiopipe.dataset import backup as copies
from audiopipe.dataset import describe as output
from audiopipe.dataset.commit import Commit, withdraw
from audiopipe.dataset.schema import object_names
from audiopipe.dataset.totals import Totals
from audiopipe.driver.session import OnTick, Session
from audiopipe.errors import ConfigError
from audiopipe.ledger import RunStatus, open_ledger
from audiopipe.plan.extend import plan_extension, plan_retry, resolve_plan
from audiopipe.plan.plan import Plan, load
from audiopipe.store.objects import Store

__all__ = ["RunSummary", "extend", "resume", "retry", "run"]


@dataclass(frozen=True)
class RunSummary:
    """How a run ended. `total` is over all commits of the output, `new` over this session's."""

    run_id: str
    output: str
    status: RunStatus
    total: Totals
    new: Totals
    shards_planned: int
    shards_failed: dict[str, str]
    wall_s: float

    @property
    def exit_code(self) -> int:
        """0 done, 3 done with dead letters, 4 not finished: run again."""
        if self.status is not RunStatus.DONE:
            return 4
        return 3 if self.total.videos_failed else 0


def run(config: RunConfig, client: Client | None = None, on_tick: OnTick | None = None) -> RunSummary:
    """Run or resume, until every shard of this partition is committed or has failed too often.

    Args:
        client: of the cluster to use; without one the config's profile is started, if there is anything to do.
        on_tick: called with the ledger and the run's id about twice a second, to show progress.

    Raises:
        ConfigError, CatalogError, PlanError, StoreRefused: at the start, before any work.
        VerifyError: a commit in the output is damaged.
        ClusterError: the workers did not come.
    """
    store = Store(config.output)
    run_id = output.open_run(store, config)
    return _work(config, store, run_id, resolve_plan(config, store), config.partition_index, client, on_tick)


def resume(
    url: str,
    shards: Iterable[str] = (),
    client: Client | None = None,
    on_tick: OnTick | None = None,
    **parameters: Any,
) -> RunSummary:
    """Finish what an output's plan still lacks, in all partitions, from the output alone, and describe it again.

    Args:
        shards: to be made again: their commits and objects are removed first. No driver may be at work.
        parameters: of `RunConfig`, that say how the work is done.

    Raises:
        VerifyError, PlanError: there is no run at that address, or its plan is damaged.
        ConfigError: no such shard, or a parameter that would change the output.
    """
    store = Store(url)
    config, run_id, plan = _of_output(store, parameters)
    planned = {shard.name: shard for shard in plan.shards()}
    for name in shards:
        if name not in planned:
            raise ConfigError(
                f"no shard '{name}' in the plan of {url}: they are named like {next(iter(planned), 'en-0')}"
            )
        withdraw(store, name, object_names(planned[name].language, planned[name].index).values())
    return _work(config, store, run_id, plan, None, client, on_tick)


def retry(url: str, client: Client | None = None, on_tick: OnTick | None = None, **parameters: Any) -> RunSummary:
    """Try the dead letters of an output again, as shards of a new generation of its plan.

    Raises: as `resume`.
    """
    store = Store(url)
    config, run_id, _ = _of_output(store, parameters)
    commits = output.read_commits(store)
    dead: dict[str, set[str]] = {}
    for result in output.effective_results(commits, load(store)).values():
        dead.setdefault(result.language, set()).update(letter.video_id for letter in result.dead_letters)
    plan = plan_retry(config, store, dead, commits.keys())
    return _work(config, store, run_id, plan, None, client, on_tick)


def extend(url: str, client: Client | None = None, on_tick: OnTick | None = None, **parameters: Any) -> RunSummary:
    """Add the videos that came to the catalogue since, as shards of a new generation of the plan.

    Args:
        parameters: as of `resume`, `catalog`, and `language`: whose videos; by default those of the run, which are
            'all' if it asked for that, and otherwise its list and what was added to it since.

    Raises: as `resume`, and `CatalogError` if the catalogue cannot be read.
    """
    store = Store(url)
    config, run_id, plan = _of_output(store, parameters)
    if "language" not in parameters and config.listed_languages is not None:
        known = dict.fromkeys([*config.listed_languages, *plan.languages()])
        config = output.config_of(store, **parameters, language=",".join(known))
    return _work(config, store, run_id, plan_extension(config, store), None, client, on_tick)


def _of_output(store: Store, parameters: dict[str, Any]) -> tuple[RunConfig, str, Plan]:
    config = output.config_of(store, **parameters)
    return config, output.open_run(store, config), load(store)


def _work(
    config: RunConfig,
    store: Store,
    run_id: str,
    plan: Plan,
    partition: int | None,
    client: Client | None,
    on_tick: OnTick | None,
) -> RunSummary:
    """Bring the shards of a partition, or of all, to their commits; describe the output if the whole plan is there."""
    started = time.monotonic()
    copies.backup(store)
    commits = _committed(store)
    # Also languages that are not in the list: what is resumed is all that was planned.
    languages = [*(config.listed_languages or ()), *plan.languages()]
    mine = list(plan.shards(partition, languages, config.language_order))
    with open_ledger(config.ledger, config.output) as ledger:
        # The run is all that is planned in the output, even if this driver takes a part of it.
        session = Session(config, run_id, load(store), ledger, commits, mine, on_tick)
        session.open()
        if session.todo:
            session.work(client)
            commits = _committed(store)
        whole = load(store)
        if all(shard.name in commits for shard in whole.shards()):
            output.finalize(store)
        status = session.close(commits)
    return RunSummary(
        run_id=run_id,
        output=config.output,
        status=status,
        total=Totals.of(output.effective_results(commits, whole).values()),
        new=Totals.of(session.new),
        shards_planned=sum(total.shards for total in plan.totals().values()),
        shards_failed={shard: why for shard, why in session.failed.items() if shard not in commits},
        wall_s=time.monotonic() - started,
    )


def _committed(store: Store) -> dict[str, Commit]:
    """Commits whose objects are all there, by the sizes of one listing."""
    commits = output.read_commits(store)
    present = store.list() if commits else {}
    return {
        shard: commit
        for shard, commit in commits.items()
        if all(present.get(item.name) == item.size for item in commit.objects)
    }
