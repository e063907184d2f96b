"""Add later generations to the plan: videos that were added to the catalog, and dead letters that are retried.

Each generation is a separate file of the plan, created only if absent, whose shards continue the numbering. So no shard
changes once it is planned, and a driver that comes second reads the plan of the first.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Set
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.catalog.read import CATALOG_SCHEMA, read_catalog
from audiopipe.config import RunConfig
from audiopipe.plan.catalog_columns import conform
from audiopipe.plan.files import ADDED_COLUMNS, ObjectStore, PlanMetadata, plan_path, read_files, serialize
from audiopipe.plan.plan import Plan, assign_shards, create_plan, load_plan
from audiopipe.plan.sources import Addresses, move_rows
from audiopipe.types import shard_name

__all__ = ["plan_extension", "plan_retry", "resolve_plan"]

LOG = logging.getLogger(__name__)


def resolve_plan(config: RunConfig, store: ObjectStore) -> Plan:
    """Return the plan that a run follows; create it if there is none, and extend it if the config says so.

    Raises:
        CatalogError, PlanError: the catalog or the plan cannot be read.
    """
    plan = create_plan(config, store)
    return plan_extension(config, store) if config.extend else plan


def plan_retry(
    config: RunConfig,
    store: ObjectStore,
    dead_letters: Mapping[str, Set[str]],
    committed: Set[str],
    addresses: Addresses = MappingProxyType({}),
) -> Plan:
    """Add shards for dead letters that have none yet; return the whole plan.

    Args:
        dead_letters: ids of the failed videos by language.
        committed: names of the shards that have a commit.
        addresses: where videos are now, by id, if they have moved.

    Raises:
        PlanError: the output does not have a plan, or it cannot be read.
    """
    plan = load_plan(store)
    for language, ids in dead_letters.items():
        rows = _select_retriable(plan.tables[language], language, ids, committed)
        _add_generation(config, store, language, move_rows(rows, addresses), "retry")
    return load_plan(store)


def plan_extension(config: RunConfig, store: ObjectStore) -> Plan:
    """Add shards for all videos of the config's languages in the catalog that the plan lacks; return the whole plan.

    Raises:
        CatalogError, PlanError: the catalog or the plan cannot be read.
    """
    languages = "all languages" if config.languages is None else f"{config.language} (select others with --language)"
    LOG.info("looking for new videos in %s", languages)
    plan, catalog = load_plan(store), read_catalog(config)
    for language in catalog.languages():
        rows = catalog.videos(language)
        if language in plan.tables:
            planned = plan.tables[language]["video_id"].combine_chunks()
            rows = rows.filter(pc.invert(pc.is_in(rows["video_id"], planned)))
        rows = conform(rows, plan.tables.values())
        _add_generation(config, store, language, rows, "extend")
    return load_plan(store)


def _select_retriable(table: pa.Table, language: str, ids: Iterable[str], committed: Set[str]) -> pa.Table:
    """Return the latest plan row of each of these videos, except those whose latest shard is still to be committed."""
    rows = table.filter(pc.is_in(table["video_id"], pa.array(sorted(ids), pa.string()))).sort_by("shard")
    latest = {video_id: row for row, video_id in enumerate(rows["video_id"].to_pylist())}
    shards = rows["shard"].to_pylist()
    selected = sorted(row for row in latest.values() if shard_name(language, shards[row]) in committed)
    columns = [name for name in rows.column_names if name in CATALOG_SCHEMA.names or name in ADDED_COLUMNS]
    return rows.take(pa.array(selected, pa.int64())).select(columns)


def _add_generation(config: RunConfig, store: ObjectStore, language: str, videos: pa.Table, kind: str) -> None:
    if not videos.num_rows:
        return
    files = read_files(store).get(language, [])
    generation = max((file.metadata.generation for file in files), default=-1) + 1
    last_shards = [int(pc.max(file.table["shard"]).as_py()) for file in files if file.table.num_rows]
    table = assign_shards(videos, config, first_shard=max(last_shards, default=-1) + 1)
    # If another driver was first, its generation counts, and the videos that it lacks are planned the next time.
    store.create(plan_path(language, generation), serialize(table, PlanMetadata.of(config, generation, kind=kind)))
