"""Complete the addresses of videos that a plan stores without their secrets.

A plan is an object that many people can read and that outlives a signature, so it has `…` where the catalog has user
info or a signature. The driver reads the catalog again, whose addresses may be newer, and gives them to the workers in
the shards; they are in no file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence, Set

import pyarrow as pa
import pyarrow.compute as pc

from audiopipe.catalog.read import Catalog, read_catalog
from audiopipe.config import RunConfig
from audiopipe.plan.plan import Plan
from audiopipe.plan.sources import move_plan, move_shards
from audiopipe.redaction import REDACTED, is_redacted
from audiopipe.types import Shard, shard_name

__all__ = ["complete_addresses", "complete_plan"]

LOG = logging.getLogger(__name__)


def complete_plan(
    plan: Plan,
    config: RunConfig,
    committed: Set[str] = frozenset(),
    catalog_reader: Callable[[RunConfig], Catalog] = read_catalog,
) -> Plan:
    """Return a plan whose videos can be fetched; the catalog is read only if one of their addresses is redacted.

    A video that the catalog no longer has keeps its redacted address, which `fetch` refuses.

    Args:
        committed: names of the shards that are not fetched again, for which the catalog is not read.

    Raises:
        CatalogError: the catalog cannot be read.
    """
    redacted = {
        language: [
            video_id
            for video_id, shard in _list_redacted(table)
            if not committed or shard_name(language, shard) not in committed
        ]
        for language, table in plan.tables.items()
    }
    addresses = _read_addresses([video_id for ids in redacted.values() for video_id in ids], config, catalog_reader)
    return move_plan(plan, addresses)


def complete_addresses(
    shards: Sequence[Shard], config: RunConfig, catalog_reader: Callable[[RunConfig], Catalog] = read_catalog
) -> list[Shard]:
    """Return shards whose videos can be fetched, as `complete_plan`."""
    ids = [video.video_id for shard in shards for video in shard.videos if is_redacted(video.uri)]
    return list(move_shards(shards, _read_addresses(ids, config, catalog_reader)))


def _list_redacted(table: pa.Table) -> list[tuple[str, int]]:
    """Return id and shard number of the videos whose addresses are redacted."""
    # An address without the sign of a redaction needs no closer look, and nearly all are such.
    rows = table.filter(pc.match_substring(table["uri"], REDACTED))
    columns = (rows[name].to_pylist() for name in ("video_id", "shard", "uri"))
    return [(video_id, shard) for video_id, shard, uri in zip(*columns, strict=True) if is_redacted(uri)]


def _read_addresses(
    ids: Sequence[str], config: RunConfig, catalog_reader: Callable[[RunConfig], Catalog]
) -> dict[str, str]:
    """Read the addresses of videos from the catalog, by id; none if there are no videos."""
    if not ids:
        return {}
    LOG.info("reading the addresses of %d videos from the catalog, because the plan has them without secrets", len(ids))
    table = catalog_reader(config.model_copy(update={"language": "all"})).table
    rows = table.filter(pc.is_in(table["video_id"], pa.array(ids, pa.string())))
    return dict(zip(rows["video_id"].to_pylist(), rows["uri"].to_pylist(), strict=True))
