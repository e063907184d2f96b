"""Later generations of the plan: videos that came to the catalogue since, and dead letters that are tried again.

Each is a file of the plan of its own, created only if absent, with shards that go on counting. So nothing that was
planned moves, and whoever is second reads what the first has planned.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Set

import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.catalog import read as catalog
from audiopipe.config import RunConfig
from audiopipe.plan.files import ObjectStore, read_files
from audiopipe.plan.plan import Plan, assign_shards, create_plan, load_plan, plan_path, serialize

__all__ = ["plan_extension", "plan_retry", "resolve_plan"]

LOG = logging.getLogger(__name__)


def resolve_plan(config: RunConfig, store: ObjectStore) -> Plan:
    """The plan that a run follows: made now where there is none, with what came to the catalogue since if it asks so.

    Raises:
        CatalogError, PlanError: the catalogue, or the plan, cannot be read.
    """
    plan = create_plan(config, store)
    return plan_extension(config, store) if config.extend else plan


def plan_retry(
    config: RunConfig, store: ObjectStore, dead_letters: Mapping[str, Set[str]], committed: Set[str]
) -> Plan:
    """Add shards for dead letters that have none yet; return the whole plan.

    Args:
        dead_letters: ids of the failed videos by language.
        committed: names of the shards that have a commit.

    Raises:
        PlanError: there is no plan, or it cannot be read.
    """
    plan = load_plan(store)
    for language, ids in dead_letters.items():
        _add(config, store, language, _again(plan.tables[language], language, ids, committed), "retry")
    return load_plan(store)


def plan_extension(config: RunConfig, store: ObjectStore) -> Plan:
    """The plan, with shards for all videos of the catalogue, in the config's languages, that it does not know yet.

    Raises:
        CatalogError, PlanError: the catalogue, or the plan, cannot be read.
    """
    where = "all languages" if config.languages is None else f"{config.language} (--language takes others, or all)"
    LOG.info("looking for new videos in %s", where)
    plan, videos = load_plan(store), catalog.read_catalog(config)
    for language in videos.languages():
        rows = videos.videos(language)
        if language in plan.tables:
            rows = rows.filter(
                pc.invert(pc.is_in(rows["video_id"], plan.tables[language]["video_id"].combine_chunks()))
            )
        _add(config, store, language, rows, "extend")
    return load_plan(store)


def _again(table: pa.Table, language: str, ids: Iterable[str], committed: Iterable[str]) -> pa.Table:
    """The last plan rows of these videos, without those that are planned again already and wait for their turn."""
    rows = table.filter(pc.is_in(table["video_id"], pa.array(sorted(ids), pa.string()))).sort_by("shard")
    last = {video_id: row for row, video_id in enumerate(rows["video_id"].to_pylist())}
    done, shards = set(committed), rows["shard"].to_pylist()
    chosen = sorted(row for row in last.values() if f"{language}-{shards[row]:06d}" in done)
    return rows.take(pa.array(chosen, pa.int64())).select(catalog.CATALOG_SCHEMA.names)


def _add(config: RunConfig, store: ObjectStore, language: str, videos: pa.Table, kind: str) -> None:
    if not videos.num_rows:
        return
    files = read_files(store).get(language, [])
    generation = max((int(file.metadata["generation"]) for file in files), default=-1) + 1
    first = max((int(pc.max(file.table["shard"]).as_py()) for file in files if file.table.num_rows), default=-1) + 1
    facts = {
        "generation": generation,
        "kind": kind,
        "partition_count": config.partition_count,
        "languages": None,
        **{name: getattr(config, name) for name in ("shard_videos", "shard_mb", "shard_minutes")},
    }
    # Lost to another driver: its generation is the plan, and what it does not hold is planned the next time.
    store.create(plan_path(language, generation), serialize(assign_shards(videos, config, first), facts))
