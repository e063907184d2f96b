"""Run a pipeline: plan, submit, retry, record and finalize; resume a run, extend it, retry its dead letters.

The object store is the truth: a shard is done if its commit and its objects exist, and starting a run again resumes it.
The ledger is a view for people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from distributed import Client

from audiopipe.cluster.profiles import check_profile
from audiopipe.config import RunConfig
from audiopipe.dataset.backup import backup
from audiopipe.dataset.commit import Commit, read_commits, reopen_shard
from audiopipe.dataset.describe import finalize
from audiopipe.dataset.run_record import open_run, read_config, read_run_record
from audiopipe.dataset.schema import object_names
from audiopipe.dataset.select_lists import has_plan
from audiopipe.dataset.totals import Totals, effective_results
from audiopipe.driver.outcome import PhaseTimer, RunSummary
from audiopipe.driver.recorder import without_ledger_errors
from audiopipe.driver.session import OnTick, Session
from audiopipe.driver.task import Task, copy_segments, process_videos
from audiopipe.errors import ConfigError
from audiopipe.ledger import open_run_ledger
from audiopipe.plan.addresses import complete_plan
from audiopipe.plan.extend import plan_extension, plan_retry, resolve_plan
from audiopipe.plan.plan import Plan, load_plan
from audiopipe.plan.planned import PlannedShards, shard_sizes
from audiopipe.plan.sources import Addresses, find_addresses, is_moved, move_plan, refuse_other_catalog
from audiopipe.store.objects import Store
from audiopipe.store.output import check_output

__all__ = ["RunSummary", "complete_commits", "extend", "resume", "retry", "run"]


def run(
    config: RunConfig | None = None,
    *,
    client: Client | None = None,
    on_tick: OnTick | None = None,
    task: Task = process_videos,
    **parameters: object,
) -> RunSummary:
    """Run or resume a pipeline until every shard of the partition is committed or has failed too often.

    Args:
        config: parameters of the run; or pass them by name: `run(catalog="videos.parquet", output="out")`.
        client: client of the Dask cluster to use; by default the cluster of the config's profile is started, if there
            is work, and closed at the end.
        on_tick: called with the ledger and the run's id about twice a second, to show progress.
        task: runs on a worker for each shard, as `task(shard, config, run_id, worker)`; it must commit the shard and
            return its result.
        parameters: fields of `RunConfig`.

    Raises:
        ConfigError, CatalogError, PlanError, PermanentStoreError: at the start, before any work.
        VerifyError: a commit in the output is damaged.
        ClusterError: the workers did not start.
    """
    timer = PhaseTimer()
    if config is None:
        config = RunConfig.of(**parameters)
    elif parameters:
        raise ConfigError(
            f"run() got a RunConfig and also {', '.join(parameters)}: pass either a RunConfig or parameters by name"
        )
    if client is None:
        check_profile(config.cluster)
    store = Store(config.output)
    check_output(store)
    run_id = open_run(store, config)
    recorded = read_config(store)
    refuse_other_catalog(config, recorded, store)
    addresses = find_addresses(config, recorded, store) if is_moved(config, recorded) else {}
    languages = resolve_plan(config, store).languages()
    return _work(config, store, run_id, languages, config.partition_index, timer, client, on_tick, task, addresses)


def resume(
    output: str,
    *,
    shards: Iterable[str] = (),
    client: Client | None = None,
    on_tick: OnTick | None = None,
    **parameters: object,
) -> RunSummary:
    """Commit the shards that an output's plan still lacks, in all partitions, and describe the output again.

    Args:
        output: address of the output; it holds all that is needed, also the run's config.
        shards: names of shards to process again; their commits and objects are removed first, so no other driver may
            be running.
        client, on_tick: as for `run`.
        parameters: fields of `RunConfig` that do not change the output, such as `workers`. With `catalog` or
            `source_prefix`, videos that are still to be processed are fetched from where these say.

    Raises:
        VerifyError, PlanError: the address does not hold the output of a run, or its plan is damaged.
        ConfigError: the plan does not have a shard, or a parameter would change the output.
    """
    timer = PhaseTimer()
    store = Store(output)
    config, run_id, plan = _open_run(store, parameters)
    addresses = _moved_addresses(config, store, parameters)
    planned = plan.shard_names()
    for name in shards:
        if name not in planned:
            example = min(planned, default="en-000000")
            raise ConfigError(f"no shard '{name}' in the plan of {output}: its shards are named like {example}")
        language, _, index = name.rpartition("-")
        reopen_shard(store, name, object_names(language, int(index)).values())
    return _work(config, store, run_id, plan.languages(), None, timer, client, on_tick, _task_of(store), addresses)


def retry(
    output: str, *, client: Client | None = None, on_tick: OnTick | None = None, **parameters: object
) -> RunSummary:
    """Process the dead letters of an output again, as shards of a new generation of its plan.

    Args and Raises: as for `resume`.
    """
    timer = PhaseTimer()
    store = Store(output)
    config, run_id, _ = _open_run(store, parameters)
    addresses = _moved_addresses(config, store, parameters)
    planned = load_plan(store)
    commits = read_commits(store, planned.shard_names())
    dead_letters: dict[str, set[str]] = {}
    for result in effective_results(commits, planned).values():
        dead_letters.setdefault(result.language, set()).update(letter.video_id for letter in result.dead_letters)
    plan = plan_retry(config, store, dead_letters, commits.keys(), addresses)
    return _work(config, store, run_id, plan.languages(), None, timer, client, on_tick, _task_of(store), addresses)


def extend(
    output: str, *, client: Client | None = None, on_tick: OnTick | None = None, **parameters: object
) -> RunSummary:
    """Add the videos that are new in the catalog, as shards of a new generation of the plan.

    Args:
        output, client, on_tick: as for `resume`.
        parameters: as for `resume`, and also `catalog` and `language`. By default the languages are those of the run:
            'all', or its list and the languages that were added to it later.

    Raises: as `resume`, and `CatalogError` if the catalog cannot be read.
    """
    timer = PhaseTimer()
    store = Store(output)
    config, run_id, plan = _open_run(store, parameters)
    if read_run_record(store).parent is not None:
        raise ConfigError(f"{output} is a selection, which has no catalog: extend its parent and select again")
    if "language" not in parameters and config.listed_languages is not None:
        languages = dict.fromkeys([*config.listed_languages, *plan.languages()])
        config = read_config(store, **parameters, language=",".join(languages))
    return _work(config, store, run_id, plan_extension(config, store).languages(), None, timer, client, on_tick)


def _open_run(store: Store, parameters: Mapping[str, object]) -> tuple[RunConfig, str, Plan]:
    config = read_config(store, **parameters)
    check_output(store)
    record = read_run_record(store)
    if record.parent is None:
        return config, open_run(store, config), load_plan(store)
    if not has_plan(store):
        raise ConfigError(f"the selection in {store.url} was interrupted before its plan was complete: select again")
    return config, record.run_id, load_plan(store)


def _task_of(store: Store) -> Task:
    """Return what a worker does for a shard of an output: process videos, or copy segments of a parent."""
    return process_videos if read_run_record(store).parent is None else copy_segments


def _moved_addresses(config: RunConfig, store: Store, parameters: Mapping[str, object]) -> Addresses:
    """Return the addresses of the videos by id if the parameters name their catalog or prefix, else no address."""
    if not parameters.keys() & {"catalog", "source_prefix"}:
        return {}
    return find_addresses(config, read_config(store), store)


def _work(
    config: RunConfig,
    store: Store,
    run_id: str,
    planned: Sequence[str],
    partition: int | None,
    timer: PhaseTimer,
    client: Client | None,
    on_tick: OnTick | None,
    task: Task = process_videos,
    addresses: Addresses = MappingProxyType({}),
) -> RunSummary:
    """Commit the shards of a partition (None: of all); finalize the output if the whole plan is committed.

    Args:
        planned: languages of the plan that the run processes.
        timer: of the run, which has started.
        addresses: where videos are now, by id, if they have moved.
    """
    backup(store)
    whole = load_plan(store)
    commits, listed = _read_complete(store, whole)
    # Resuming processes all that was planned, so languages of the plan count even if the config does not list them.
    languages = [*(config.listed_languages or ()), *planned]
    whole = move_plan(whole, addresses)
    if task is not copy_segments:  # which fetches no video
        whole = complete_plan(whole, config, commits.keys())
    shards = PlannedShards(whole, partition, tuple(dict.fromkeys(languages)), config.language_order)
    part = config.partition_index, config.partition_count
    with open_run_ledger(config.ledger, config.output, config.metrics_address, part) as ledger:
        session = Session(
            config, run_id, whole, ledger, commits, shards, on_tick and without_ledger_errors(on_tick), task
        )
        session.open()
        timer.end("start")
        if session.pending:
            session.work(client)
            timer.end("work")
            whole = load_plan(store)  # other drivers may have extended it
            commits, listed = _read_complete(store, whole)
        if whole.shard_names() <= commits.keys():
            finalize(store, whole, commits, listed)
        status = session.close(commits)
    timer.end("finalize")
    return RunSummary(
        run_id=run_id,
        output=config.output,
        status=status,
        total=Totals.of(effective_results(commits, whole).values()),
        new=session.outcome.new,
        shards_planned=len(shard_sizes(whole, languages=planned)),
        shards_failed={shard: reason for shard, reason in session.outcome.failed.items() if shard not in commits},
        wall_s=timer.wall_s,
        workers_retired=session.steering.retired,
        stopped=session.outcome.stopped,
        unfinished_code=session.outcome.exit_code,
        max_failed_share=config.max_failed_share,
        phases=timer.phases,
    )


def complete_commits(store: Store, plan: Plan) -> dict[str, Commit]:
    """Read the commits of a plan's shards whose objects all exist, by the sizes of one listing."""
    return _read_complete(store, plan)[0]


def _read_complete(store: Store, plan: Plan) -> tuple[dict[str, Commit], dict[str, dict[str, Any]]]:
    """Return the complete commits, and the listing of the folders of the languages."""
    commits = read_commits(store, plan.shard_names(), pack=True)
    listed = store.list_all(plan.languages()) if commits else {}
    sizes = {name: info["size"] for name, info in listed.items()}
    complete = {
        shard: commit
        for shard, commit in commits.items()
        if all(sizes.get(item.name) == item.size for item in commit.objects)
    }
    return complete, listed
